import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { openPostgres } from "../../src/store/database.ts";
import { createDueStatements } from "../../src/store/due.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { StoreStage } from "./store/stage.ts";

const everything = { limit: 1000, claimSeconds: 3600, busyProviders: [] };

/** What the embedded database, which has one session, cannot show. */
describeWithServices(["postgres"], "sweeping with several replicas", () => {
  let replicas: StoreStage[];
  beforeAll(async () => {
    const url = await useDatabase();
    replicas = await Promise.all(
      Array.from(
        { length: 4 },
        async () =>
          new StoreStage(
            await openPostgres(
              url,
              createDatabaseHealth(() => 0),
            ),
          ),
      ),
    );
  });
  afterAll(async () => void (await Promise.all(replicas.map(({ database }) => database.close()))));

  const one = () => replicas[0] as StoreStage;

  /** Connections in bulk, due now. */
  async function addDue(count: number): Promise<void> {
    await one().query(
      `INSERT INTO connections (id, name, provider, grant_type, scopes, granted_scopes, inputs, labels, status, enabled_status,
         next_refresh_at)
       SELECT gen_random_uuid(), $1 || n, 'own', 'authorization_code', '{}', '{}', '{}', '{}', 'connected', 'connected',
         clock_timestamp() FROM generate_series(1, $2::int) AS n RETURNING 1 AS done`,
      `${randomUUID()}-`,
      count,
    );
  }

  it("no row goes to two of them, and none is left over", async () => {
    await addDue(600);
    const claimed: string[] = [];
    const sweep = async ({ rows }: StoreStage): Promise<void> => {
      for (;;) {
        const batch = await rows.claimDue({ limit: 16, claimSeconds: 3600, busyProviders: [] });
        claimed.push(...batch.map(({ id }) => id));
        if (batch.length === 0) return;
      }
    };
    await Promise.all([...replicas, ...replicas].map(sweep));
    // A replica skips rows that another one is just taking. A last look finds the rows that all have skipped.
    await sweep(one());
    expect([claimed.length, new Set(claimed).size]).toEqual([600, 600]);
  });

  it("nobody waits for a row that another is just taking", async () => {
    await addDue(3);
    const [locked] = await one().query<{ id: string }>(
      "SELECT id::text AS id FROM connections WHERE next_refresh_at <= clock_timestamp() LIMIT 1",
    );
    await one().database.prisma.$transaction(async (session) => {
      await session.$queryRaw`SELECT 1 AS done FROM connections WHERE id = ${locked?.id}::uuid FOR UPDATE`;
      const claimed = await (replicas[1] as StoreStage).rows.claimDue(everything);
      expect([claimed.length, claimed.some(({ id }) => id === locked?.id)]).toEqual([2, false]);
    });
    expect((await one().rows.claimDue(everything)).map(({ id }) => id)).toEqual([locked?.id]);
  });

  it("the cost follows what is due, not what is stored: the partial index finds it", async () => {
    await addDue(10_000);
    await one().query(
      "UPDATE connections SET next_refresh_at = clock_timestamp() + interval '1 day' RETURNING 1 AS done",
    );
    await one().query("UPDATE connections SET next_refresh_at = NULL WHERE random() < 0.5 RETURNING 1 AS done");
    await one().database.prisma.$executeRawUnsafe("ANALYZE connections");
    await addDue(5);
    const { prisma, direct } = one().database;
    // The statement itself, as the broker sends it, with EXPLAIN before it.
    const explaining: typeof direct = async ({ name, text }, values) =>
      await direct({ name: `explain ${name}`, text: `EXPLAIN ${text}` }, values);
    const due = createDueStatements({ prisma, direct: explaining });
    const lines: unknown = await due.claimDue({ ...everything, limit: 16 });
    const plan = (lines as Record<string, string>[]).flatMap((line) => Object.values(line)).join("\n");
    expect(plan).toContain("connections_due_idx");
    expect(plan).not.toMatch(/Seq Scan on connections/);
    expect(plan).not.toMatch(/^\s+->\s+Sort/m);
    expect(await one().rows.claimDue(everything)).toHaveLength(5);
  });
});
