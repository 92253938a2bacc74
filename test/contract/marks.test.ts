import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createFileMarks } from "../../src/marks/file-marks.ts";
import { deletedGeneration, type Mark, type Marks } from "../../src/marks/marks.ts";
import { createRedisMarks } from "../../src/marks/redis-marks.ts";
import { connectRedis, type RedisClient } from "../../src/redis.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, startPrivateRedis, useRedis } from "../support/services/index.ts";
import { eventually } from "./leases/bench.ts";

const mark = (generation: number, version = generation): Mark => ({ generation, version });

/** What is noted does not wait: it is there soon. */
async function untilNoted(marks: Marks, id: string, expected: Mark): Promise<void> {
  await eventually(async () => JSON.stringify(await marks.read(id)) === JSON.stringify(expected));
}

/** What every place promises. */
function marking(place: () => Marks): void {
  it("a mark is read as it was noted, and there is none of what was never noted", async () => {
    const id = randomUUID();
    expect(await place().read(id)).toBeNull();
    place().raise(id, mark(3, 7));
    await untilNoted(place(), id, mark(3, 7));
  });

  it("a mark never goes down, whatever comes late", async () => {
    const id = randomUUID();
    const generations = [4, 2, 9, 1, 9, 5];
    for (const generation of generations) place().raise(id, mark(generation, generation * 10));
    await untilNoted(place(), id, mark(9, 90));
    place().raise(id, mark(8, 999));
    // The answer to a later question comes after what was noted before.
    expect(await place().compare(new Map([[id, mark(1)]]))).toEqual(new Map([[id, mark(9, 90)]]));
    expect(await place().read(id)).toEqual(mark(9, 90));
  });

  it("a comparison gives those that are higher, notes those that are new or lower, and takes thousands", async () => {
    const ids = Array.from({ length: 2000 }, () => randomUUID());
    const [higher = "", lower = "", equal = ""] = ids;
    place().raise(higher, mark(6, 8));
    place().raise(lower, mark(4));
    place().raise(equal, mark(5));
    const rows = new Map(ids.map((id) => [id, mark(5)]));
    expect(await place().compare(rows)).toEqual(new Map([[higher, mark(6, 8)]]));
    expect(await place().read(lower)).toEqual(mark(5));
    expect(await place().read(ids.at(-1) ?? "")).toEqual(mark(5));
  });

  it("nothing to compare is nothing higher", async () => {
    expect(await place().compare(new Map())).toEqual(new Map());
  });

  it("a closed connection is above any row of its id, and stays so", async () => {
    const id = randomUUID();
    place().raise(id, mark(5));
    place().close(id, 12);
    await untilNoted(place(), id, mark(deletedGeneration, 12));
    place().raise(id, mark(6));
    expect(await place().compare(new Map([[id, mark(1_000_000)]]))).toEqual(
      new Map([[id, mark(deletedGeneration, 12)]]),
    );
  });
}

describe("marks in a file", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let path: string;
  let marks: ReturnType<typeof createFileMarks>;
  const errors: Error[] = [];
  beforeAll(async () => {
    folder = await temporaryFolder("marks");
    path = join(folder.path, "marks");
    marks = createFileMarks(path, (error) => void errors.push(error));
  });
  beforeEach(() => void errors.splice(0));
  afterAll(async () => {
    marks.end();
    await folder.remove();
  });
  marking(() => marks);

  it("outlive their process", async () => {
    const id = randomUUID();
    marks.raise(id, mark(3));
    const next = createFileMarks(path, () => {});
    expect(await next.read(id)).toEqual(mark(3));
    next.end();
  });

  it("that cannot be written are reported, throw nothing, and are noted again once they can be", async () => {
    const blocker = new DatabaseSync(path);
    const [one, other] = [randomUUID(), randomUUID()];
    blocker.exec("BEGIN IMMEDIATE");
    marks.raise(one, mark(3));
    expect(await marks.compare(new Map([[one, mark(3)]]))).toBeNull();
    blocker.exec("ROLLBACK");
    blocker.close();
    expect(errors.length).toBeGreaterThanOrEqual(2);
    expect(await marks.compare(new Map([[other, mark(3)]]))).toEqual(new Map());
    const next = createFileMarks(path, () => {});
    expect(await next.read(other)).toEqual(mark(3));
    next.end();
  });
});

describeWithServices(["redis"], "marks in Redis", () => {
  let url: string;
  let redis: RedisClient;
  let marks: Marks;
  const errors: Error[] = [];
  beforeAll(async () => {
    url = await useRedis();
    redis = connectRedis(url);
    await eventually(() => redis.status === "ready");
    marks = createRedisMarks(redis, (error) => void errors.push(error));
  });
  afterAll(() => redis.disconnect());
  marking(() => marks);

  it("are shared with other replicas, and hold no token", async () => {
    const id = randomUUID();
    marks.raise(id, mark(3, 4));
    const other = connectRedis(url);
    await eventually(() => other.status === "ready");
    await untilNoted(
      createRedisMarks(other, () => {}),
      id,
      mark(3, 4),
    );
    expect(await redis.hget("freshet:generations", id)).toBe("3:4");
    other.disconnect();
  });

  it("that somebody has overwritten with something else count as none", async () => {
    const id = randomUUID();
    await redis.hset("freshet:generations", id, "nonsense");
    expect(await marks.read(id)).toBeNull();
    expect(await marks.compare(new Map([[id, mark(2)]]))).toEqual(new Map());
    expect(await marks.read(id)).toEqual(mark(2));
    expect(errors).toEqual([]);
  });
});

describeWithServices(["redis"], "marks in a Redis that is gone", () => {
  it("answer null, report it and throw nothing", async () => {
    await using server = await startPrivateRedis();
    const redis = connectRedis(server.url);
    redis.on("error", () => {});
    const errors: Error[] = [];
    const marks = createRedisMarks(redis, (error) => void errors.push(error));
    await eventually(() => redis.status === "ready");
    await server.stop();
    await eventually(() => redis.status !== "ready");
    const id = randomUUID();
    marks.raise(id, mark(1));
    marks.close(id, 1);
    expect([await marks.read(id), await marks.compare(new Map([[id, mark(1)]]))]).toEqual([null, null]);
    await eventually(() => errors.length >= 4);
    redis.disconnect();
  });
});
