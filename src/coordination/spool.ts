import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { Cluster, type Redis } from "ioredis";
import { eachAlone } from "../concurrency.ts";
import type { RedisClient } from "./redis.ts";

/** Which answer a record holds: the generation whose refresh token was spent for it, and the attempt. */
export type SpoolKey = { connectionId: string; generation: number; attemptId: string };

export type SpoolEntry = SpoolKey & { record: Uint8Array<ArrayBuffer> };

/** Where answers wait that Postgres could not take yet. Records are sealed: a place sees no token. */
export type SpoolPlace = {
  readonly name: "data_dir" | "redis";
  /** Resolves once the record would outlive this process. @throws when the place cannot take it */
  put(entry: SpoolEntry): Promise<void>;
  remove(key: SpoolKey): Promise<void>;
  /** All records, in no order. */
  list(): Promise<SpoolEntry[]>;
  /** The records of one generation. @throws when the place does not answer */
  find(wanted: WantedSpool): Promise<SpoolEntry[]>;
};

/** A place whose records can be sealed anew. */
export type ResealedSpool = SpoolPlace & {
  /** Puts another record in the place of one that was read. False: it is not there any more as it was read. */
  replace(entry: SpoolEntry, record: Uint8Array<ArrayBuffer>): Promise<boolean>;
};

/** `attemptId`: the attempt that stands in the row, whose answer is looked for first. */
export type WantedSpool = { connectionId: string; generation: number; attemptId: string | null };

const uuid = String.raw`[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}`;
const namePattern = new RegExp(`^(${uuid})\\.(\\d{1,10})\\.(${uuid})$`);

/** A key as the name of a file. */
export function nameOf({ connectionId, generation, attemptId }: SpoolKey): string {
  return `${connectionId}.${generation}.${attemptId}`;
}

/** The key in a file's name; null: it is not a record, or was never finished. */
function keyOf(name: string): SpoolKey | null {
  const [, connectionId, generation, attemptId] = namePattern.exec(name) ?? [];
  if (connectionId === undefined || attemptId === undefined) return null;
  return { connectionId, generation: Number(generation), attemptId };
}

const prefix = "spool:";
/** How many records one command asks for, so that none takes too long. */
const readBatch = 50;
const keyPattern = /^spool:([0-9a-f-]{36}):(\d{1,10})$/;
const recordPattern = /^[A-Za-z0-9+/]+={0,2}$/;
/** Of one generation. More than that has been written by somebody else. */
const mostFields = 256;
const mostKeys = 10_000;
/** No record is so long, as base64. */
const mostCharacters = 1_000_000;

/**
 * Records in Redis 6.2+ or Valkey, where every replica finds them: a hash for each generation, with a field for each attempt.
 * Others may be able to write there: what cannot be a record is skipped, and fields and keys are read up to a limit. Somebody who
 * can write too many could just as well delete.
 * @param onRejected called with the connection under whose name something else stands; null: several
 */
export function createRedisSpool(redis: RedisClient, onRejected: (connectionId: string | null) => void): ResealedSpool {
  const entryOf = (key: string, [attemptId, text]: [string, string]): SpoolEntry[] => {
    const [, connectionId = "", generation] = keyPattern.exec(key) ?? [];
    if (text.length > mostCharacters || !recordPattern.test(text)) {
      onRejected(connectionId);
      return [];
    }
    const record = new Uint8Array(Buffer.from(text, "base64"));
    return [{ connectionId, generation: Number(generation), attemptId, record }];
  };

  /** The field of `attemptId`, whatever else is there, and as many others as the limit allows. */
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
      const key = redisKeyOf(connectionId, generation);
      const text = Buffer.from(record).toString("base64");
      // No expiry: a record is removed when its answer is stored, and not before.
      await redis.hset(key, attemptId, text).catch(async (error: unknown) => {
        if (!isWrongType(error)) throw error;
        onRejected(connectionId);
        await redis.del(key); // a key of another type holds no answer
        await redis.hset(key, attemptId, text);
      });
    },
    async remove({ connectionId, generation, attemptId }) {
      await redis.hdel(redisKeyOf(connectionId, generation), attemptId);
    },
    async replace({ connectionId, generation, attemptId, record }, next) {
      const texts = [record, next].map((bytes) => Buffer.from(bytes).toString("base64"));
      return (await redis.eval(swapField, 1, redisKeyOf(connectionId, generation), attemptId, ...texts)) === 1;
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
    find: async ({ connectionId, generation, attemptId }) =>
      await read(redisKeyOf(connectionId, generation), attemptId),
  };
}

