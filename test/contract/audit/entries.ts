import { beforeAll, beforeEach, expect, it } from "vitest";
import type { Actor, AuditRow } from "../../../src/audit/entries.ts";
import type { AuditStore } from "../../../src/store/audit.ts";
import { until } from "../../support/patience.ts";
import { type AuditStage, caller, type Process } from "./stage.ts";

const minute = 60_000;
/** A minute's begin. */
const now = Math.floor(Date.now() / minute) * minute;
const reader: Actor = { kind: "key", id: "key-2", name: "reader" };

/** Each write is committed, and its answer is lost. Each one's first try only. */
const losingAnswers = (store: AuditStore): AuditStore => {
  let isLost = false;
  return {
    ...store,
    async write(process, work) {
      const result = await store.write(process, work);
      isLost = !isLost;
      if (isLost) throw new Error("the connection was lost");
      return result;
    },
  };
};

/** Each write is rolled back once, when all of it has been done. */
const rollingBack = (store: AuditStore): AuditStore => {
  let isRolledBack = false;
  return {
    ...store,
    async write(process, work) {
      isRolledBack = !isRolledBack;
      return await store.write(process, async (transaction) => {
        const result = await work(transaction);
        if (isRolledBack) throw new Error("rolled back");
        return result;
      });
    },
  };
};

const verified = async (process: Process) => await process.audit.verify(process.heads);

const numbers = (rows: readonly AuditRow[]) =>
  rows.flatMap(({ detail }) => (typeof detail["number"] === "number" ? [detail["number"]] : []));

