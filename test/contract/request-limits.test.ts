import { expect, it } from "vitest";
import { createDatabaseHealth } from "../../src/store/database-health.ts";
import { openPostgres } from "../../src/store/database.ts";
import {
  createRequestLimits,
  type Admission,
  type LimitRules,
  type RequestLimits,
} from "../../src/store/request-limits.ts";
import { describeOnBothDatabases } from "./store/both-databases.ts";
import { requestLimits } from "./store/request-limits.ts";
import { heldBack } from "./refresh/held-back.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";

describeOnBothDatabases([requestLimits, heldBack]);

const admittedOf = (all: Admission[]) => all.filter(({ admitted }) => admitted !== null).length;

const open = async (databaseUrl: string) =>
  await openPostgres(
    databaseUrl,
    createDatabaseHealth(() => performance.now()),
  );

const asking = (rules: Partial<LimitRules>, isNote = false) => ({
  key: "token_host:login.example",
  rules: { concurrency: null, spacingMs: 0, maxPerWindow: null, ...rules },
  isNote,
  travelSeconds: 5,
  leaseSeconds: 30,
});

/** 4 replicas, and what each does so many times at once. */
const crowd = async <Result>(times: number, work: (limits: RequestLimits) => Promise<Result>) => {
  const databaseUrl = await useDatabase();
  const databases = await Promise.all(Array.from({ length: 4 }, () => open(databaseUrl)));
  try {
    const all = databases.flatMap((database) => {
      const limits = createRequestLimits(database);
      return Array.from({ length: times }, async () => await work(limits));
    });
    const results = await Promise.all(all);
    const rows = await databases[0]?.prisma.$queryRawUnsafe(
      "SELECT cardinality(seen_by) AS seen, cardinality(running) AS running FROM request_limits",
    );
    return { results, rows };
  } finally {
    await Promise.all(databases.map((database) => database.close()));
  }
};

const ask = async (rules: Partial<LimitRules>, times: number) =>
  (await crowd(times, async (limits) => await limits.admit(asking(rules)))).results;

describeWithServices(["postgres"], "limits, from several replicas at once", () => {
  it("exactly as many are let through as the window allows, the very first ones included", async () => {
    const all = await ask({ maxPerWindow: { requests: 10, seconds: 600 } }, 60);
    expect([all.length, admittedOf(all)]).toEqual([240, 10]);
    const waits = all.flatMap((one) => (one.admitted === null ? [one.waitSeconds] : []));
    expect(Math.min(...waits)).toBeGreaterThan(590);
    expect(Math.max(...waits)).toBeLessThanOrEqual(605);
  });

  it("exactly as many as may run at a time", async () => {
    const all = await ask({ concurrency: 3 }, 40);
    expect(admittedOf(all)).toBe(3);
  });

  it("one, where there is to be a distance between them", async () => {
    const all = await ask({ spacingMs: 60_000 }, 40);
    expect(admittedOf(all)).toBe(1);
  });

  it("of what comes and goes at the same time nothing is lost and nothing is left", async () => {
    const rules = { maxPerWindow: { requests: 1000, seconds: 600 } };
    const { rows } = await crowd(40, async (limits) => {
      const stays = await limits.admit(asking(rules));
      const leaves = await limits.admit(asking(rules));
      if (stays.admitted === null || leaves.admitted === null) throw new Error("the request was held back");
      await limits.settle(leaves.admitted, { sent: false, closeSeconds: 0 });
      await limits.settle(stays.admitted, { sent: true, closeSeconds: 0 });
    });
    expect(rows).toEqual([{ seen: 160, running: 0 }]);
  });
});
