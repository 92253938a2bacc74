import type { RedisClient } from "../redis.ts";
import { deletedGeneration, type Mark, type Marks } from "./marks.ts";

const key = "freshet:generations";
const purpose = "marks";

/** Sets each field that still holds what was read, and returns how many do not. Whatever else has our key is no marks. */
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

/** Who meets others that raise the same marks looks again; after so often the next comparison has to do. */
const mostRounds = 20;

type Proofs = {
  sign(purpose: string, text: string): string;
  /** `silent`: only another replica can tell. */
  judge(purpose: string, text: string, proof: string): Promise<"authentic" | "absent" | "silent">;
};

type Options = {
  redis: RedisClient;
  proofs: Proofs;
  onError: (error: Error) => void;
  /** Told of a mark that nobody of ours wrote. */
  onRejected: (connectionId: string) => void;
};

type Standing = { bytes: Buffer; mark: Mark | null; isSilent: boolean };

/**
 * Marks in Redis, for all replicas. What Redis forgets is noted anew, and only from then on guarded. Each carries a proof, for a
 * mark that is too high would hold up its connection for good: one without it counts as absent, and is written over. One that
 * only another replica can judge is left as it is. An older mark that is put back is only lower.
 */
export function createRedisMarks({ redis, proofs, onError, onRejected }: Options): Marks {
  const judge = async (id: string, bytes: Buffer | null): Promise<Standing> => {
    const none = { bytes: bytes ?? Buffer.alloc(0), mark: null, isSilent: false };
    if (bytes === null) return none;
    const read = parse(bytes.subarray(0, 200).toString("latin1"));
    const end = read === null ? "absent" : await proofs.judge(purpose, textOf(id, read.mark), read.proof);
    if (end === "authentic" && read !== null) return { ...none, mark: read.mark };
    if (end === "silent") return { ...none, isSilent: true };
    onRejected(id);
    return none;
  };

  const readAll = async (ids: readonly string[]): Promise<Standing[]> => {
    if (ids.length === 0) return [];
    const found = await redis.hmgetBuffer(key, ...ids).catch((error: unknown) => {
      if (!(error instanceof Error) || !error.message.startsWith("WRONGTYPE")) throw error;
      onRejected("");
      return ids.map(() => null);
    });
    return await Promise.all(ids.map((id, index) => judge(id, found[index] ?? null)));
  };

  /** Raises those that are lower than what comes, and returns what stands above. */
  const raise = async (marks: ReadonlyMap<string, Mark>, round = 1): Promise<Map<string, Mark>> => {
    const higher = new Map<string, Mark>();
    const swaps: (string | Buffer)[] = [];
    const standing = await readAll([...marks.keys()]);
    [...marks].forEach(([id, mark], index) => {
      const { bytes, mark: known, isSilent } = standing[index] as Standing;
      if (known !== null && known.generation > mark.generation) higher.set(id, known);
      const isLower = known === null || known.generation < mark.generation;
      if (!isSilent && isLower) swaps.push(id, bytes, signed(id, mark));
    });
    const lost = swaps.length === 0 ? 0 : await redis.eval(swapAll, 1, key, ...swaps);
    return lost === 0 || round === mostRounds ? higher : await raise(marks, round + 1);
  };

  const signed = (id: string, mark: Mark): string =>
    `${mark.generation}:${mark.version}:${proofs.sign(purpose, textOf(id, mark))}`;

  const orNull = async <Result>(work: Promise<Result>): Promise<Result | null> => {
    try {
      return await work;
    } catch (error) {
      onError(error as Error);
      return null;
    }
  };

  return {
    raise: (connectionId, mark) => void orNull(raise(new Map([[connectionId, mark]]))),
    compare: async (marks) => await orNull(raise(marks)),
    read: async (connectionId) => (await orNull(readAll([connectionId])))?.[0]?.mark ?? null,
    close: (connectionId, version) =>
      void orNull(redis.hset(key, connectionId, signed(connectionId, { generation: deletedGeneration, version }))),
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
