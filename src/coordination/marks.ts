import { DatabaseSync } from "node:sqlite";
import { gather, type RedisClient } from "./redis.ts";

/** The newest generation and version of a connection that are known to have been stored. */
export type Mark = { generation: number; version: number };

/**
 * The newest generation that Postgres had, noted outside of Postgres. A row with an older one comes from a restored database, and its
 * refresh token has most likely been spent. Never throws: null where the place does not answer.
 */
export type Marks = {
  /** Notes a generation that has been committed. It never lowers a mark. Does not wait. */
  raise(connectionId: string, mark: Mark): void;
  /** The same for many. Returns the marks that were higher already. */
  compare(marks: ReadonlyMap<string, Mark>): Promise<Map<string, Mark> | null>;
  read(connectionId: string): Promise<Mark | null>;
  /** The connection was deleted: a row with its id can only come from a restored database. */
  close(connectionId: string, version: number): void;
};

/** Marks that can be signed anew. */
export type ResignedMarks = Marks & {
  /** How many marks each key has signed, and with `resign` how many of them were signed anew with the current one. */
  count(options: { resign: boolean }): Promise<SignedMarks | null>;
};

type SignedMarks = { byKey: ReadonlyMap<string, number>; resigned: number };

/** The mark of a deleted connection: no row reaches it by refreshing, and higher numbers are left. */
export const deletedGeneration = 2_000_000_000;

const key = "freshet:generations";
const purpose = "marks";

/** Sets each field that still has the value that was read, and returns how many have not. A key of another type is replaced. */
const swapAll = `
local kind = redis.call("type", KEYS[1]).ok
if kind ~= "hash" and kind ~= "none" then redis.call("del", KEYS[1]) end
local lost = 0
for i = 1, #ARGV, 3 do
  if (redis.call("hget", KEYS[1], ARGV[i]) or "") == ARGV[i + 1] then
    redis.call("hset", KEYS[1], ARGV[i], ARGV[i + 2])
  else
    lost = lost + 1
  end
end
return lost`;

/** How often a replica tries again when others raise the same marks. After that, the next comparison raises them. */
const mostRounds = 20;

type Proofs = {
  sign(purpose: string, text: string): string;
  /** `silent`: only a replica with another key can check it. */
  judge(purpose: string, text: string, proof: string): Promise<"authentic" | "absent" | "silent">;
  /** The id of the key that made it. */
  keyIdOf(proof: string): string;
  /** The id of the key that signs. */
  current(): string;
};

type Options = {
  redis: RedisClient;
  proofs: Proofs;
  onError: (error: Error) => void;
  /** Called for a mark that this broker did not write. */
  onRejected: (connectionId: string) => void;
};

type Standing = { bytes: Buffer; mark: Mark | null; keyId: string | null; isSilent: boolean };

/** How many marks one command reads, about. */
const scanned = 500;
/** More refreshes do not run at a time, about. */
const mostReadBefore = 1000;

/**
 * Marks in Redis, for all replicas. If Redis loses one, it is noted again, and guards its row only from then on. Each carries a MAC, since
 * a forged mark that is too high would suspend its connection for good. One without a valid MAC counts as absent and is written over. One that
 * only a replica with another key can check is left as it is. If somebody puts an older mark back, it is only lower.
 */
