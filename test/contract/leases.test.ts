import { randomBytes, randomUUID } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createMemoryLeases, createRedisLeases, type Leases, newsChannel } from "../../src/coordination/leases.ts";
import { connectRedis } from "../../src/coordination/redis.ts";
import { createKeyring } from "../../src/vault/keyring.ts";
import { freePort } from "../support/free-port.ts";
import { describeWithServices, startPrivateRedis, useRedis } from "../support/services/index.ts";
import type { PrivateServer } from "../support/services/private-server.ts";
import { withRedis } from "../support/services/redis.ts";
import { eventually, hearing, lease, newKey, newsOf } from "./leases/bench.ts";
import { HoldingProxy } from "./leases/holding-proxy.ts";

type Bench = {
  leases: Leases;
  /** Ends a lease as if its time were over. */
  expire: (key: string) => Promise<void>;
};

/** What both kinds of locks promise. */
function leasing(bench: () => Bench): void {
  it("one of twenty who ask at once owns a lock, and the others are told that it is held", async () => {
    const key = newKey();
    const results = await Promise.all(Array.from({ length: 20 }, () => bench().leases.acquire(key, 30_000)));
    const states = results.map(({ state }) => state);
    expect([
      states.filter((state) => state === "owned").length,
      states.filter((state) => state === "held").length,
    ]).toEqual([1, 19]);
  });

  it("another key is another lock", async () => {
    const results = [await bench().leases.acquire(newKey(), 30_000), await bench().leases.acquire(newKey(), 30_000)];
    expect(results.map(({ state }) => state)).toEqual(["owned", "owned"]);
  });

  it("a released lock is free at once", async () => {
    const key = newKey();
    lease(await bench().leases.acquire(key, 30_000)).release();
    await eventually(async () => (await bench().leases.acquire(key, 30_000)).state === "owned");
  });

  it("a lock that ran out is free, and is not freed by its first owner once a second one has it", async () => {
    const key = newKey();
    const first = lease(await bench().leases.acquire(key, 30_000));
    await bench().expire(key);
    const second = lease(await bench().leases.acquire(key, 30_000));
    first.release();
    first.release();
    expect((await bench().leases.acquire(key, 30_000)).state).toBe("held");
    second.release();
    await eventually(async () => (await bench().leases.acquire(key, 30_000)).state === "owned");
  });

  it("news reach every listener of this process in order", async () => {
    const [one, other] = [hearing(bench().leases), hearing(bench().leases)];
    const news = [newsOf({ outcome: "started" }), newsOf({ outcome: "failed" }), newsOf()];
    await eventually(async () => {
      // Until the subscription stands, messages get lost: step 10 allows that.
      bench().leases.announce(newsOf({ connection: "probe" }));
      return one.heard.length > 0;
    });
    for (const each of news) bench().leases.announce(each);
    const told = ({ heard }: typeof one) => heard.filter(({ connection }) => connection !== "probe");
    await eventually(() => told(one).length >= 3 && told(other).length >= 3);
    expect([told(one), told(other)]).toEqual([news, news]);
  });
}

describe("leases in the process", () => {
  let nowMs = 0;
  const leases = createMemoryLeases({ monotonicMs: () => nowMs });
  leasing(() => ({ leases, expire: async () => void (nowMs += 30_000) }));

  it("a lock is held until its time is over, and no longer", async () => {
    const key = newKey();
    await leases.acquire(key, 30_000);
    nowMs += 29_999;
    expect((await leases.acquire(key, 30_000)).state).toBe("held");
    nowMs += 1;
    expect((await leases.acquire(key, 30_000)).state).toBe("owned");
  });

  it("they are always there, and nothing is left of them when they close", async () => {
    const closing = createMemoryLeases({ monotonicMs: () => 0 });
    const { heard } = hearing(closing);
    expect(await closing.available()).toBe(true);
    await closing.acquire("key", 30_000);
    await closing.close();
    closing.announce(newsOf());
    expect(heard).toEqual([]);
    expect((await closing.acquire("key", 30_000)).state).toBe("owned");
  });
});

const keyring = createKeyring([{ id: "k1", key: randomBytes(32) }]);
let rejected = 0;
const onRejected = () => void rejected++;
let taken = 0;
const onTaken = () => void taken++;

function leasesAt(url: string, onError: (error: Error) => void): Leases {
  const told = { onError, onTaken, onRejected };
  return createRedisLeases({ redis: connectRedis(url), subscriber: connectRedis(url), keyring, ...told });
}

/** Leases on a Redis that answer. */
async function connected(url: string) {
  const errors: Error[] = [];
  const leases = leasesAt(url, (error) => void errors.push(error));
  await eventually(async () => await leases.available());
  return { leases, errors };
}

