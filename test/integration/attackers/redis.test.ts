import { randomBytes, randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { newsChannel } from "../../../src/coordination/leases.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { type FaultProxy, startFaultProxy } from "../../support/faults/tcp-proxy.ts";
import { until } from "../../support/patience.ts";
import { query } from "../../support/query.ts";
import { describeWithServices, startPrivateRedis, useDatabase } from "../../support/services/index.ts";
import type { PrivateServer } from "../../support/services/private-server.ts";
import { withRedis } from "../../support/services/redis.ts";
import { ForeignHost } from "./support/foreign-host.ts";

const names = ["one", "two", "three"];
const marks = "freshet:generations";

let server: PrivateServer;
let databaseUrl: string;
let toPostgres: FaultProxy;
let foreign: ForeignHost;
let stage: ConnectedStage;
/** What was read from Redis meanwhile: no token may be in it. */
const seen: string[] = [];

type Row = { id: string; name: string; generation: number; version: number; attempt: string | null };

const redis = async <Result>(work: (client: Redis) => Promise<Result>) => await withRedis(server.url, work);
const sql = async (text: string, values: unknown[] = []) => await query<Row>(databaseUrl, text, values);
const rows = async () =>
  await sql("SELECT id, name, generation, version, attempt_id::text AS attempt FROM connections ORDER BY name");
const rowOf = async (name: string) => (await rows()).find((row) => row.name === name) as Row;
const sent = () => stage.provider.ledger.requestsTo("token").length;

/** Each of these connections needs a new token, and gets one from either replica, by one request. */
async function refreshAll(those: readonly string[] = names): Promise<void> {
  for (const name of those) await stage.pass(4000, name);
  const before = sent();
  for (const [index, name] of those.entries()) {
    const broker = stage.brokers[index % stage.brokers.length];
    expect({ name, ...(await broker?.api.token(name, { wait: 30 })) }).toMatchObject({ name, status: 200 });
  }
  expect(sent() - before).toBe(those.length);
}

/** For the brokers, Redis was away and is back: they drain spools and compare marks. */
async function comeBack(): Promise<void> {
  const compared = async () => await redis(async (client) => await client.hlen(marks));
  await redis(async (client) => await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"));
  await until("the marks are compared", async () => (await compared()) > 0);
}

async function rejected(kind: string): Promise<number> {
  const counts = stage.brokers.map(async ({ api }) => {
    const { body } = await api.api<string>("/metrics");
    return Number(new RegExp(`freshet_redis_rejected_total\\{kind="${kind}"\\} (\\d+)`).exec(body)?.[1] ?? 0);
  });
  return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0);
}

/** An attempt whose owner is long gone. */
async function abandon(name: string): Promise<Row> {
  await stage.pass(4000, name);
  await sql(
    `UPDATE connections SET attempt_id = $1::uuid, attempt_started_at = now() - interval '1 hour',
      lease_until = now() - interval '1 hour' WHERE name = $2`,
    [randomUUID(), name],
  );
  return await rowOf(name);
}

/** Of the keys that may be back with a database from before, those that work, oldest first, and nothing secret. */
async function expectKeysListed(): Promise<void> {
  const { api } = stage.first;
  const made = async (name: string) => {
    const key = await api.createKey({ name, abilities: ["tokens"], connections: ["*"] });
    return { key, id: key.split("_")[1] ?? "" };
  };
  const [older, ended, newer] = [await made("older"), await made("ended"), await made("newer")];
  await api.api(`/keys/${ended.id}`, { method: "DELETE" });
  const { body } = await api.api<{ notice: string; keys: Record<string, unknown>[] }>("/recovery");
  expect(body.notice).toContain("keys that were revoked since work again");
  expect(body.keys.map(({ id }) => id)).toEqual([older.id, newer.id]);
  for (const key of body.keys) {
    expect(Object.keys(key).sort()).toEqual(["abilities", "created_at", "expires_at", "id", "name"]);
  }
}

const untilServed = async (name: string) =>
  await until(`a token of ${name}`, async () => (await stage.first.api.token(name, { wait: 5 })).status === 200);

/** What every attack ends with. */
async function expectNoHarm(): Promise<void> {
  const { ledger } = stage.provider;
  const stolen = ledger.tokens.filter(({ value }) => seen.some((text) => text.includes(value)));
  expect([stolen, ledger.reuses, foreign.requests, foreign.connections]).toEqual([[], [], [], 0]);
  await refreshAll();
  expect((await stage.first.api.api("/recovery")).body).toMatchObject({ items: [] });
}

describeWithServices(["postgres", "redis"], "an attacker with write access to Redis", () => {
  beforeAll(async () => {
    server = await startPrivateRedis();
    foreign = await ForeignHost.start();
    databaseUrl = await useDatabase();
    toPostgres = await startFaultProxy(databaseUrl);
    stage = await ConnectedStage.start({
      replicas: 2,
      databaseUrl,
      redisUrl: server.url,
      each: (replica) => (replica === 0 ? { databaseUrl: toPostgres.url } : {}),
    });
    for (const name of names) await stage.connect(name);
  });
  beforeEach(() => void (seen.length = 0));
  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
    await toPostgres[Symbol.asyncDispose]();
    await foreign[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  it("marks that are too high hold no connection, and are written over", async () => {
    const all = await rows();
    await stage.create("gone");
    const gone = await rowOf("gone");
    await stage.first.api.deleteConnection("gone");
    const closed = await until("the mark of a deleted connection", () =>
      redis((client) => client.hget(marks, gone.id)),
    );
    const before = await rejected("mark");
    const forged = ["9999999999:1", "2000000000:1", "2147483647:2147483647:k1.", closed, randomBytes(100)];
    for (const value of forged) {
      await redis(async (client) => {
        for (const { id } of all) await client.hset(marks, id, value);
      });
      await refreshAll();
    }
    await redis(async (client) => {
      for (const { id } of all) await client.hset(marks, id, "9999999999:1");
    });
    await comeBack();
    await until("the marks are ours again", async () => {
      const values = await redis(async (client) => await client.hmget(marks, ...all.map(({ id }) => id)));
      return values.every((value) => /^\d+:\d+:k1\.[\w-]{43}$/.test(value ?? ""));
    });
    expect(await rejected("mark")).toBeGreaterThan(before);
    const told = stage.brokers.map(({ stdout }) => stdout.split("\n").filter((line) => line.includes('"kind":"mark"')));
    expect(Math.max(...told.map((lines) => lines.length))).toBeLessThanOrEqual(2); // one a minute
    await expectNoHarm();
  });

  it("beside forged marks a row that has really gone back in time is found, and it alone", async () => {
    await stage.connect("restored");
    await refreshAll(["restored"]);
    const { id, generation } = await rowOf("restored");
    await until("its mark", async () => (await redis((c) => c.hget(marks, id)))?.startsWith(`${generation}:`));
    await sql("UPDATE connections SET generation = generation - 1 WHERE name = 'restored'");
    await redis(async (client) => {
      for (const row of await rows()) if (row.name !== "restored") await client.hset(marks, row.id, "9999999999:1");
    });
    await comeBack();
    const held = async () => (await stage.first.api.api<{ items: { name: string }[] }>("/recovery")).body.items;
    await until("it is held", async () => (await held()).length > 0);
    expect((await held()).map(({ name }) => name)).toEqual(["restored"]);
    await expectKeysListed();
    expect(stage.brokers.some(({ stdout }) => stdout.includes("keys that were revoked since may work again"))).toBe(
      true,
    );
    await stage.first.api.deleteConnection("restored");
    expect((await stage.first.api.api("/recovery")).body).toEqual({ items: [], notice: null, keys: [] });
    await expectNoHarm();
  });

  it("locks that nobody gives back cost time, and nothing else", async () => {
    for (const put of [
      async (client: Redis, key: string) => void (await client.set(key, "mine")),
      async (client: Redis, key: string) => void (await client.rpush(key, "a", "b")),
    ]) {
      await redis(async (client) => {
        for (const { id, generation } of await rows()) await put(client, `refresh:${id}:${generation}`);
      });
      await refreshAll();
    }
    await expectNoHarm();
  });

  it("made-up and repeated messages end no wait, cause no request and empty no cache", async () => {
    await redis(async (client) => {
      const spy = client.duplicate();
      await spy.subscribe(newsChannel(spy));
      spy.on("message", (_channel, text: string) => void seen.push(text));
      await refreshAll();
      await until("the messages of three refreshes", () => seen.length >= 6);
      spy.disconnect();
    });
    const authentic = [...seen];
    const before = sent();
    const { id, generation } = await rowOf("one");
    const news = (outcome: string) => ({ connection: id, generation, attempt: randomUUID(), outcome });
    const forged = ["failed", "stored", "started"].map((outcome) =>
      JSON.stringify({ ...news(outcome), nonce: randomUUID(), proof: `k1.${randomBytes(32).toString("base64url")}` }),
    );
    const flood = async () => {
      await redis(async (client) => {
        const pipeline = client.pipeline();
        for (let count = 0; count < 1000; count++) {
          for (const text of ["garbage", "x".repeat(5000), authentic[count % authentic.length] ?? "", ...forged]) {
            pipeline.publish(newsChannel(client), text);
          }
        }
        await pipeline.exec();
      });
    };
    await flood();
    // If a broker believed a forged "started", the next read would begin a refresh.
    for (const { api } of stage.brokers) expect((await api.token("one")).status).toBe(200);
    expect(sent()).toBe(before);
    await stage.pass(4000, "one");
    const { untilSent, release } = stage.holdTokens();
    const reading = stage.brokers.map(async ({ api }) => await api.token("one", { wait: 30 }));
    await untilSent();
    await flood();
    release();
    expect((await Promise.all(reading)).map(({ status }) => status)).toEqual([200, 200]);
    expect(sent()).toBe(before + 1);
    expect(await rejected("news")).toBeGreaterThan(1000);
    await expectNoHarm();
  });

  it("garbage, floods, other types and another connection's answers in a spool keep nobody from a takeover", async () => {
    // A real answer for another connection, which an attacker finds in the spool while Postgres is away.
    await stage.pass(4000, "two");
    const two = await rowOf("two");
    const { untilSent, release } = stage.holdTokens();
    const reading = stage.first.api.token("two", { wait: 30 });
    await untilSent();
    toPostgres.faults.newConnections = "reset";
    toPostgres.reset();
    release();
    const key = `spool:${two.id}:${two.generation}`;
    const found = await until("the spooled answer", async () => {
      const fields = await redis((client) => client.hgetall(key));
      return Object.keys(fields).length > 0 && fields;
    });
    seen.push(JSON.stringify(found));
    const [[attempt, authentic] = ["", ""]] = Object.entries(found);
    toPostgres.heal();
    expect((await reading).status).toBe(200);
    await until("it is stored", async () => (await rowOf("two")).generation === two.generation + 1);
    await until("it is removed", async () => (await redis((client) => client.exists(key))) === 0);

    const plants = [
      { ["x"]: "garbage" },
      { [randomUUID()]: authentic, [attempt]: authentic },
      { [randomUUID()]: randomBytes(300).toString("base64"), ["y".repeat(1000)]: "" },
      { [randomUUID()]: "A".repeat(2_000_000) },
      Object.fromEntries(Array.from({ length: 5000 }, () => [randomUUID(), randomBytes(60).toString("base64")])),
    ];
    for (const fields of plants) {
      const { id, generation } = await abandon("one");
      await redis((client) => client.hset(`spool:${id}:${generation}`, fields));
      const before = sent();
      await untilServed("one");
      expect(sent()).toBe(before + 1);
    }
    const { id, generation } = await abandon("one");
    await redis((client) => client.set(`spool:${id}:${generation}`, "a text"));
    await untilServed("one");
    // Somebody puts it back in the place that it came from. It has been stored before, so it changes nothing.
    await redis((client) => client.hset(key, attempt, authentic));
    const generationOf = async () => (await rowOf("two")).generation;
    const before = await generationOf();
    await comeBack();
    await until("the replayed answer is taken away", async () => (await redis((client) => client.exists(key))) === 0);
    expect(await generationOf()).toBe(before);
    expect(await rejected("spool")).toBeGreaterThan(0);
    await expectNoHarm();
  });

  it("a Redis of the wrong types, without memory, without Lua, without writes costs nobody a token", async () => {
    await redis(async (client) => {
      await client.del(marks);
      await client.rpush(marks, "a");
    });
    await refreshAll();
    const troubles: [string[], string[]][] = [
      [
        ["CONFIG", "SET", "maxmemory", "1"],
        ["CONFIG", "SET", "maxmemory", "0"],
      ],
      [
        ["ACL", "SETUSER", "default", "-eval", "-publish"],
        ["ACL", "SETUSER", "default", "+@all"],
      ],
      [
        ["ACL", "SETUSER", "default", "-@write"],
        ["ACL", "SETUSER", "default", "+@all"],
      ],
      [
        ["ACL", "SETUSER", "default", "-hget", "-hmget", "-hscan"],
        ["ACL", "SETUSER", "default", "+@all"],
      ],
    ];
    for (const [begin, end] of troubles) {
      await redis(async (client) => await client.call(...(begin as [string, ...string[]])));
      await refreshAll();
      await redis(async (client) => await client.call(...(end as [string, ...string[]])));
    }
    await expectNoHarm();
  });
});
