import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { type AuditStage, keyOf } from "./stage.ts";

const dayMs = 86_400_000;
const monthOf = (time: Date) => time.toISOString().slice(0, 7).replace("-", "_");
const monthsAgo = (months: number) => {
  const time = new Date();
  return new Date(Date.UTC(time.getUTCFullYear(), time.getUTCMonth() - months, 15));
};

/** Removes nothing by itself. */
const patient = (store: AuditStage["store"]) => ({ ...store, maintain: async () => 0 });

export function auditRetention(stage: () => AuditStage): void {
  let audit: AuditStage;
  beforeAll(() => void (audit = stage()));
  beforeEach(async () => await audit.empty());
  afterAll(async () => {
    await audit.empty();
    await audit.sql("SELECT audit.maintain()");
  });

  const partitions = async (): Promise<string[]> => {
    const rows = await audit.query<{ name: string }>(
      "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'audit.entries'::regclass ORDER BY 1",
    );
    return rows.map(({ name }) => name.replace("audit.entries_", ""));
  };

  /** Where the rows are, by partition. */
  const places = async (): Promise<Record<string, number>> => {
    const rows = await audit.query<{ name: string; count: number }>(
      "SELECT tableoid::regclass::text AS name, count(*)::int AS count FROM audit.entries GROUP BY 1 ORDER BY 1",
    );
    return Object.fromEntries(rows.map(({ name, count }) => [name.replace("audit.entries_", ""), count]));
  };

  it("this month and the next two have their partitions; rows of a month without one are in the default partition, and move when it is made", async () => {
    const [current, next, afterNext] = [0, -1, -2].map((months) => monthOf(monthsAgo(months))) as [
      string,
      string,
      string,
    ];
    await audit.sql(`DROP TABLE audit.entries_${current}, audit.entries_${next}`);
    const process = await audit.start();
    // Its first turn may have made them already: so they are dropped once more, with what they hold.
    await audit.stop(process);
    await audit.sql(`DROP TABLE IF EXISTS audit.entries_${current}, audit.entries_${next}`);
    await audit.empty();
    const without = await audit.start({ over: (store) => ({ ...store, maintain: async () => 0 }) });
    await audit.write(without, "keys.create");
    expect(await places()).toEqual({ default: 2 });
    expect(await partitions()).not.toContain(current);
    await audit.store.maintain();
    expect(await partitions()).toEqual(expect.arrayContaining([current, next, afterNext, "default"]));
    expect(await places()).toEqual({ [current]: 2 });
    await audit.write(without, "keys.create");
    expect(await without.audit.verify([])).toMatchObject({ ok: true, rows: 3 });
  });

  it("a month that is over and older than the retention is removed with its partition; what is left of each chain is proven from its anchor on", async () => {
    await audit.sql(`SELECT audit.add_partition('${monthsAgo(16).toISOString().slice(0, 7)}-01T00:00:00Z')`);
    await audit.sql(`SELECT audit.add_partition('${monthsAgo(12).toISOString().slice(0, 7)}-01T00:00:00Z')`);
    const process = await audit.start({ over: patient, wallMs: monthsAgo(16).getTime() });
    for (let row = 2; row <= 4; row++) await audit.write(process, "keys.create");
    process.wall.ms = monthsAgo(12).getTime();
    for (let row = 5; row <= 6; row++) await audit.write(process, "keys.create");
    const ended = await audit.start({ over: patient, wallMs: monthsAgo(16).getTime() });
    await audit.stop(ended);
    process.wall.ms = Date.now();
    expect(await process.audit.verify(ended.heads)).toMatchObject({ ok: true, chains: 2, rows: 8 });
    expect(await audit.store.maintain()).toBe(6);
    expect([await partitions(), await places()]).toEqual([
      expect.not.arrayContaining([monthOf(monthsAgo(16))]),
      { [monthOf(monthsAgo(12))]: 2 },
    ]);
    expect(await audit.store.maintain()).toBe(0);
    expect((await audit.store.anchors()).map(({ seq }) => seq)).toEqual(expect.arrayContaining([2, 4]));
    expect(await process.audit.verify(ended.heads)).toMatchObject({ ok: true, chains: 2, rows: 2 });
    await audit.write(process, "keys.create");
    expect(await process.audit.verify([])).toMatchObject({ ok: true, rows: 3 });
  });

  it("pruning up to a time removes what is older, and refuses a time within the retention, also when the function is called as it is", async () => {
    const process = await audit.start({ over: patient, wallMs: Date.now() - 500 * dayMs });
    for (const days of [499, 498, 402, 300]) {
      process.wall.ms = Date.now() - days * dayMs;
      await audit.write(process, "keys.create");
    }
    process.wall.ms = Date.now();
    const tooYoung = await process.audit.prune(new Date(Date.now() - 399 * dayMs)).catch((error: unknown) => error);
    expect(tooYoung).toBeInstanceOf(BrokerError);
    expect(tooYoung).toMatchObject({ code: "invalid_request", message: expect.stringContaining("400 days") as string });
    for (const time of ["now()", "now() - interval '399 days'", "'infinity'", "NULL"]) {
      await expect(audit.sql(`SELECT audit.prune((${time})::timestamptz)`)).rejects.toThrow(
        /400 days cannot be removed/,
      );
    }
    expect(await process.audit.prune(new Date(Date.now() - 450 * dayMs))).toBe(3);
    expect(await process.audit.prune(new Date(Date.now() - 401 * dayMs))).toBe(1);
    expect((await audit.rows(process)).map(({ seq }) => seq)).toEqual([5]);
    expect(await process.audit.verify([])).toMatchObject({ ok: true, rows: 1 });
  });

  it("what was pruned in order is proven though the key of its entries is gone", async () => {
    const old = await audit.start({ over: patient, wallMs: Date.now() - 500 * dayMs });
    await audit.write(old, "keys.create");
    old.wall.ms = Date.now();
    await audit.write(old, "keys.create");
    const second = keyOf("k2");
    const rotating = await audit.start({ over: patient, keyring: createKeyring([second, audit.key]) });
    expect(await rotating.audit.checkpoint()).toMatchObject({ ok: true });
    expect(await rotating.audit.prune(new Date(Date.now() - 450 * dayMs))).toBe(2);
    const last = await audit.start({ over: patient, keyring: createKeyring([second]) });
    expect(await last.audit.verify([])).toMatchObject({ ok: true, faults: [] });
  });

  it("an old entry behind a younger one of its chain stays until that one is removed: what is left is always the end of a chain", async () => {
    const process = await audit.start({ over: patient, wallMs: Date.now() - 500 * dayMs });
    process.wall.ms = Date.now() - 300 * dayMs;
    await audit.write(process, "keys.create");
    process.wall.ms = Date.now() - 499 * dayMs;
    await audit.write(process, "keys.create");
    process.wall.ms = Date.now();
    expect(await process.audit.prune(new Date(Date.now() - 450 * dayMs))).toBe(1);
    expect((await audit.rows(process)).map(({ seq }) => seq)).toEqual([2, 3]);
    expect(await process.audit.verify([])).toMatchObject({ ok: true, rows: 2 });
  });
}
