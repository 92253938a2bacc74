import { Redis } from "ioredis";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import {
  describeWithServices,
  startPrivatePostgres,
  startPrivateRedis,
  statementsIn,
} from "../support/services/index.ts";

/** The longest that a replica trusts what it knows of a row. */
const trustMs = 4000;

/** How often each command has run, apart from those that only ask this. */
async function commandsIn(redis: Redis): Promise<string[]> {
  const stats = await redis.info("commandstats");
  const lines = stats.split("\r\n").filter((line) => line.startsWith("cmdstat_"));
  return lines.map((line) => line.split(",")[0] ?? "").filter((line) => !/^cmdstat_(info|config|client)/.test(line));
}

/**
 * Statements that a broker sends whether anybody reads or not: sweeping, polling for devices, noting once that a token is read, deleting
 * what is old, the guard against restores, asking what has ended, looking for a rotation of keys.
 */
const sweeping = [
  /UPDATE connections c SET next_refresh_at = clock_timestamp\(\)/,
  /UPDATE connections c SET in_use = true/,
  /UPDATE tombstones/,
  /UPDATE rotations/,
  /DELETE FROM (connection_events|candidates|request_limits|consent_attempts)/,
  /(UPDATE|FROM) device_authorizations/,
  /FROM held_grants h/,
  /ORDER BY c\.id LIMIT/,
  /INTO replicas/,
  /FROM tombstones WHERE deleted_at >/,
  // The audit's counts
  /audit\./,
  /pg_advisory_xact_lock/,
  /^(BEGIN|COMMIT)/,
];
const isOnItsOwn = (statement: string) => sweeping.some((pattern) => pattern.test(statement));

describeWithServices(["postgres", "redis"], "a fresh read", () => {
  let postgres: Awaited<ReturnType<typeof startPrivatePostgres>>;
  let redisServer: Awaited<ReturnType<typeof startPrivateRedis>>;
  let stage: ConnectedStage;
  let key: string;

  const statements = async () => statementsIn(await postgres.log()).filter((text) => !isOnItsOwn(text));
  const read = async () => expect((await stage.first.api.token("acme", { key })).status).toBe(200);

  beforeAll(async () => {
    [postgres, redisServer] = await Promise.all([startPrivatePostgres({ logStatements: true }), startPrivateRedis()]);
    stage = await ConnectedStage.start({ databaseUrl: postgres.url, redisUrl: redisServer.url });
    await stage.connect("acme");
    key = await stage.first.api.createKey({ name: "reader", abilities: ["tokens"], connections: ["acme"] });
  });
  afterAll(async () => {
    for (const each of [stage, redisServer, postgres]) await each[Symbol.asyncDispose]();
  });

  it("runs no Redis command, no SQL when key and connection are cached, and else at most one read for each cache", async () => {
    const redis = new Redis(redisServer.url);
    /** How often two caches that were filled at `beganMs` may have asked again by now: not at all, except on a slow machine. */
    const mayAskSince = (beganMs: number) => 2 * Math.floor((performance.now() - beganMs) / trustMs);

    await sleep(trustMs + 200);
    const filledMs = performance.now();
    await read();
    const commandsBefore = await commandsIn(redis);
    const statementsBefore = (await statements()).length;
    for (let count = 0; count < 50; count++) await read();
    const whileCached = (await statements()).slice(statementsBefore);
    expect(whileCached.length, whileCached.join("\n")).toBeLessThanOrEqual(mayAskSince(filledMs));

    await sleep(trustMs + 200);
    const staleMs = performance.now();
    const statementsStale = (await statements()).length;
    await Promise.all(Array.from({ length: 50 }, read));
    const asked = (await statements()).slice(statementsStale);
    expect(new Set(asked.map((text) => text.trim().split(/\s+/)[0]))).toEqual(new Set(["SELECT"]));
    expect(asked.length, asked.join("\n")).toBeLessThanOrEqual(2 + mayAskSince(staleMs));
    expect(await commandsIn(redis)).toEqual(commandsBefore);
    redis.disconnect();
  });

  it("is answered while Postgres hangs, for as long as the token lives", async () => {
    await postgres.pause();
    await sleep(trustMs + 200);
    for (let count = 0; count < 20; count++) await read();
    expect((await stage.first.api.api("/readyz")).body).toMatchObject({ status: "degraded" });
    await postgres.resume();
  });
});