/** Sets a field that still has the value that was read. */
const swapField = `
if redis.call("hget", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call("hset", KEYS[1], ARGV[1], ARGV[3])
return 1`;

function isWrongType(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith("WRONGTYPE");
}

function redisKeyOf(connectionId: string, generation: number): string {
  return `${prefix}${connectionId}:${generation}`;
}

/** The spools on one node, up to about the limit. A key may come twice. */
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

type FileSpool = ResealedSpool & {
  /** At the start: a file that an earlier process did not finish is renamed if it is whole, and else removed. */
  finishParts(isWhole: (entry: SpoolEntry) => boolean): Promise<void>;
};

const unfinished = ".part";

/**
 * Records as files, one for each, in a folder that only this process uses and only its user can read.
 * @param onError called for a file that cannot be read; the others are listed without it
 */
export function createFileSpool(folder: string, onError: (error: unknown) => void): FileSpool {
  /** Files that are being replaced. Only this process uses the folder. `false`: it has been removed meanwhile. */
  const replacing = new Map<string, boolean>();
  const entryOf = async (name: string): Promise<SpoolEntry[]> => {
    const key = keyOf(name);
    if (key === null) return [];
    try {
      return [{ ...key, record: new Uint8Array(await readFile(join(folder, name))) }];
    } catch (error) {
      if (isMissing(error)) return []; // another call has just stored its answer and removed it
      throw error;
    }
  };
  const names = async (): Promise<string[]> => {
    try {
      return await readdir(folder);
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  };
  return {
    name: "data_dir",
    async put(entry) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const path = join(folder, nameOf(entry));
      await writeDurably(`${path}${unfinished}`, entry.record);
      // A file gets its name only when it is whole, so that a start after a crash finds no half record.
      await rename(`${path}${unfinished}`, path);
      await syncFolder(folder);
    },
    async remove(key: SpoolKey) {
      if (replacing.has(nameOf(key))) replacing.set(nameOf(key), false);
      await rm(join(folder, nameOf(key)), { force: true });
    },
    async replace(entry, record) {
      const name = nameOf(entry);
      if (replacing.has(name)) return false;
      replacing.set(name, true);
      try {
        const [found] = await entryOf(name);
        if (found === undefined || !Buffer.from(found.record).equals(entry.record)) return false;
        await this.put({ ...entry, record });
        // The same as a crash between a commit and the removal of its record: nothing is lost if it stands here for a moment.
        if (replacing.get(name) === false) await rm(join(folder, name), { force: true });
        return true;
      } finally {
        replacing.delete(name);
      }
    },
    async list() {
      const entries: SpoolEntry[] = [];
      await eachAlone(await names(), async (name) => entries.push(...(await entryOf(name))), { onError });
      return entries;
    },
    async finishParts(isWhole) {
      const all = await names().catch((error: unknown): string[] => {
        onError(error); // later uses of the folder fail with the same error
        return [];
      });
      const parts = all.filter((name) => name.endsWith(unfinished));
      const finish = async (name: string): Promise<void> => {
        const [path, key] = [join(folder, name), keyOf(name.slice(0, -unfinished.length))];
        if (key === null) return;
        const record = new Uint8Array(await readFile(path));
        if (isWhole({ ...key, record })) await rename(path, join(folder, nameOf(key)));
        else await rm(path);
      };
      await eachAlone(parts, finish, { onError });
    },
    async find({ connectionId, generation }) {
      const own = (await names()).filter((name) => name.startsWith(`${connectionId}.${generation}.`));
      return (await Promise.all(own.map(entryOf))).flat();
    },
  };
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}

async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "w", 0o600);
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** A new file's name is durable only after its folder has been synced. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
