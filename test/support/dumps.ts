import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { Redis } from "ioredis";
import { Client } from "pg";
import { withRedis } from "./services/redis.ts";

/** Every row of every table of a database, as text; `bytea` is in hex. */
export async function dumpPostgres(databaseUrl: string): Promise<string> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const tables = await client.query<{ name: string }>(
      "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind IN ('r', 'p', 'm') AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)",
    );
    const lines: string[] = [];
    for (const { name } of tables.rows) {
      const { rows } = await client.query<{ row: string }>(`SELECT t::text AS row FROM ${name} AS t`);
      lines.push(...rows.map(({ row }) => `${name} ${row}`));
    }
    return lines.join("\n");
  } finally {
    await client.end();
  }
}

/** Every key of a Redis database with its value, whatever its type. */
export async function dumpRedis(redisUrl: string): Promise<string> {
  return await withRedis(redisUrl, async (redis) => {
    const keys = await redis.keys("*");
    const lines = await Promise.all(keys.map(async (key) => `${key} ${JSON.stringify(await valueOf(redis, key))}`));
    return lines.join("\n");
  });
}

async function valueOf(redis: Redis, key: string): Promise<unknown> {
  const type = await redis.type(key);
  if (type === "string") return await redis.get(key);
  if (type === "hash") return await redis.hgetall(key);
  if (type === "list") return await redis.lrange(key, 0, -1);
  if (type === "set") return await redis.smembers(key);
  if (type === "zset") return await redis.zrange(key, 0, "-1");
  if (type === "stream") return await redis.xrange(key, "-", "+");
  throw new Error(`the key ${key} has the unknown type ${type}`);
}

/**
 * Every command that a Redis server gets from now on, through restarts, with all of its words: messages on channels are
 * among them.
 */
export async function watchRedis(redisUrl: string): Promise<{ commands(): string; stop(): void }> {
  const redis = new Redis(redisUrl);
  const monitor = await redis.monitor();
  redis.disconnect();
  const lines: string[] = [];
  monitor.on("monitor", (_time: string, words: string[]) => lines.push(words.join(" ")));
  monitor.on("error", () => {
    // The server may be stopped for a while.
  });
  return { commands: () => lines.join("\n"), stop: () => monitor.disconnect() };
}

/** The names and contents of all files below a folder. */
export async function dumpFolder(folder: string): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const contents = await Promise.all(files.map(async (file) => `${file} ${await readFile(file, "latin1")}`));
  return contents.join("\n");
}