export function createRedisMarks({ redis, proofs, onError, onRejected }: Options): ResignedMarks {
  const judge = async (id: string, bytes: Buffer | null): Promise<Standing> => {
    const none = { bytes: bytes ?? Buffer.alloc(0), mark: null, keyId: null, isSilent: false };
    if (bytes === null) return none;
    const read = parse(bytes.subarray(0, 200).toString("latin1"));
    const end = read === null ? "absent" : await proofs.judge(purpose, textOf(id, read.mark), read.proof);
    const keyId = read && proofs.keyIdOf(read.proof);
    if (end === "authentic" && read !== null) return { ...none, mark: read.mark, keyId };
    if (end === "silent") return { ...none, keyId, isSilent: true };
    onRejected(id);
    return none;
  };

  /** A key of another type holds no marks. */
  const noHash = (error: unknown): [string, Buffer[]] => {
    if (!(error instanceof Error) || !error.message.startsWith("WRONGTYPE")) throw error;
    onRejected("");
    return ["0", []];
  };

  const readAll = async (ids: readonly string[]): Promise<Standing[]> => {
    if (ids.length === 0) return [];
    gather(redis);
    const found = await redis.hmgetBuffer(key, ...ids).catch((error: unknown) => {
      noHash(error);
      return ids.map(() => null);
    });
    return await Promise.all(ids.map((id, index) => judge(id, found[index] ?? null)));
  };

  /** What a refresh has read and may raise soon: it need not be read again, since a swap finds out what has changed. */
  const readBefore = new Map<string, Standing>();
  const readOne = async (id: string): Promise<Mark | null> => {
    const [standing] = await readAll([id]);
    if (standing === undefined) return null;
    readBefore.set(id, standing);
    if (readBefore.size > mostReadBefore) readBefore.delete(readBefore.keys().next().value as string);
    return standing.mark;
  };
  const takeReadBefore = (ids: Iterable<string>): Map<string, Standing> => {
    const taken = new Map<string, Standing>();
    for (const id of ids) {
      const standing = readBefore.get(id);
      if (standing !== undefined) taken.set(id, standing);
      readBefore.delete(id);
    }
    return taken;
  };

  /** Raises the marks that are lower than the given ones, and returns those that are higher. `standing`: those that were read just before. */
  const raise = async (
    marks: ReadonlyMap<string, Mark>,
    { standing = new Map<string, Standing>(), round = 1 } = {},
  ): Promise<Map<string, Mark>> => {
    const higher = new Map<string, Mark>();
    const swaps: (string | Buffer)[] = [];
    const unread = [...marks.keys()].filter((id) => !standing.has(id));
    (await readAll(unread)).forEach((each, index) => standing.set(unread[index] as string, each));
    marks.forEach((mark, id) => {
      const { bytes, mark: known, isSilent } = standing.get(id) as Standing;
      if (known !== null && known.generation > mark.generation) higher.set(id, known);
      const isLower = known === null || known.generation < mark.generation;
      if (!isSilent && isLower) swaps.push(id, bytes, signed(id, mark));
    });
    gather(redis);
    const lost = swaps.length === 0 ? 0 : await redis.eval(swapAll, 1, key, ...swaps);
    return lost === 0 || round === mostRounds ? higher : await raise(marks, { round: round + 1 });
  };

  const signed = (id: string, mark: Mark): string =>
    `${mark.generation}:${mark.version}:${proofs.sign(purpose, textOf(id, mark))}`;

  /** Reads all marks, those of deleted connections, too. One that this broker has not written counts as absent. */
  const count = async ({ resign }: { resign: boolean }): Promise<SignedMarks> => {
    const byKey = new Map<string, number>();
    let resigned = 0;
    let cursor = "0";
    do {
      const [next, flat] = await redis.hscanBuffer(key, cursor, "COUNT", scanned).catch(noHash);
      cursor = String(next);
      const swaps: (string | Buffer)[] = [];
      for (let at = 0; at + 1 < flat.length; at += 2) {
        const id = String(flat[at]);
        const { bytes, mark, keyId } = await judge(id, flat[at + 1] ?? null);
        const isOld = mark !== null && keyId !== proofs.current();
        if (resign && isOld) swaps.push(id, bytes, signed(id, mark));
        if (keyId !== null) byKey.set(keyId, (byKey.get(keyId) ?? 0) + 1);
      }
      // A mark that has been raised meanwhile is left: the next look finds it.
      if (swaps.length > 0) resigned += swaps.length / 3 - Number(await redis.eval(swapAll, 1, key, ...swaps));
    } while (cursor !== "0");
    return { byKey, resigned };
  };

  const orNull = async <Result>(work: Promise<Result>): Promise<Result | null> => {
    try {
      return await work;
    } catch (error) {
      onError(error as Error);
      return null;
    }
  };

  /** Those that wait while others are being raised: one command raises them all. */
  let waiting = new Map<string, Mark>();
  let isRaising = false;
  const raiseWaiting = async (): Promise<void> => {
    isRaising = true;
    while (waiting.size > 0) {
      const marks = waiting;
      waiting = new Map();
      await orNull(raise(marks, { standing: takeReadBefore(marks.keys()) }));
    }
    isRaising = false;
  };

  return {
    raise(connectionId, mark) {
      if ((waiting.get(connectionId)?.generation ?? -1) < mark.generation) waiting.set(connectionId, mark);
      if (!isRaising) void raiseWaiting();
    },
    compare: async (marks) => await orNull(raise(marks)),
    read: async (connectionId) => await orNull(readOne(connectionId)),
    close: (connectionId, version) =>
      void orNull(redis.hset(key, connectionId, signed(connectionId, { generation: deletedGeneration, version }))),
    count: async (options) => await orNull(count(options)),
  };
}