export function auditEntries(stage: () => AuditStage): void {
  let audit: AuditStage;
  beforeAll(() => void (audit = stage()));
  beforeEach(async () => await audit.empty());
  it("entries get numbers in the order of their ends; each says who did what to what, from where, and how it ended", async () => {
    const process = await audit.start();
    const slow = await process.audit.begin({
      actor: caller,
      action: "keys.create",
      target: null,
      address: "192.0.2.7",
    });
    await audit.write(process, "clients.delete", { result: "not_found", target: { kind: "client", name: "shop" } });
    await process.audit.end(slow, {
      result: "ok",
      target: { kind: "key", name: "billing" },
      detail: { abilities: ["tokens"] },
    });
    await until("three rows", async () => (await audit.rows(process)).length === 3);
    await audit.stop(process);
    const rows = await audit.rows(process);
    expect(rows.map(({ seq, action, result }) => [seq, action, result])).toEqual([
      [1, "system.start", "ok"],
      [2, "clients.delete", "not_found"],
      [3, "keys.create", "ok"],
      [4, "system.stop", "ok"],
    ]);
    expect(rows[2]).toMatchObject({
      actor: caller,
      target: { kind: "key", name: "billing" },
      address: "192.0.2.7",
      detail: { abilities: ["tokens"] },
    });
    expect(await verified(process)).toMatchObject({ ok: true, chains: 1, rows: 4, openEnds: [] });
  });

  it("texts that Postgres would refuse, or that would fill the table, are cleaned and cut: they fail no entry", async () => {
    const process = await audit.start();
    const name = `a\0b\ud800${"x".repeat(10_000)}`;
    await audit.write(process, "keys.create", {
      actor: { kind: "workload", id: name, name },
      target: { kind: "key", name },
      address: "\0",
      detail: { deep: [{ name }] },
    });
    await audit.write(process, "keys.create", { detail: { list: Array.from({ length: 10_000 }, () => "abcdefgh") } });
    const [, row, long] = await audit.rows(process);
    expect(row?.actor.id).toMatch(/^ab\ufffdx{100}/);
    expect([row?.actor.id?.length, row?.address]).toEqual([500, ""]);
    expect(row?.detail["deep"]).toEqual([{ name: row?.actor.id }]);
    expect(long?.detail).toMatchObject({ too_long: true });
    expect(await verified(process)).toMatchObject({ ok: true });
  });

  it.each([
    ["whose answer is lost", losingAnswers],
    ["that is rolled back", rollingBack],
  ])("a write %s makes each entry once, each count once, and no number twice", async (_name, over) => {
    const process = await audit.start({ over, wallMs: now });
    for (let number = 0; number < 5; number++) {
      process.audit.countRead({ actor: reader, connection: "c", result: "ok" });
      await audit.write(process, "keys.create", { detail: { number } });
    }
    process.wall.ms += minute;
    await until("the minute is added up", async () => (await audit.actions(process)).includes("tokens.read"));
    await until("the count is written", async () => {
      const rows = await audit.rows(process);
      return sumOf(rows) === 5;
    });
    await audit.stop(process);
    const rows = await audit.rows(process);
    expect(rows.map(({ seq }) => seq)).toEqual(rows.map((_row, index) => index + 1));
    expect(rows.filter(({ action }) => action === "keys.create").map(({ detail }) => detail["number"])).toEqual([
      0, 1, 2, 3, 4,
    ]);
    expect(sumOf(rows)).toBe(5);
    expect(process.troubles.length).toBeGreaterThan(5);
    expect(await verified(process)).toMatchObject({ ok: true });
  });

  it("reads are one entry for each caller, connection, result and minute; refused keys are counted together", async () => {
    const process = await audit.start({ wallMs: now + 5000 });
    const read = (connection: string | null, result = "ok", actor = reader) =>
      process.audit.countRead({ actor, connection, result });
    for (let count = 0; count < 3; count++) read("c1");
    process.wall.ms += 20_000;
    read("c1");
    read("c2");
    read("c1", "needs_reauthorization");
    read(null, "connection_not_found");
    read("c1", "ok", caller);
    process.audit.countRefused();
    process.audit.countRefused();
    process.wall.ms += minute;
    read("c1");
    await until("the minute is added up", async () => (await audit.rows(process)).length === 7);
    const rows = await audit.rows(process);
    const told = rows
      .slice(1)
      .map((row) => [row.action, row.actor.id, row.target?.name, row.result, row.detail["count"]]);
    expect(new Set(told.map((row) => row.join(" ")))).toEqual(
      new Set([
        "keys.refused   unauthenticated 2",
        "tokens.read key-1 c1 ok 1",
        "tokens.read key-2 c1 needs_reauthorization 1",
        "tokens.read key-2 c1 ok 4",
        "tokens.read key-2 c2 ok 1",
        "tokens.read key-2  connection_not_found 1",
      ]),
    );
    const most = rows.find(({ detail }) => detail["count"] === 4);
    expect([most?.at, most?.detail["first"], most?.detail["last"]]).toEqual([
      new Date(now + 5000),
      new Date(now + 5000).toISOString(),
      new Date(now + 25_000).toISOString(),
    ]);
  });

  it("counts that an ended process has left are added up by another one", async () => {
    await audit.sql(`INSERT INTO audit.open_reads VALUES
      (1, '2026-11-20T12:00Z', gen_random_uuid(), 'tokens.read', 'key', 'k', 'n', 'c', 'ok', 3, '2026-11-20T12:00:01Z', '2026-11-20T12:00:02Z')`);
    await audit.sql(`INSERT INTO audit.open_reads SELECT 2, minute, process, action, actor_kind, actor_id, actor_name, connection, result, 4, first,
      '2026-11-20T12:00:09Z' FROM audit.open_reads`);
    const process = await audit.start();
    await until("they are added up", async () => (await audit.rows(process)).length === 2);
    expect((await audit.rows(process))[1]).toMatchObject({
      action: "tokens.read",
      detail: { count: 7, last: "2026-11-20T12:00:09.000Z" },
    });
    expect(await audit.query("SELECT 1 AS one FROM audit.open_reads")).toEqual([]);
  });

  it("of more counts than are added up in one transaction, each sum is whole", async () => {
    await audit.sql(`INSERT INTO audit.open_reads SELECT flush, '2026-11-20T12:00Z', gen_random_uuid(), 'tokens.read', 'key', 'k', 'n', 'c' || at, 'ok', 1,
        '2026-11-20T12:00:01Z', '2026-11-20T12:00:02Z' FROM generate_series(1, 5050) at, generate_series(1, 4) flush`);
    const process = await audit.start();
    const sums = async () =>
      await audit.query(`SELECT detail ->> 'count' AS count, count(*)::int AS entries, count(DISTINCT target_name)::int AS connections
        FROM audit.entries WHERE action = 'tokens.read' GROUP BY 1`);
    await until(
      "they are added up",
      async () => (await audit.query("SELECT 1 FROM audit.open_reads LIMIT 1")).length === 0,
    );
    expect(await sums()).toEqual([{ count: "4", entries: 5050, connections: 5050 }]);
    expect((await verified(process)).faults).toEqual([]);
  });

  it("counts that somebody has made such as no broker writes hold up no others", async () => {
    const process = await audit.start();
    for (const time of ["'-infinity'", "'infinity'", "'4700-01-01 BC'", "'2026-11-20T12:00Z'"]) {
      await audit.sql(`INSERT INTO audit.open_reads VALUES
        (1, ${time}, gen_random_uuid(), 'tokens.read', 'mallory', NULL, NULL, 'c', 'odd', -9223372036854775808, 'infinity', ${time})`);
    }
    process.audit.countRead({ actor: caller, connection: "c", result: "ok" });
    process.wall.ms += minute;
    await until("its own count is an entry", async () =>
      (await audit.rows(process)).some(({ detail }) => detail["count"] === 1),
    );
    expect((await verified(process)).faults).toEqual([]);
  });

  it("nobody who can write counts gets an entry of a change signed", async () => {
    await audit.sql(`INSERT INTO audit.open_reads VALUES
      (1, '2026-11-20T12:00Z', gen_random_uuid(), 'keys.create', 'key', 'k', 'n', 'c', 'ok', 1, '2026-11-20T12:00:01Z', '2026-11-20T12:00:02Z')`);
    const process = await audit.start();
    await until("the counts are taken", async () => (await audit.query("SELECT 1 FROM audit.open_reads")).length === 0);
    await audit.write(process, "clients.create");
    expect(await audit.actions(process)).toEqual(["system.start", "clients.create"]);
  });

  it("what ended processes have left in DATA_DIR is written by the next one, once: also where they were killed right after the INSERT", async () => {
    let isKilled = false;
    const first = await audit.start({
      over: (store) => ({
        ...store,
        write: async (id, work) => {
          // It is killed at once: all that it does later comes to nothing.
          if (isKilled) throw new Error("killed");
          return await store.write(id, work);
        },
      }),
    });
    await audit.write(first, "keys.create");
    isKilled = true;
    const open = await first.audit.begin({ actor: caller, action: "keys.revoke", target: null, address: null });
    const ended = await first.audit.begin({ actor: caller, action: "clients.create", target: null, address: null });
    await first.audit.end(ended, { result: "conflict" });
    expect(open).toBeDefined();
    const second = await audit.start({ folder: first.folder });
    await until("both are written", async () => (await audit.rows(second)).length === 3);
    await audit.stop(second);
    const told = (await audit.rows(second)).map(({ action, result }) => [action, result]);
    expect(told).toEqual([
      ["system.start", "ok"],
      ["keys.revoke", "unknown"],
      ["clients.create", "conflict"],
      ["system.stop", "ok"],
    ]);
    const third = await audit.start({ folder: first.folder });
    await audit.stop(third);
    expect(await audit.actions(third)).toEqual(["system.start", "system.stop"]);
  });

  it("a list is answered by each filter, newest first, and its pages hold every row once, also where many have the same time", async () => {
    const process = await audit.start({ wallMs: now });
    for (let number = 0; number < 12; number++) {
      process.wall.ms = now + Math.floor(number / 4) * 1000;
      await audit.write(process, number % 2 === 0 ? "connections.update" : "keys.create", {
        actor: number < 6 ? caller : { kind: "person", id: null, name: "ann" },
        target: { kind: number % 3 === 0 ? "connection" : "client", name: `n${number % 2}` },
        detail: { number },
      });
    }
    const all = async (filter: object, limit = 100) => {
      const found: AuditRow[] = [];
      let cursor: string | null = null;
      do {
        const page: Awaited<ReturnType<typeof process.audit.list>> = await process.audit.list({
          ...filter,
          limit,
          cursor,
        });
        found.push(...page.items);
        cursor = page.nextCursor;
      } while (cursor !== null);
      return found;
    };
    const newestFirst = numbers(await all({}));
    expect(new Set(newestFirst).size).toBe(12);
    expect([newestFirst.slice(0, 4).sort((a, b) => a - b), newestFirst.slice(8).sort((a, b) => a - b)]).toEqual([
      [8, 9, 10, 11],
      [0, 1, 2, 3],
    ]);
    for (const limit of [1, 3, 5]) expect(await all({}, limit)).toEqual(await all({}));
    const sorted = async (filter: object) => numbers(await all(filter, 2)).sort((a, b) => a - b);
    expect(await sorted({ actor: "key-1" })).toEqual([0, 1, 2, 3, 4, 5]);
    expect(await sorted({ actor: "ann" })).toEqual([6, 7, 8, 9, 10, 11]);
    expect(await sorted({ connection: "n0" })).toEqual([0, 6]);
    expect(await sorted({ type: "keys.create" })).toEqual([1, 3, 5, 7, 9, 11]);
    expect(await sorted({ since: new Date(now + 1000) })).toEqual([4, 5, 6, 7, 8, 9, 10, 11]);
    expect(await sorted({ until: new Date(now + 1000) })).toEqual([0, 1, 2, 3]);
    expect(await sorted({ type: "keys.create", actor: "ann", until: new Date(now + 2000) })).toEqual([7]);
    for (const cursor of ["", "x", Buffer.from('[1,"------------------------------------",1]').toString("base64url")]) {
      await expect(process.audit.list({ limit: 1, cursor })).rejects.toMatchObject({ code: "invalid_request" });
    }
    expect(await all({ since: new Date(8.64e15), until: new Date(-8.64e15) })).toEqual([]);
    const exported: AuditRow[] = [];
    for await (const row of process.audit.export({ type: "keys.create" })) exported.push(row);
    expect(exported).toEqual((await all({ type: "keys.create" })).toReversed());
  });

  it("an export has every row once, oldest first, also across its batches", async () => {
    await audit.sql(`INSERT INTO audit.entries SELECT now() - make_interval(secs => n / 700), n, '00000000-0000-4000-8000-000000000000', 'key', 'k', 'n',
      'tokens.read', NULL, NULL, NULL, 'ok', NULL, '', '' FROM generate_series(1, 2500) n`);
    const process = await audit.start();
    const seen: string[] = [];
    let before = new Date(0);
    for await (const { id, at, action } of process.audit.export({})) {
      if (action === "tokens.read") seen.push(id);
      expect(at.getTime()).toBeGreaterThanOrEqual(before.getTime());
      before = at;
    }
    expect([seen.length, new Set(seen).size]).toEqual([2500, 2500]);
  });

  it("an entry whose time somebody made one that no broker writes hides no other one", async () => {
    const process = await audit.start();
    for (let count = 0; count < 4; count++) await audit.write(process, "keys.create");
    const change = "UPDATE audit.entries SET at = $2::text::timestamptz WHERE process = $1::uuid AND seq = $3::int";
    const times = ["-infinity", "infinity", "20000-01-01Z"];
    for (const [index, time] of times.entries()) await audit.sql(change, process.id, time, index + 2);
    const { items } = await process.audit.list({ limit: 100, cursor: null });
    expect(items.map(numberOf)).toEqual([3, 4, 5, 1, 2]);
    expect(items.map(({ at }) => at.toISOString().slice(0, 4))).toEqual(
      expect.arrayContaining(["5000", "1970", new Date(now).toISOString().slice(0, 4)]),
    );
    const paged: number[] = [];
    let cursor: string | null = null;
    do {
      const page: Awaited<ReturnType<typeof process.audit.list>> = await process.audit.list({ limit: 1, cursor });
      paged.push(...page.items.map(numberOf));
      cursor = page.nextCursor;
    } while (cursor !== null);
    expect(paged).toEqual([3, 5, 1]);
    const exported: number[] = [];
    for await (const row of process.audit.export({})) exported.push(numberOf(row));
    expect(exported).toEqual([2, 1, 5, 4, 3]);
    expect((await verified(process)).faults.map(({ from }) => from)).toContain(3);
  });
}

const numberOf = ({ id }: AuditRow) => Number(id.split(":")[1]);

function sumOf(rows: readonly AuditRow[]): number {
  return rows.reduce((sum, { action, detail }) => sum + (action === "tokens.read" ? Number(detail["count"]) : 0), 0);
}
