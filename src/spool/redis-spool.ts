import { Cluster, type Redis } from "ioredis";
import type { RedisClient } from "../redis.ts";
import type { SpoolEntry, SpoolPlace } from "./spool.ts";

const prefix = "spool:";
/** Asked for at once, so that none waits longer than a command may take. */
const readBatch = 50;
const keyPattern = /^spool:([0-9a-f-]{36}):(\d{1,10})$/;

/** Records in Redis 6.2+ or Valkey, where every replica finds them: a hash for each generation, with a field for each attempt. */
export function createRedisSpool(redis: RedisClient): SpoolPlace {
  const read = async (key: string): Promise<SpoolEntry[]> => {
    const [, connectionId = "", generation] = keyPattern.exec(key) ?? [];
    const fields = await redis.hgetall(key);
    return Object.entries(fields).map(([attemptId, record]) => ({
      connectionId,
      generation: Number(generation),
      attemptId,
      record: new Uint8Array(Buffer.from(record, "base64")),
    }));
  };

  return {
    name: "redis",
    async put({ connectionId, generation, attemptId, record }) {
      // Without an end: a record goes when its answer is stored, and not before.
      await redis.hset(keyOf(connectionId, generation), attemptId, Buffer.from(record).toString("base64"));
    },
    async remove({ connectionId, generation, attemptId }) {
      await redis.hdel(keyOf(connectionId, generation), attemptId);
    },
    async list() {
      const nodes = redis instanceof Cluster ? redis.nodes("master") : [redis];
      const keys = (await Promise.all(nodes.map(scan))).flat();
      const entries: SpoolEntry[] = [];
      for (let next = 0; next < keys.length; next += readBatch) {
        entries.push(...(await Promise.all(keys.slice(next, next + readBatch).map(read))).flat());
      }
      return entries;
    },
    find: async (connectionId, generation) => await read(keyOf(connectionId, generation)),
  };
}

function keyOf(connectionId: string, generation: number): string {
  return `${prefix}${connectionId}:${generation}`;
}

/** All keys of ours on one node; a key may come twice. */
async function scan(node: Redis): Promise<string[]> {
  const keys = new Set<string>();
  let cursor = "0";
  do {
    const [next, found] = await node.scan(cursor, "MATCH", `${prefix}*`, "COUNT", 1000);
    for (const key of found) if (keyPattern.test(key)) keys.add(key);
    cursor = next;
  } while (cursor !== "0");
  return [...keys];
}