function textOf(connectionId: string, { generation, version }: Mark): string {
  return JSON.stringify([connectionId, generation, version]);
}

function parse(text: string): { mark: Mark; proof: string } | null {
  const [, generation, version, proof] = /^(\d{1,10}):(\d{1,10}):([\w.-]{1,100})$/.exec(text) ?? [];
  if (proof === undefined) return null;
  return { mark: { generation: Number(generation), version: Number(version) }, proof };
}

type FileMarks = ResignedMarks & { end(): void };

/** Marks in a file carry no MAC. */
const none = async (): Promise<SignedMarks> => ({ byKey: new Map(), resigned: 0 });

/**
 * Marks in a file in DATA_DIR: they guard a deployment of one replica. Without a working disk they guard nothing. They carry no
 * MAC: anybody who can write there can also read the keys beside it, or run another broker in its place.
 */
export function createFileMarks(path: string, onError: (error: Error) => void): FileMarks {
  try {
    return openMarks(new DatabaseSync(path), onError);
  } catch (error) {
    onError(error as Error);
    return { raise() {}, compare: async () => null, read: async () => null, close() {}, count: none, end() {} };
  }
}

function openMarks(file: DatabaseSync, onError: (error: Error) => void): FileMarks {
  // A mark that is lost in a power cut leaves one row unguarded. Waiting for the disk would slow down every refresh.
  file.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
  file.exec(
    "CREATE TABLE IF NOT EXISTS marks (id TEXT PRIMARY KEY, generation INTEGER, version INTEGER) WITHOUT ROWID",
  );
  const select = file.prepare("SELECT generation, version FROM marks WHERE id = ?");
  const raise = file.prepare(`INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE
    SET generation = excluded.generation, version = excluded.version WHERE excluded.generation > generation`);
  const replace = file.prepare("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)");

  const attempt = <Result>(work: () => Result): Result | null => {
    try {
      return work();
    } catch (error) {
      onError(error as Error);
      return null;
    }
  };
  const read = (id: string): Mark | null => (select.get(id) as Mark | undefined) ?? null;

  return {
    raise: (id, { generation, version }) => void attempt(() => raise.run(id, generation, version)),
    async compare(marks) {
      const higher = new Map<string, Mark>();
      return attempt(() => {
        file.exec("BEGIN IMMEDIATE");
        try {
          for (const [id, { generation, version }] of marks) {
            raise.run(id, generation, version);
            const known = read(id);
            if (known !== null && known.generation > generation) higher.set(id, known);
          }
          file.exec("COMMIT");
        } catch (error) {
          file.exec("ROLLBACK");
          throw error;
        }
        return higher;
      });
    },
    read: async (id) => attempt(() => read(id)),
    close: (id, version) => void attempt(() => replace.run(id, deletedGeneration, version)),
    count: none,
    end: () => file.close(),
  };
}
