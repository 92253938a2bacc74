import { randomUUID } from "node:crypto";
import type { Proofs } from "./leases.ts";
import type { RedisClient } from "./redis.ts";

/** Something that replicas may know from before is not to be served from memory any more: a revoked key, a deleted or disabled connection. */
export type End = {
  kind: "key" | "connection";
  id: string;
  /** A time after it was committed, by Postgres's clock, in milliseconds since 1970. */
  atMs: number;
};

/** How replicas tell each other of ends, beside Postgres. Nothing here is relied on where Postgres answers. */
export type Ends = {
  /** Tells all replicas, and keeps it for those that ask later. `onHeard`: called with the id of each replica that confirms. Does not wait. */
  tell(end: End, onHeard: (replicaId: string) => void): void;
  /** Calls back for every end that another replica tells. */
  listen(listener: (end: End) => void): void;
  /** Those of these that have ended, as far as it was told in the last `keepSeconds`. Never rejects. */
  find(kind: End["kind"], ids: readonly string[]): Promise<End[]>;
};

/** For a process that shares nothing but Postgres with others, or is alone. */
export const noEnds: Ends = { tell() {}, listen() {}, find: async () => [] };

type Options = {
  redis: RedisClient;
  /** The connection that listens. */
  subscriber: RedisClient;
  keyring: Proofs;
  /** This replica's own id. */
  self: string;
  /** How long a replica that lacks Postgres may still know it. */
  keepSeconds: number;
  onError: (error: Error) => void;
  /** Told of what nobody of ours wrote. */
  onRejected: (id: string | null) => void;
};

type Told = { kind: "told"; end: End; nonce: string };
type Heard = { kind: "heard"; nonce: string; by: string };

const purpose = "ends";
/** Longer than any of ours. */
const mostCharacters = 600;
/** Messages that are sent again count once; and nobody waits longer for confirmations. */
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
 * Ends in Redis 6.2+ or Valkey: by message, each of which a replica confirms, and kept under a key of its own. Others may write there
 * too, so each carries a proof, and one that comes again changes nothing: who hears of an end asks Postgres, and without Postgres
 * only what was read before the end is dropped. Who can write there can delete: then it is as if Redis were away.
 */
export function createRedisEnds({ redis, subscriber, keyring, self, keepSeconds, onError, onRejected }: Options): Ends {
  const channel = endsChannel(redis);
  const listeners: ((end: End) => void)[] = [];
  const heardProofs = new Set<string>();
  const awaited = new Map<string, (replicaId: string) => void>();

  const publish = (message: Told | Heard): void => {
    const text = JSON.stringify({ ...message, proof: keyring.sign(purpose, signedText(message)) });
    void redis.publish(channel, text).catch(onError);
  };

  const receive = ({ message, proof }: { message: Told | Heard; proof: string }): void => {
    if (message.kind === "heard") {
      awaited.get(message.nonce)?.(message.by);
      return;
    }
    const isOwn = awaited.has(message.nonce);
    if (isOwn || heardProofs.has(proof)) return;
    heardProofs.add(proof);
    if (heardProofs.size > mostRemembered) heardProofs.delete(heardProofs.values().next().value as string);
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
    if (judged === "authentic") receive(parsed); // else a replica with another key: it sees that nobody confirms
  });

  const keep = async (end: End): Promise<void> => {
    const value = `${end.atMs}:${keyring.sign(purpose, keptText(end))}`;
    await redis.set(endKey(end), value, "EX", keepSeconds);
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
    const judged = proof === undefined ? "forged" : keyring.verify(purpose, keptText(end), proof);
    if (judged === "forged") onRejected(id);
    return judged === "authentic" ? [end] : [];
  };

  return {
    tell(end, onHeard) {
      const nonce = randomUUID();
      awaited.set(nonce, onHeard);
      if (awaited.size > mostAwaited) awaited.delete(awaited.keys().next().value as string);
      if (keepSeconds > 0) void keep(end).catch(onError);
      publish({ kind: "told", end, nonce });
    },
    listen: (listener) => void listeners.push(listener),
    find: async (kind, ids) => (await Promise.all(ids.map(async (id) => await read(kind, id)))).flat(),
  };
}

function signedText(message: Told | Heard): string {
  if (message.kind === "heard") return JSON.stringify(["heard", message.nonce, message.by]);
  const { kind, id, atMs } = message.end;
  return JSON.stringify(["told", kind, id, atMs, message.nonce]);
}

function keptText({ kind, id, atMs }: End): string {
  return JSON.stringify(["kept", kind, id, atMs]);
}

/** Null: it has not the form of a message; whoever shares this Redis may publish what they like. */
function parseMessage(text: string): { message: Told | Heard; proof: string } | null {
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
  return (kind === "key" || kind === "connection") && typeof id === "string" && typeof atMs === "number";
}