describeWithServices(["redis"], "leases in Redis", () => {
  let url: string;
  let leases: Leases;
  beforeAll(async () => {
    url = await useRedis();
    ({ leases } = await connected(url));
  });
  afterAll(async () => await leases.close());
  leasing(() => ({ leases, expire: async (key) => void (await withRedis(url, (redis) => redis.pexpire(key, 0))) }));

  it("a lock has its time in Redis and a random owner, and nothing else", async () => {
    const [one, other] = [newKey(), newKey()];
    await leases.acquire(one, 30_000);
    await leases.acquire(other, 30_000);
    await withRedis(url, async (redis) => {
      const left = await redis.pttl(one);
      expect(left).toBeGreaterThan(0);
      expect(left).toBeLessThanOrEqual(30_000);
      const owners = [await redis.get(one), await redis.get(other)];
      expect(owners).toEqual([expect.stringMatching(/^[0-9a-f-]{36}$/), expect.stringMatching(/^[0-9a-f-]{36}$/)]);
      expect(owners[0]).not.toBe(owners[1]);
    });
  });

  it("a lock and news are shared with other replicas", async () => {
    const replica = await connected(url);
    const key = newKey();
    lease(await leases.acquire(key, 30_000));
    expect((await replica.leases.acquire(key, 30_000)).state).toBe("held");
    const { heard } = hearing(replica.leases);
    const news = newsOf();
    await eventually(() => {
      leases.announce(news);
      return heard.length > 0;
    });
    expect(heard[0]).toEqual(news);
    await replica.leases.close();
  });

  it("news of an installation with another database of the same Redis are not heard", async () => {
    const [other, replica] = [await connected(await useRedis()), await connected(url)];
    const [elsewhere, here] = [hearing(other.leases), hearing(replica.leases)];
    const news = newsOf();
    await eventually(() => {
      other.leases.announce(newsOf());
      leases.announce(news);
      return elsewhere.heard.length > 0 && here.heard.length > 0;
    });
    expect(here.heard).toEqual(here.heard.map(() => news));
    expect(elsewhere.heard).not.toContainEqual(news);
    await Promise.all([other.leases.close(), replica.leases.close()]);
  });

  it("what somebody else publishes there is passed over: made up, changed, sent again, in another form, endless", async () => {
    const replica = await connected(url);
    const { heard } = hearing(replica.leases);
    const sent: string[] = [];
    const spy = connectRedis(url);
    spy.on("message", (_channel, text: string) => void sent.push(text));
    await eventually(() => spy.status === "ready");
    await spy.subscribe(newsChannel(spy));
    const news = newsOf();
    await eventually(() => {
      if (sent.length === 0) leases.announce(news);
      return heard.length > 0 && sent.length > 0;
    });
    spy.disconnect();
    const [authentic = ""] = sent;
    const before = [heard.length, rejected];
    const message = JSON.parse(authentic) as Record<string, unknown>;
    const another = createKeyring([{ id: "k1", key: randomBytes(32) }]);
    const forged = [
      "not JSON",
      "",
      "null",
      "[]",
      '"text"',
      '{"connection":1}',
      '{"generation":"x"}',
      JSON.stringify(news),
      ...[{ outcome: "failed" }, { generation: 4 }, { connection: randomUUID() }, { nonce: "x" }, { proof: "k1." }].map(
        (change) => JSON.stringify({ ...message, ...change }),
      ),
      JSON.stringify({ ...message, proof: another.sign("news", "x") }),
      JSON.stringify({ ...message, padding: "x".repeat(100_000) }),
    ];
    const last = newsOf();
    await withRedis(url, async (redis) => {
      for (const text of [authentic, ...forged]) await redis.publish(newsChannel(redis), text);
    });
    leases.announce(last);
    await eventually(() => heard.some(({ attempt }) => attempt === last.attempt));
    expect(heard.slice(before[0])).toEqual([last]);
    // Both replicas of this process heard them.
    expect(rejected - (before[1] ?? 0)).toBe(2 * forged.length);
    await replica.leases.close();
  });
});

async function acquired(leases: Leases): Promise<string> {
  return (await leases.acquire(newKey(), 30_000)).state;
}

/** How an acquisition ends if it waits neither for a message nor for a time; "waits" if it does. */
async function acquiredAtOnce(leases: Leases): Promise<string> {
  return await Promise.race([acquired(leases), setImmediate("waits")]);
}

