import { Cluster, type Redis } from "ioredis";
import type { RedisClient } from "../redis.ts";
import type { SpoolEntry, SpoolPlace } from "./spool.ts";

const prefix = "spool:";
/** Asked for at once, so that none waits longer than a command may take. */
const readBatch = 50;
const keyPattern = /^spool:([0-9a-f-]{36}):(\d{1,10})$/;
const recordPattern = /^[A-Za-z0-9+/]+={0,2}$/;
/** Of one generation: more is a flood that somebody else has written. */
const mostFields = 256;
const mostKeys = 10_000;
/** No record is so long, as base64. */
const mostCharacters = 1_000_000;

/**
 * Records in Redis 6.2+ or Valkey, where every replica finds them: a hash for each generation, with a field for each attempt.
 * Others may write there too: what cannot be a record is passed over, and a flood of fields or keys is read up to a bound. Who
 * can flood could as well delete.
 * @param onRejected told of the connection under whose name something else stands; null: of many
 */
export function createRedisSpool(redis: RedisClient, onRejected: (connectionId: string | null) => void): SpoolPlace {
  const entryOf = (key: string, [attemptId, text]: [string, string]): SpoolEntry[] => {
    const [, connectionId = "", generation] = keyPattern.exec(key) ?? [];
    if (text.length > mostCharacters || !recordPattern.test(text)) {
      onRejected(connectionId);
      return [];
    }
    const record = new Uint8Array(Buffer.from(text, "base64"));
    return [{ connectionId, generation: Number(generation), attemptId, record }];
  };

  /** The field of `attemptId`, however many there are beside it, and as many others as the bound lets in. */
  const read = async (key: string, attemptId: string | null): Promise<SpoolEntry[]> => {
    try {
      const [own, [, flat]] = await Promise.all([
        attemptId === null ? null : redis.hget(key, attemptId),
        redis.hscan(key, 0, "COUNT", mostFields),
      ]);
      const fields = new Map<string, string>();
      if (own !== null && attemptId !== null) fields.set(attemptId, own);
      for (let at = 0; at + 1 < flat.length && fields.size < mostFields; at += 2) {
        fields.set(flat[at] ?? "", flat[at + 1] ?? "");
      }
      return [...fields].flatMap((field) => entryOf(key, field));
    } catch (error) {
      if (!isWrongType(error)) throw error;
      onRejected(keyPattern.exec(key)?.[1] ?? null);
      return [];
    }
  };

  return {
    name: "redis",
    async put({ connectionId, generation, attemptId, record }) {
      const key = keyOf(connectionId, generation);
      const text = Buffer.from(record).toString("base64");
      // Without an end: a record goes when its answer is stored, and not before.
      await redis.hset(key, attemptId, text).catch(async (error: unknown) => {
        if (!isWrongType(error)) throw error;
        onRejected(connectionId);
        await redis.del(key); // whatever it is, it is no answer
        await redis.hset(key, attemptId, text);
      });
    },
    async remove({ connectionId, generation, attemptId }) {
      await redis.hdel(keyOf(connectionId, generation), attemptId);
    },
    async list() {
      const nodes = redis instanceof Cluster ? redis.nodes("master") : [redis];
      const found = (await Promise.all(nodes.map(scan))).flat();
      if (found.length > mostKeys) onRejected(null);
      const keys = found.slice(0, mostKeys);
      const entries: SpoolEntry[] = [];
      for (let next = 0; next < keys.length; next += readBatch) {
        const batch = keys.slice(next, next + readBatch);
        entries.push(...(await Promise.all(batch.map((key) => read(key, null)))).flat());
      }
      return entries;
    },
    find: async ({ connectionId, generation, attemptId }) => await read(keyOf(connectionId, generation), attemptId),
  };
}

function isWrongType(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith("WRONGTYPE");
}

function keyOf(connectionId: string, generation: number): string {
  return `${prefix}${connectionId}:${generation}`;
}

/** The keys of ours on one node, and not many more than the bound; a key may come twice. */
async function scan(node: Redis): Promise<string[]> {
  const keys = new Set<string>();
  let cursor = "0";
  do {
    const [next, found] = await node.scan(cursor, "MATCH", `${prefix}*`, "COUNT", 1000);
    for (const key of found) if (keyPattern.test(key)) keys.add(key);
    cursor = next;
  } while (cursor !== "0" && keys.size <= mostKeys);
  return [...keys];
}
