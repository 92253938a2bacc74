import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createRedisEnds, type End, endKey, type Ends, endsChannel } from "../../src/coordination/end-messages.ts";
import { connectRedis, type RedisClient } from "../../src/coordination/redis.ts";
import { createKeyring } from "../../src/vault/keyring.ts";
import { until } from "../support/patience.ts";
import { describeWithServices, useRedis } from "../support/services/index.ts";
import { withRedis } from "../support/services/redis.ts";

const secret = { id: "k1", key: randomBytes(32) };
const strangers = createKeyring([{ id: "k1", key: randomBytes(32) }]);

type Replica = { id: string; ends: Ends; heard: End[]; rejected: (string | null)[]; close: () => void };

function end(changes: Partial<End> = {}): End {
  return { kind: "connection", id: randomUUID(), atMs: 1000, ...changes };
}

/** Until the subscriptions stand, messages are lost. */
async function connected(from: Replica): Promise<void> {
  const heard: string[] = [];
  await until("both are there", () => {
    from.ends.send(end(), (id) => void heard.push(id));
    return heard.length > 0;
  });
}

describeWithServices(["redis"], "what replicas tell each other of ends", () => {
  let url: string;
  const open: RedisClient[] = [];
  const start = (keyring = createKeyring([secret])): Replica => {
    const [redis, subscriber] = [connectRedis(url), connectRedis(url)];
    open.push(redis, subscriber);
    const [heard, rejected]: [End[], (string | null)[]] = [[], []];
    const id = randomUUID();
    const onRejected = (of: string | null) => void rejected.push(of);
    const ends = createRedisEnds({ redis, subscriber, keyring, self: id, ttlSeconds: 600, onError() {}, onRejected });
    ends.listen((one) => void heard.push(one));
    const close = () => {
      redis.disconnect();
      subscriber.disconnect();
    };
    return { id, ends, heard, rejected, close };
  };

  let one: Replica;
  let other: Replica;
  beforeAll(async () => {
    url = await useRedis();
    [one, other] = [start(), start()];
    await connected(one);
    await connected(other);
  });
  afterAll(() => {
    for (const each of open) each.disconnect();
  });

  it("reaches every other one, which confirms; and is kept for so long as it may be needed", async () => {
    const told = end();
    const confirmed: string[] = [];
    one.ends.send(told, (id) => void confirmed.push(id));
    await until("it is confirmed", () => confirmed.length > 0);
    expect([confirmed, other.heard.at(-1)]).toEqual([[other.id], told]);
    expect(one.heard).not.toContainEqual(told); // the replica that sends the message knows the end itself
    await until("it is kept", async () => (await other.ends.find("connection", [told.id])).length > 0);
    expect(await other.ends.find("connection", [randomUUID(), told.id])).toEqual([told]);
    expect(await other.ends.find("key", [told.id])).toEqual([]);
    const left = await withRedis(url, async (redis) => await redis.ttl(endKey(told)));
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(600);
  });

  it("is not heard by who has other keys, who confirms nothing", async () => {
    const foreign = start(createKeyring([{ id: "k2", key: randomBytes(32) }]));
    const confirmed: string[] = [];
    for (let round = 0; round < 2; round++) {
      confirmed.length = 0;
      one.ends.send(end(), (id) => void confirmed.push(id));
      await until("it is confirmed", () => confirmed.length > 0);
    }
    expect([confirmed, foreign.heard, foreign.rejected]).toEqual([[other.id], [], []]);
    foreign.close();
  });

  it("forged, changed, repeated, of another type or endless it is passed over, and confirms nothing", async () => {
    const seen: string[] = [];
    await withRedis(url, async (redis) => {
      const [spy, channel] = [redis.duplicate(), endsChannel(redis)];
      await spy.subscribe(channel);
      spy.on("message", (_channel, text: string) => void seen.push(text));
      const confirmed: string[] = [];
      const told = end();
      one.ends.send(told, (id) => void confirmed.push(id));
      await until("message and confirmation", () => seen.length >= 2 && confirmed.length > 0);
      spy.disconnect();
      const [message, answer] = ["told", "heard"].map((kind) => {
        const text = seen.find((each) => each.includes(`"kind":"${kind}"`)) ?? "{}";
        return JSON.parse(text) as Record<string, unknown>;
      });
      const before = [one, other].map(({ heard, rejected }) => ({ heard: heard.length, rejected: rejected.length }));
      const forged = [
        "",
        "null",
        "[]",
        "not JSON",
        "x".repeat(5000),
        ...[
          { end: end() },
          { nonce: "x" },
          { proof: strangers.sign("ends", "x") },
          { end: { ...told, kind: "key" } },
          { end: null },
        ].map((change) => JSON.stringify({ ...message, ...change })),
        ...[{ by: randomUUID() }, { nonce: "x" }, { by: 1 }].map((change) => JSON.stringify({ ...answer, ...change })),
      ];
      for (const text of [...forged, JSON.stringify(message), JSON.stringify(answer)]) {
        await redis.publish(channel, text);
      }
      const last = end();
      one.ends.send(last, () => {});
      await until("the last one", () => other.heard.some(({ id }) => id === last.id));
      expect(other.heard.slice(before[1]?.heard)).toEqual([last]);
      expect(other.rejected.length - (before[1]?.rejected ?? 0)).toBe(forged.length);
      expect([...new Set(confirmed)]).toEqual([other.id]);
    });
  });

  it("kept under another's name, with another proof, or as another type, it counts for nothing", async () => {
    const [told, another] = [end(), end()];
    one.ends.send(told, () => {});
    await withRedis(url, async (redis) => {
      const kept = await until("it is kept", () => redis.get(endKey(told)));
      const rejections = () => other.rejected.filter((id) => id === another.id).length;
      const plants = [
        kept,
        kept.replace(/^\d+/, "2000"),
        "",
        "garbage",
        "x".repeat(100_000),
        `1000:${strangers.sign("ends", JSON.stringify(["kept", "connection", another.id, 1000]))}`,
      ];
      for (const plant of plants) {
        await redis.set(endKey(another), plant);
        expect(await other.ends.find("connection", [another.id, told.id])).toEqual([told]);
      }
      await redis.del(endKey(another));
      await redis.rpush(endKey(another), "a", "b");
      expect(await other.ends.find("connection", [another.id, told.id])).toEqual([told]);
      expect(rejections()).toBe(plants.length + 1);
    });
  });
});