describeWithServices(["redis"], "a Redis in trouble", () => {
  let server: PrivateServer;
  beforeAll(async () => {
    server = await startPrivateRedis();
  });
  afterAll(async () => await server[Symbol.asyncDispose]());

  it("that is frozen is unavailable after the command timeout, and never throws; thawed it serves again", async () => {
    const { leases, errors } = await connected(server.url);
    await server.pause();
    // It ends while the server is still frozen: only the command timeout can have ended it.
    expect(await acquired(leases)).toBe("unavailable");
    leases.announce(newsOf());
    await server.resume();
    await eventually(async () => (await acquired(leases)) === "owned");
    expect(errors.length).toBeGreaterThan(0);
    await leases.close();
  });

  it("that is gone is unavailable at once, and is found again when it is back", async () => {
    const { leases } = await connected(server.url);
    await server.stop();
    await eventually(async () => !(await leases.available()));
    expect(await acquiredAtOnce(leases)).toBe("unavailable");
    leases.announce(newsOf());
    await server.restart();
    await eventually(async () => await leases.available());
    expect(await acquired(leases)).toBe("owned");
    const { heard } = hearing(leases);
    await eventually(() => {
      leases.announce(newsOf());
      return heard.length > 0;
    });
    await leases.close();
  });

  const settings = { full: ["maxmemory", "1"], "short of replicas": ["min-replicas-to-write", "1"] } as const;
  it.each(Object.entries(settings))(
    "that is %s is not available, says why, and is as before when it is mended",
    async (_is, [name, value]) => {
      const { leases, errors } = await connected(server.url);
      await withRedis(server.url, async (redis) => void (await redis.config("SET", name, value)));
      const takenBefore = taken;
      expect([await leases.available(), await acquired(leases)]).toEqual([false, "unavailable"]);
      expect(errors.at(-1)?.message).toMatch(/^(OOM|NOREPLICAS) /);
      expect(taken).toBe(takenBefore);
      await withRedis(server.url, async (redis) => void (await redis.config("SET", name, "0")));
      expect([await leases.available(), await acquired(leases)]).toEqual([true, "owned"]);
      expect(taken).toBe(takenBefore + 2);
      await leases.close();
    },
  );

  it("that is read-only, as a replica is, is not available", async () => {
    const { leases, errors } = await connected(server.url);
    await withRedis(
      server.url,
      async (redis) => void (await redis.call("REPLICAOF", "127.0.0.1", String(await freePort()))),
    );
    expect(await leases.available()).toBe(false);
    expect(errors.at(-1)?.message).toMatch(/^READONLY /);
    await withRedis(server.url, async (redis) => void (await redis.call("REPLICAOF", "NO", "ONE")));
    expect(await leases.available()).toBe(true);
    await leases.close();
  });

  it("that was never there is unavailable, and the broker starts without it", async () => {
    const leases = leasesAt(`redis://127.0.0.1:${await freePort()}`, () => {});
    expect([await acquired(leases), await leases.available()]).toEqual(["unavailable", false]);
    await leases.close();
  });

  it("a release while it is gone throws nothing: the lock ends with its time", async () => {
    const { leases } = await connected(server.url);
    const { release } = lease(await leases.acquire(newKey(), 30_000));
    await server.stop();
    await eventually(async () => !(await leases.available()));
    release();
    await server.restart();
    await leases.close();
  });

  it("a lock that was taken, but whose reply came too late, is given back by itself", async () => {
    const proxy = await HoldingProxy.start(server.url);
    const { leases } = await connected(proxy.url);
    const key = newKey();
    proxy.hold();
    expect((await leases.acquire(key, 30_000)).state).toBe("unavailable");
    proxy.deliver();
    await withRedis(server.url, async (redis) => {
      await eventually(async () => (await redis.exists(key)) === 0);
    });
    expect(proxy.commands.some((command) => command.includes(key) && /set/i.test(command))).toBe(true);
    await leases.close();
    await proxy.stop();
  });

  it("the same does not free the lock of somebody who got it first", async () => {
    const proxy = await HoldingProxy.start(server.url);
    const [{ leases }, other] = [await connected(proxy.url), await connected(server.url)];
    const key = newKey();
    lease(await other.leases.acquire(key, 30_000));
    proxy.hold();
    expect((await leases.acquire(key, 30_000)).state).toBe("unavailable");
    proxy.deliver();
    await eventually(() => proxy.commands.some((command) => /eval/i.test(command) && command.includes(key)));
    expect((await leases.acquire(newKey(), 30_000)).state).toBe("owned");
    expect((await other.leases.acquire(key, 30_000)).state).toBe("held");
    await Promise.all([leases.close(), other.leases.close()]);
    await proxy.stop();
  });
});
