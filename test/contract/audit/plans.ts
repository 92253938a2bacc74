import { beforeAll, describe, expect, it } from "vitest";
import { Prisma as Sql } from "../../../src/generated/prisma/client.ts";
import { createAuditStore, type EntryQuery } from "../../../src/store/audit.ts";
import type { AuditStage } from "./stage.ts";

/** Without any filter: a page, newest first. */
export const unfiltered: EntryQuery = {
  since: null,
  until: null,
  actor: null,
  connection: null,
  action: null,
  within: null,
  after: null,
  oldestFirst: false,
  limit: 51,
};
const place = { at: new Date(), process: "11111111-1111-4111-8111-111111111111", seq: 7 };
const yesterday = new Date(place.at);
yesterday.setUTCDate(yesterday.getUTCDate() - 1);

/** Which column's index each query is to be answered from. */
const queries: [name: string, query: Partial<EntryQuery>, index: RegExp][] = [
  ["everything", {}, /_at_idx/],
  ["a further page", { after: place }, /_at_idx/],
  ["a time", { since: yesterday, until: place.at }, /_at_idx/],
  ["an actor", { actor: "k17" }, /_coalesce_at_idx/],
  ["a further page of an actor", { actor: "k17", after: place }, /_coalesce_at_idx/],
  ["a connection", { connection: "c17" }, /_target_name_at_idx/],
  ["a connection within a time", { connection: "c17", since: yesterday }, /_target_name_at_idx/],
  ["an action", { action: "keys.create" }, /_action_at_idx/],
  ["an export", { oldestFirst: true, limit: 1000, after: place }, /_at_idx/],
];

/** The statements as they are asked, on 40,000 entries of three months. */
export function auditPlans(stage: () => AuditStage): void {
  describe("on many entries", () => {
    beforeAll(async () => {
      const audit = stage();
      await audit.empty();
      await audit.sql(`INSERT INTO audit.entries
        SELECT now() + make_interval(mins => n), n, '11111111-1111-4111-8111-111111111111', 'key', 'k' || n % 500, 'n',
          CASE WHEN n % 1000 = 0 THEN 'keys.create' ELSE 'tokens.read' END, 'connection', 'c' || n % 400, NULL, 'ok', NULL, '', ''
        FROM generate_series(-20000, 19999) n`);
      await audit.sql("ANALYZE audit.entries");
    });

    it.each(queries)(
      "a list by %s is answered from an index, and reads no more of it than its page",
      async (_name, query, index) => {
        const { audit: prisma } = stage().database;
        const explaining = {
          $queryRaw: (parts: TemplateStringsArray, ...values: unknown[]) =>
            prisma.$queryRaw(Sql.sql`EXPLAIN (ANALYZE, COSTS off, TIMING off) ${Sql.sql(parts, ...values)}`),
        } as unknown as typeof prisma;
        const lines: unknown = await createAuditStore({ audit: explaining }).page({ ...unfiltered, ...query });
        const plan = (lines as Record<string, string>[]).flatMap((line) => Object.values(line)).join("\n");
        expect(plan).toMatch(index);
        expect(plan).not.toMatch(/Sort Key:.*::/); // by what the columns are selected as
        expect(plan).not.toMatch(/Seq Scan.*actual rows=[1-9]/); // of partitions without a row there is nothing else to do
        const read = [...plan.matchAll(/Scan.*actual rows=(\d+)/g)].reduce((sum, [, rows]) => sum + Number(rows), 0);
        expect(read, plan).toBeLessThanOrEqual((query.limit ?? unfiltered.limit) * 4);
        const passedOver = [...plan.matchAll(/Rows Removed by Filter: (\d+)/g)].reduce(
          (sum, [, rows]) => sum + Number(rows),
          0,
        );
        expect(passedOver, plan).toBeLessThan(10);
      },
    );
  });
}
