import { randomUUID } from "node:crypto";
import { LRUCache } from "lru-cache";
import type { Proofs } from "./leases.ts";
import type { RedisClient } from "./redis.ts";

/** A revoked key, a deleted workload, or a deleted or disabled connection: replicas that have it in memory must not serve it any more. */
export type End = {
  kind: "key" | "workload" | "connection";
  id: string;
  /** A time after it was committed, by Postgres's clock, in milliseconds since 1970. */
  atMs: number;
};

/** How replicas send each other ends, beside Postgres. A replica that reaches Postgres does not rely on it. */
export type Ends = {
  /** Sends an end to all replicas, and stores it for those that ask later. `onConfirmed`: called with the id of each replica that confirms. Does not wait. */
  send(end: End, onConfirmed: (replicaId: string) => void): void;
  /** Calls back for every end that another replica sends. */
  listen(listener: (end: End) => void): void;
  /** Which of these ids have ended within the last `ttlSeconds`. Never rejects. */
  find(kind: End["kind"], ids: readonly string[]): Promise<End[]>;
};

/** For a process that shares nothing but Postgres with others, or is alone. */
export const noEnds: Ends = { send() {}, listen() {}, find: async () => [] };

type Options = {
  redis: RedisClient;
  /** The connection that listens. */
  subscriber: RedisClient;
  keyring: Proofs;
  /** This replica's own id. */
  self: string;
  /** How long a replica without Postgres may still serve from memory. */
  ttlSeconds: number;
  onError: (error: Error) => void;
  /** Called for a value that this broker did not write. */
  onRejected: (id: string | null) => void;
};

type EndMessage = { kind: "told"; end: End; nonce: string };
type Confirmation = { kind: "heard"; nonce: string; by: string };

const purpose = "ends";
/** No message of the broker is longer. */
const mostCharacters = 600;
/** How many messages are remembered, so that one that is sent again counts once, and how many may wait for confirmations. */
const mostRemembered = 20_000;
const mostAwaited = 1000;

/** Redis delivers what is published to subscribers in all of its databases. */
export function endsChannel(redis: RedisClient): string {
  return `freshet:ends:${"db" in redis.options ? redis.options.db : 0}`;
}

export function endKey({ kind, id }: Pick<End, "kind" | "id">): string {
  return `freshet:end:${kind}:${id}`;
}

/**
 * Ends in Redis 6.2+ or Valkey. Each is a message, which replicas confirm, and a key of its own. Others may be able to write there, so each
 * carries a MAC, and a repeated one changes nothing: a replica that receives an end asks Postgres, and without Postgres drops only what
 * it read before the end. If somebody deletes the keys, it is as if Redis were away.
 */
export function createRedisEnds({ redis, subscriber, keyring, self, ttlSeconds, onError, onRejected }: Options): Ends {
  const channel = endsChannel(redis);
  const listeners: ((end: End) => void)[] = [];
  const receivedProofs = new Set<string>();
  const awaited = new LRUCache<string, (replicaId: string) => void>({ maxSize: mostAwaited, sizeCalculation: () => 1 });

  const publish = (message: EndMessage | Confirmation): void => {
    const text = JSON.stringify({ ...message, proof: keyring.sign(purpose, signedText(message)) });
    void redis.publish(channel, text).catch(onError);
  };

  const receive = ({ message, proof }: { message: EndMessage | Confirmation; proof: string }): void => {
    if (message.kind === "heard") {
      awaited.get(message.nonce)?.(message.by);
      return;
    }
    const isOwn = awaited.has(message.nonce);
    if (isOwn || receivedProofs.has(proof)) return;
    receivedProofs.add(proof);
    if (receivedProofs.size > mostRemembered) receivedProofs.delete(receivedProofs.values().next().value as string);
    for (const listener of listeners) listener(message.end);
    publish({ kind: "heard", nonce: message.nonce, by: self });
  };

  subscriber.on("ready", () => void subscriber.subscribe(channel).catch(onError));
  subscriber.on("message", (from: string, text: string) => {
    if (from !== channel) return;
    const parsed = parseMessage(text);
    if (parsed === null) return onRejected(null);
    const judged = keyring.verify(purpose, signedText(parsed.message), parsed.proof);
    if (judged === "forged") return onRejected(null);
    if (judged === "authentic") receive(parsed); // else another replica sealed it with a key that this one lacks: the sender sees that this replica does not confirm
  });

  const store = async (end: End): Promise<void> => {
    const value = `${end.atMs}:${keyring.sign(purpose, storedText(end))}`;
    await redis.set(endKey(end), value, "EX", ttlSeconds);
  };

  const read = async (kind: End["kind"], id: string): Promise<End[]> => {
    const value = await redis.get(endKey({ kind, id })).catch((error: Error) => {
      if (error.message.startsWith("WRONGTYPE")) onRejected(id);
      else onError(error);
      return null;
    });
    if (value === null) return [];
    const [, atMs, proof] = /^(\d{1,16}):([\w.-]{1,100})$/.exec(value.slice(0, 200)) ?? [];
    const end = { kind, id, atMs: Number(atMs) };
    const judged = proof === undefined ? "forged" : keyring.verify(purpose, storedText(end), proof);
    if (judged === "forged") onRejected(id);
    return judged === "authentic" ? [end] : [];
  };

  return {
    send(end, onConfirmed) {
      const nonce = randomUUID();
      awaited.set(nonce, onConfirmed);
      if (ttlSeconds > 0) void store(end).catch(onError);
      publish({ kind: "told", end, nonce });
    },
    listen: (listener) => void listeners.push(listener),
    find: async (kind, ids) => (await Promise.all(ids.map(async (id) => await read(kind, id)))).flat(),
  };
}

function signedText(message: EndMessage | Confirmation): string {
  if (message.kind === "heard") return JSON.stringify(["heard", message.nonce, message.by]);
  const { kind, id, atMs } = message.end;
  return JSON.stringify(["told", kind, id, atMs, message.nonce]);
}

function storedText({ kind, id, atMs }: End): string {
  return JSON.stringify(["kept", kind, id, atMs]);
}

/** Null: it does not have the form of a message. Anybody who shares this Redis may publish anything. */
function parseMessage(text: string): { message: EndMessage | Confirmation; proof: string } | null {
  if (text.length > mostCharacters) return null;
  try {
    const { kind, nonce, by, end, proof } = JSON.parse(text) as Record<string, unknown>;
    if (typeof nonce !== "string" || typeof proof !== "string") return null;
    if (kind === "heard") return typeof by === "string" ? { message: { kind, nonce, by }, proof } : null;
    return kind === "told" && isEnd(end) ? { message: { kind, nonce, end }, proof } : null;
  } catch {
    return null;
  }
}

function isEnd(value: unknown): value is End {
  const { kind, id, atMs } = (value ?? {}) as Record<string, unknown>;
  return ["key", "workload", "connection"].includes(String(kind)) && typeof id === "string" && typeof atMs === "number";
}
