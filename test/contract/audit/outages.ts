import type { Client } from "pg";
import { beforeAll, beforeEach, expect, it } from "vitest";
import { until } from "../../support/patience.ts";
import { type AuditStage, caller, type Process } from "./stage.ts";

/** This month, or a later one. */
function month(later = 0, between = "_"): string {
  const now = new Date();
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + later))
    .toISOString()
    .slice(0, 7)
    .replace("-", between);
}

/** What somebody does to the tables of the audit, how it is taken back, and what the broker's statements fail with meanwhile. */
type Outage = { begin: string; end: string };

const outages: Record<string, Outage> = {
  "the table locked": {
    begin: "BEGIN; LOCK TABLE audit.entries IN ACCESS EXCLUSIVE MODE",
    end: "COMMIT",
  },
  "the table of counts locked": {
    begin: "BEGIN; LOCK TABLE audit.open_reads IN ACCESS EXCLUSIVE MODE",
    end: "COMMIT",
  },
  "its partitions gone": {
    begin: `ALTER FUNCTION audit.maintain RENAME TO kept;
      ALTER TABLE audit.entries DETACH PARTITION audit.entries_default;
      ALTER TABLE audit.entries DETACH PARTITION audit.entries_${month()}`,
    end: `ALTER TABLE audit.entries ATTACH PARTITION audit.entries_${month()} FOR VALUES FROM ('${month(0, "-")}-01Z') TO ('${month(1, "-")}-01Z');
      ALTER TABLE audit.entries ATTACH PARTITION audit.entries_default DEFAULT;
      ALTER FUNCTION audit.kept RENAME TO maintain`,
  },
  "the table gone": {
    begin: "ALTER TABLE audit.entries RENAME TO kept",
    end: "ALTER TABLE audit.kept RENAME TO entries",
  },
  "its disk full": {
    begin: `CREATE FUNCTION audit.no_room() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
      CREATE TRIGGER no_room BEFORE INSERT ON audit.entries FOR EACH ROW EXECUTE FUNCTION audit.no_room();
      CREATE TRIGGER no_room BEFORE INSERT ON audit.open_reads FOR EACH ROW EXECUTE FUNCTION audit.no_room()`,
    end: "DROP FUNCTION audit.no_room CASCADE",
  },
};

const change = async ({ audit: writing }: Process, number: number): Promise<void> => {
  const entry = { actor: caller, target: null, address: null, action: "keys.create", detail: { number } } as const;
  await writing.end(await writing.begin(entry), { result: "ok" });
};

/** `owner`: another session, as the owner of the database. `losses`: how often the broker has taken Postgres for away. */
export function auditOutages(
  stage: () => AuditStage,
  { owner, losses }: { owner: () => Client; losses: () => number },
): void {
  let audit: AuditStage;
  beforeAll(() => void (audit = stage()));
  beforeEach(async () => await audit.empty());

  it.each(Object.entries(outages))(
    "with %s no entry and no count is lost, nobody waits, and Postgres does not count as away",
    async (_name, { begin, end }) => {
      const process = await audit.start();
      const lossesBefore = losses();
      await change(process, 0);
      await owner().query(begin);
      try {
        for (let number = 1; number <= 20; number++) {
          process.audit.countRead({ actor: caller, connection: "c", result: "ok" });
          await change(process, number);
        }

        const troubles = process.troubles.length;
        await until("a write has failed", () => process.troubles.length > troubles);
        // The connections of the pool are free, all but one.
        const { prisma } = audit.database;
        await Promise.all(
          Array.from({ length: 9 }, () => prisma.$queryRaw`SELECT count(*)::int AS count FROM connections`),
        );
      } finally {
        await owner().query(end);
      }
      process.wall.ms += 60_000;
      await until("all is written", async () => {
        const rows = await audit.rows(process);
        return (
          rows.filter(({ action }) => action === "keys.create").length >= 21 &&
          rows.some(({ action }) => action === "tokens.read")
        );
      });
      await audit.stop(process);
      const rows = await audit.rows(process);
      expect(rows.filter(({ action }) => action === "keys.create").map(({ detail }) => detail["number"])).toEqual(
        Array.from({ length: 21 }, (_each, number) => number),
      );
      const reads = rows.filter(({ action }) => action === "tokens.read");
      expect(reads.reduce((sum, { detail }) => sum + Number(detail["count"]), 0)).toBe(20);
      expect(losses()).toBe(lossesBefore);
      expect(await process.audit.verify(process.heads)).toMatchObject({ ok: true });
    },
  );
}
