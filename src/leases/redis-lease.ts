import { randomUUID } from "node:crypto";
import type { Leases, RefreshNews } from "./lease.ts";
import type { RedisClient } from "../redis.ts";

const channel = "freshet:refresh";

/** Deletes the lock only while it is still ours: a successor's lock is never freed. */
const compareAndDelete = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end return 0`;

type Options = {
  redis: RedisClient;
  /** A connection of its own: while it listens it takes no other commands. */
  subscriber: RedisClient;
  onError: (error: Error) => void;
};

/** Locks in Redis 6.2+ or Valkey, shared by all replicas. Never throws: what fails is `unavailable`. */
export function createRedisLeases({ redis, subscriber, onError }: Options): Leases {
  const listeners: ((news: RefreshNews) => void)[] = [];
  redis.on("error", onError);
  subscriber.on("error", onError);
  subscriber.on("ready", () => void subscriber.subscribe(channel).catch(onError));
  subscriber.on("message", (_channel: string, text: string) => {
    const news = parseNews(text);
    if (news !== null) for (const listener of listeners) listener(news);
  });

  const deleteOwn = (key: string, owner: string) => void redis.eval(compareAndDelete, 1, key, owner).catch(onError);

  return {
    async acquire(key, leaseMs) {
      const owner = randomUUID();
      try {
        const reply = await redis.set(key, owner, "PX", leaseMs, "NX");
        if (reply === null) return { state: "held" };
        return { state: "owned", release: () => deleteOwn(key, owner) };
      } catch (error) {
        onError(error as Error);
        // The SET may have been applied although its reply did not come.
        deleteOwn(key, owner);
        return { state: "unavailable" };
      }
    },
    announce: (news) => void redis.publish(channel, JSON.stringify(news)).catch(onError),
    listen: (listener) => void listeners.push(listener),
    available: () => redis.status === "ready",
    async close() {
      redis.disconnect();
      subscriber.disconnect();
    },
  };
}

function parseNews(text: string): RefreshNews | null {
  try {
    const { connection, generation, attempt, outcome } = JSON.parse(text) as RefreshNews;
    const isNews = typeof connection === "string" && typeof generation === "number" && typeof attempt === "string";
    return isNews ? { connection, generation, attempt, outcome } : null;
  } catch {
    return null; // whoever shares this Redis may publish what they like
  }
}
