import { randomUUID } from "node:crypto";
import { EventEmitter } from "node:events";
import { Cluster } from "ioredis";
import { replicaTimes } from "../time.ts";
import { gather, type RedisClient } from "./redis.ts";

/**
 * Leases that keep replicas from asking all at once, and messages that wake waiters. Neither is relied on for correctness: a lease
 * may be lost at any moment and a message may never arrive.
 */
export type Leases = {
  /**
   * Asks for the lock of a key, once.
   * - `owned`: nobody else has it for `leaseMs`; `release` gives it back, and only if it is still ours.
   * - `held`: somebody else has it.
   * - `unavailable`: the lock service does not answer; go on without it.
   */
  acquire(key: string, leaseMs: number): Promise<LeaseResult>;
  announce(news: RefreshNews): void;
  /** Calls back for every message, those of this process included. */
  listen(listener: (news: RefreshNews) => void): void;
  /** Whether locks and what else is written can be had right now. Never rejects. */
  available(): Promise<boolean>;
  close(): Promise<void>;
};

type LeaseResult = { state: "owned"; release: () => void } | { state: "held" } | { state: "unavailable" };

/** What became of a refresh. Holds no token. */
export type RefreshNews = {
  connection: string;
  generation: number;
  attempt: string;
  outcome: "started" | "stored" | "failed";
};

/** Redis delivers what is published to subscribers in all of its databases: another installation may have another one. */
export function newsChannel(redis: RedisClient): string {
  return `freshet:refresh:${"db" in redis.options ? redis.options.db : 0}`;
}

