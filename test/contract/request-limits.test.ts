import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { type Database, openPostgres } from "../../src/store/database.ts";
import {
  type Admission,
  createRequestLimits,
  type LimitRules,
  type RequestLimits,
} from "../../src/store/request-limits.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { heldBack } from "./refresh/held-back.ts";
import { describeOnBothDatabases, describeOnPostgres } from "./store/both-databases.ts";
import { requestLimits } from "./store/request-limits.ts";

describeOnBothDatabases([requestLimits]);
describeOnPostgres([heldBack]);

const admittedOf = (all: Admission[]) => all.filter(({ admitted }) => admitted !== null).length;

let replicas: Database[] = [];

const asking = (key: string, rules: Partial<LimitRules>, client = "one") => ({
  key,
  rules: { concurrency: null, spacingMs: 0, maxPerWindow: null, ...rules },
  client,
  provider: null,
  kind: "refresh" as const,
  travelSeconds: 5,
  leaseSeconds: 3600,
});

/** Each replica does this so many times at once, with a limit that nobody has used yet. */
const crowd = async <Result>(times: number, work: (limits: RequestLimits, key: string) => Promise<Result>) => {
  const key = `token_host:${randomUUID()}`;
  const all = replicas.flatMap((database) => {
    const limits = createRequestLimits(database);
    return Array.from({ length: times }, async () => await work(limits, key));
  });
  const results = await Promise.all(all);
  const [{ prisma }] = replicas as [Database];
  const rows = await prisma.$queryRaw`
    SELECT cardinality(seen_by) AS seen, cardinality(running) AS running FROM request_limits WHERE key = ${key}`;
  return { results, rows };
};

const ask = async (rules: Partial<LimitRules>, times: number) =>
  (await crowd(times, async (limits, key) => await limits.admit(asking(key, rules)))).results;

describeWithServices(["postgres"], "limits, from several replicas at once", () => {
  beforeAll(async () => {
    const databaseUrl = await useDatabase();
    const health = createDatabaseHealth(() => performance.now());
    replicas = await Promise.all(Array.from({ length: 4 }, async () => await openPostgres(databaseUrl, health)));
  });
  afterAll(async () => void (await Promise.all(replicas.map((database) => database.close()))));

  it("exactly as many are let through as the window allows, the very first ones included", async () => {
    const all = await ask({ maxPerWindow: { requests: 10, seconds: 7200 } }, 20);
    expect([all.length, admittedOf(all)]).toEqual([80, 10]);
    const waits = all.flatMap((one) => (one.admitted === null ? [one.waitSeconds] : []));
    expect(Math.min(...waits)).toBeGreaterThan(3600);
    expect(Math.max(...waits)).toBeLessThanOrEqual(7205);
  });

  it("exactly as many as may run at a time", async () => {
    const all = await ask({ concurrency: 3 }, 20);
    expect(admittedOf(all)).toBe(3);
  });

  it("a client that all replicas ask for at once leaves to another what is kept for it", async () => {
    const rules = { maxPerWindow: { requests: 12, seconds: 7200 } };
    const key = `token_host:${randomUUID()}`;
    const all = replicas.map((database) => createRequestLimits(database));
    const known = await all[0]?.admit(asking(key, rules, "modest"));
    if (known?.admitted) await all[0]?.closeAdmission(known.admitted, { sent: false, closeSeconds: 0 });
    const askAll = async (client: string) =>
      admittedOf(
        await Promise.all(
          all.flatMap((limits) =>
            Array.from({ length: 10 }, async () => await limits.admit(asking(key, rules, client))),
          ),
        ),
      );
    expect([await askAll("greedy"), await askAll("modest")]).toEqual([9, 3]);
  });

  it("one, where there is to be a distance between them", async () => {
    const all = await ask({ spacingMs: 3_600_000 }, 20);
    expect(admittedOf(all)).toBe(1);
  });

  it("of what comes and goes at the same time nothing is lost and nothing is left", async () => {
    const rules = { maxPerWindow: { requests: 1000, seconds: 7200 } };
    const { rows } = await crowd(20, async (limits, key) => {
      const stays = await limits.admit(asking(key, rules));
      const leaves = await limits.admit(asking(key, rules));
      if (stays.admitted === null || leaves.admitted === null) throw new Error("the request was held back");
      await limits.closeAdmission(leaves.admitted, { sent: false, closeSeconds: 0 });
      await limits.closeAdmission(stays.admitted, { sent: true, closeSeconds: 0 });
    });
    expect(rows).toEqual([{ seen: 80, running: 0 }]);
  });
});
