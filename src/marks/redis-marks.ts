import type { RedisClient } from "../redis.ts";
import { deletedGeneration, formatMark, parseMark, type Mark, type Marks } from "./marks.ts";

const key = "freshet:generations";

/** Raises fields that are lower than what comes, and returns what stands in each. */
const raiseAll = `
local result = {}
for i = 1, #ARGV, 3 do
  local old = redis.call("hget", KEYS[1], ARGV[i])
  local generation = old and tonumber(string.match(old, "^%d+")) or -1
  if tonumber(ARGV[i + 1]) > generation then
    old = ARGV[i + 1] .. ":" .. ARGV[i + 2]
    redis.call("hset", KEYS[1], ARGV[i], old)
  end
  result[#result + 1] = old
end
return result`;

/** Marks in Redis, for all replicas. What Redis forgets is noted anew, and only from then on guarded. */
export function createRedisMarks(redis: RedisClient, onError: (error: Error) => void): Marks {
  const raise = async (marks: ReadonlyMap<string, Mark>): Promise<(string | null)[]> => {
    const given = [...marks].flatMap(([id, { generation, version }]) => [id, generation, version]);
    return (await redis.eval(raiseAll, 1, key, ...given)) as (string | null)[];
  };
  return {
    raise: (connectionId, mark) => void raise(new Map([[connectionId, mark]])).catch(onError),
    async compare(marks) {
      try {
        const known = await raise(marks);
        return higherThan(marks, known);
      } catch (error) {
        onError(error as Error);
        return null;
      }
    },
    async read(connectionId) {
      try {
        return parseMark(await redis.hget(key, connectionId));
      } catch (error) {
        onError(error as Error);
        return null;
      }
    },
    close: (connectionId, version) =>
      void redis.hset(key, connectionId, formatMark({ generation: deletedGeneration, version })).catch(onError),
  };
}

function higherThan(marks: ReadonlyMap<string, Mark>, known: readonly (string | null)[]): Map<string, Mark> {
  const higher = new Map<string, Mark>();
  [...marks].forEach(([id, { generation }], index) => {
    const mark = parseMark(known[index]);
    if (mark !== null && mark.generation > generation) higher.set(id, mark);
  });
  return higher;
}