/** Deletes the lock only while it is still ours: a successor's lock is never freed. */
const compareAndDelete = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end return 0`;

/** Signs and checks what replicas write to Redis for each other. */
export type Proofs = {
  sign(purpose: string, text: string): string;
  verify(purpose: string, text: string, proof: string): "authentic" | "forged" | "unknown_key";
};

type Options = {
  redis: RedisClient;
  /** A connection of its own: while it listens it takes no other commands. */
  subscriber: RedisClient;
  /** Messages carry a MAC: a forged one could end a wait, or cause a refresh. */
  keyring: Proofs;
  /** Called for each failure: of the connections, and of writes that Redis refuses because it is full or read-only. */
  onError: (error: Error) => void;
  /** Called for each write that Redis accepts. */
  onTaken: () => void;
  /** Called for a message that this broker did not send. */
  onRejected: () => void;
};

/** Keys that are written to see whether Redis accepts writes. They expire. In a cluster they lie on different nodes. */
const probeKeys = (redis: RedisClient): string[] =>
  Array.from({ length: redis instanceof Cluster ? 16 : 1 }, (_none, index) => `freshet:ready:${index}`);

const purpose = "news";
/** No message of the broker is longer. */
const mostCharacters = 1000;
/** So that a message that is sent again counts once. */
const mostRemembered = 20_000;
/** Of its own messages, while Redis sends none of them back. */
const mostUnsent = 1000;

/** Locks in Redis 6.2+ or Valkey, shared by all replicas. Never throws: what fails is `unavailable`. */
export function createRedisLeases({ redis, subscriber, keyring, onError, onTaken, onRejected }: Options): Leases {
  const channel = newsChannel(redis);
  const listeners: ((news: RefreshNews) => void)[] = [];
  const received = new Set<string>();
  /** What this process has published and Redis has not sent back yet. */
  const own = new Set<string>();
  const tell = (news: RefreshNews, proof: string): void => {
    remember(received, proof, mostRemembered);
    for (const listener of listeners) listener(news);
  };
  redis.on("error", onError);
  subscriber.on("error", onError);
  subscriber.on("ready", () => void subscriber.subscribe(channel).catch(onError));
  subscriber.on("message", (from: string, text: string) => {
    if (from !== channel || own.delete(text)) return;
    const message = parseMessage(text);
    if (message === null) return onRejected();
    const { news, nonce, proof } = message;
    const judged = keyring.verify(purpose, signedText(news, nonce), proof);
    if (judged === "forged") return onRejected();
    if (judged === "unknown_key") return; // sealed with a key that this replica lacks: waiters ask Postgres anyway
    if (!received.has(proof)) tell(news, proof);
  });

  const deleteOwn = (key: string, owner: string): void => {
    gather(redis);
    void redis.eval(compareAndDelete, 1, key, owner).catch(onError);
  };

  return {
    async acquire(key, leaseMs) {
      const owner = randomUUID();
      try {
        gather(redis);
        const reply = await redis.set(key, owner, "PX", leaseMs, "NX");
        onTaken();
        if (reply !== "OK") return { state: "held" };
        return { state: "owned", release: () => deleteOwn(key, owner) };
      } catch (error) {
        onError(error as Error);
        // The SET may have been applied although its reply did not come.
        deleteOwn(key, owner);
        return { state: "unavailable" };
      }
    },
    announce(news) {
      const nonce = randomUUID();
      const proof = keyring.sign(purpose, signedText(news, nonce));
      const text = JSON.stringify({ ...news, nonce, proof });
      remember(own, text, mostUnsent);
      gather(redis);
      void redis.publish(channel, text).catch(onError);
      // This process needs no Redis to hear its own news.
      tell(news, proof);
    },
    listen: (listener) => void listeners.push(listener),
    async available() {
      try {
        await Promise.all(probeKeys(redis).map((key) => redis.set(key, "1", "PX", replicaTimes.redisProbeMs)));
        onTaken();
        return true;
      } catch (error) {
        onError(error as Error);
        return false;
      }
    },
    async close() {
      redis.disconnect();
      subscriber.disconnect();
    },
  };
}

/** Adds it to what came last, of which there are at most so many. */
function remember(last: Set<string>, text: string, most: number): void {
  last.add(text);
  if (last.size > most) last.delete(last.values().next().value as string);
}

function signedText({ connection, generation, attempt, outcome }: RefreshNews, nonce: string): string {
  return JSON.stringify([connection, generation, attempt, outcome, nonce]);
}

/** Null: it does not have the form of a message. Anybody who shares this Redis may publish anything. */
function parseMessage(text: string): { news: RefreshNews; nonce: string; proof: string } | null {
  if (text.length > mostCharacters) return null;
  try {
    const { connection, generation, attempt, outcome, nonce, proof } = JSON.parse(text) as RefreshNews & {
      nonce: string;
      proof: string;
    };
    const isNews =
      typeof connection === "string" &&
      typeof generation === "number" &&
      typeof attempt === "string" &&
      ["started", "stored", "failed"].includes(outcome) &&
      typeof nonce === "string" &&
      typeof proof === "string";
    return isNews ? { news: { connection, generation, attempt, outcome }, nonce, proof } : null;
  } catch {
    return null;
  }
}

/** Locks and messages for one process: embedded and single-replica deployments. */
export function createMemoryLeases({ monotonicMs }: { monotonicMs: () => number }): Leases {
  const heldUntil = new Map<string, { owner: symbol; untilMs: number }>();
  const news = new EventEmitter();
  return {
    async acquire(key, leaseMs) {
      const current = heldUntil.get(key);
      if (current !== undefined && current.untilMs > monotonicMs()) return { state: "held" };
      const owner = Symbol(key);
      heldUntil.set(key, { owner, untilMs: monotonicMs() + leaseMs });
      return {
        state: "owned",
        release() {
          if (heldUntil.get(key)?.owner === owner) heldUntil.delete(key);
        },
      };
    },
    announce: (message) => void news.emit("news", message),
    listen: (listener) => void news.on("news", (message: RefreshNews) => listener(message)),
    available: async () => true,
    async close() {
      heldUntil.clear();
      news.removeAllListeners();
    },
  };
}
