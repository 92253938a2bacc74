import { Redis } from "ioredis";
import { expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import {
  describeWithServices,
  startPrivatePostgres,
  startPrivateRedis,
  statementsIn,
} from "../support/services/index.ts";

const trustMs = 4000;

/** How often each command has run, apart from those that only ask this. */
async function commandsIn(redis: Redis): Promise<string[]> {
  const stats = await redis.info("commandstats");
  const lines = stats.split("\r\n").filter((line) => line.startsWith("cmdstat_"));
  return lines.map((line) => line.split(",")[0] ?? "").filter((line) => !/^cmdstat_(info|config|client)/.test(line));
}

/** What goes on by itself, however much is read: sweeping, polling for devices, noting once what is read, tidying, the guard against restores. */
const sweeping = [
  /UPDATE connections c SET next_refresh_at = clock_timestamp\(\)/,
  /UPDATE connections c SET in_use = true/,
  /UPDATE tombstones/,
  /DELETE FROM (connection_events|candidates|request_limits)/,
  /(UPDATE|FROM) device_authorizations/,
  /FROM held_grants h/,
  /ORDER BY c\.id LIMIT/,
];
const isOnItsOwn = (statement: string) => sweeping.some((pattern) => pattern.test(statement));

describeWithServices(["postgres", "redis"], "a fresh read", () => {
  it("runs no Redis command, no SQL when key and connection are cached, and else at most one read for each cache", async () => {
    await using postgres = await startPrivatePostgres({ logStatements: true });
    await using redisServer = await startPrivateRedis();
    await using stage = await ConnectedStage.start({ databaseUrl: postgres.url, redisUrl: redisServer.url });
    await stage.connect("acme");
    const key = await stage.first.api.createKey({ name: "reader", abilities: ["tokens"], connections: ["acme"] });
    const redis = new Redis(redisServer.url);
    const statements = async () => statementsIn(await postgres.log()).filter((text) => !isOnItsOwn(text));
    const read = async () => expect((await stage.first.api.token("acme", { key })).status).toBe(200);

    await read();
    const commandsBefore = await commandsIn(redis);
    const statementsBefore = (await statements()).length;
    for (let count = 0; count < 50; count++) await read();
    expect((await statements()).slice(statementsBefore)).toEqual([]);

    await new Promise((resolve) => void setTimeout(resolve, trustMs + 200));
    const statementsStale = (await statements()).length;
    await Promise.all(Array.from({ length: 50 }, read));
    const asked = (await statements()).slice(statementsStale);
    expect(asked.map((text) => text.trim().split(/\s+/)[0])).toEqual(["SELECT", "SELECT"]);
    expect(await commandsIn(redis)).toEqual(commandsBefore);
    redis.disconnect();
  });
});
