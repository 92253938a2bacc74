import { randomBytes, randomUUID } from "node:crypto";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  createFileMarks,
  createRedisMarks,
  deletedGeneration,
  type Mark,
  type Marks,
} from "../../src/coordination/marks.ts";
import { connectRedis, type RedisClient } from "../../src/coordination/redis.ts";
import { createKeyList, createKeyring } from "../../src/vault/keyring.ts";
import { createSharedProofs } from "../../src/vault/row-proofs.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, startPrivateRedis, useRedis } from "../support/services/index.ts";
import { eventually } from "./leases/bench.ts";

const mark = (generation: number, version = generation): Mark => ({ generation, version });

const key = "freshet:generations";
const ringKey = randomBytes(32);
const keyring = createKeyring([{ id: "k1", key: ringKey }]);
/** The database names a key that this process does not have. */
const keys = createKeyList(async () => ["k1", "k2"]);

/** Noting a mark is not awaited: the mark is there soon after. */
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
  const rejected: string[] = [];
  const marksAt = (at: RedisClient, ring = keyring) =>
    createRedisMarks({
      redis: at,
      proofs: createSharedProofs(ring, keys),
      onError: (error) => void errors.push(error),
      onRejected: (id) => void rejected.push(id),
    });
  beforeAll(async () => {
    url = await useRedis();
    redis = connectRedis(url);
    await eventually(() => redis.status === "ready");
    marks = marksAt(redis);
  });
  beforeEach(() => {
    errors.splice(0);
    rejected.splice(0);
  });
  afterAll(() => redis.disconnect());
  marking(() => marks);

  it("are shared with other replicas, and hold no token", async () => {
    const id = randomUUID();
    marks.raise(id, mark(3, 4));
    const other = connectRedis(url);
    await eventually(() => other.status === "ready");
    await untilNoted(marksAt(other), id, mark(3, 4));
    expect(await redis.hget("freshet:generations", id)).toMatch(/^3:4:k1\.[\w-]{43}$/);
    other.disconnect();
  });

  it("that nobody of ours wrote count as none, are told, and are written over: too high, garbage, bytes, another's, an unknown key's", async () => {
    const [id, other] = [randomUUID(), randomUUID()];
    marks.raise(other, mark(90));
    await untilNoted(marks, other, mark(90));
    const authentic = (await redis.hget(key, other)) ?? "";
    const forged: (string | Buffer)[] = [
      "nonsense",
      "9999999999:1",
      "2000000000:1",
      "90:90:",
      authentic,
      authentic.replace("90:", "91:"),
      "",
      authentic.replace("k1.", "k9."),
      randomBytes(300),
      Buffer.from([0xff, 0xfe]),
      "9".repeat(1_000_000),
    ];
    for (const value of forged) {
      rejected.splice(0);
      await redis.hset(key, id, value);
      expect(await marks.read(id)).toBeNull();
      expect(rejected).toEqual([id]);
      expect(await marks.compare(new Map([[id, mark(2)]]))).toEqual(new Map());
      expect(await marks.read(id)).toEqual(mark(2));
    }
    expect(errors).toEqual([]);
  });

  it("a forged one changes nothing for the others of a comparison", async () => {
    const ids = Array.from({ length: 20 }, () => randomUUID());
    marks.raise(ids[3] ?? "", mark(9));
    await untilNoted(marks, ids[3] ?? "", mark(9));
    await redis.hset(key, ids[5] ?? "", "9999999999:1");
    expect(await marks.compare(new Map(ids.map((id) => [id, mark(5)])))).toEqual(new Map([[ids[3], mark(9)]]));
    expect(await marks.read(ids[6] ?? "")).toEqual(mark(5));
  });

  it("an older one that is put back is only lower", async () => {
    const id = randomUUID();
    marks.raise(id, mark(3));
    await untilNoted(marks, id, mark(3));
    const old = (await redis.hget(key, id)) ?? "";
    marks.raise(id, mark(7));
    await untilNoted(marks, id, mark(7));
    await redis.hset(key, id, old);
    expect(await marks.compare(new Map([[id, mark(7)]]))).toEqual(new Map());
    expect([await marks.read(id), rejected]).toEqual([mark(7), []]);
  });

  it("one whose key only another replica has is no mark here, and is left to that one", async () => {
    const id = randomUUID();
    const theirs = marksAt(redis, createKeyring([{ id: "k2", key: randomBytes(32) }]));
    theirs.raise(id, mark(8));
    await untilNoted(theirs, id, mark(8));
    expect(await marks.read(id)).toBeNull();
    expect(await marks.compare(new Map([[id, mark(5)]]))).toEqual(new Map());
    expect([await theirs.read(id), rejected]).toEqual([mark(8), []]);
  });

  it("are signed anew with another key, those of deleted connections, too, and keep their numbers; what nobody of ours wrote stays", async () => {
    const [id, deleted, forged] = [randomUUID(), randomUUID(), randomUUID()];
    const next = { id: "k2.x", key: randomBytes(32) };
    const own = { id: "k1", key: ringKey };
    const rotated = marksAt(redis, createKeyring([next, own]));
    await redis.del(key);
    marks.raise(id, mark(7, 9));
    marks.close(deleted, 5);
    await redis.hset(key, forged, `90:90:k1.${"A".repeat(43)}`);
    await untilNoted(marks, id, mark(7, 9));
    await untilNoted(marks, deleted, mark(2_000_000_000, 5));
    for (let each = 0; each < 600; each++) await marks.compare(new Map([[randomUUID(), mark(each + 1)]]));
    expect(await rotated.count({ resign: false })).toEqual({ byKey: new Map([["k1", 602]]), resigned: 0 });
    expect((await rotated.count({ resign: true }))?.resigned).toBe(602);
    expect(await rotated.count({ resign: true })).toEqual({ byKey: new Map([["k2.x", 602]]), resigned: 0 });
    const alone = marksAt(redis, createKeyring([next]));
    expect([await alone.read(id), await alone.read(deleted)]).toEqual([mark(7, 9), mark(2_000_000_000, 5)]);
    expect(await redis.hget(key, forged)).toMatch(/^90:90:k1\./);
    // One that is raised while they are signed anew is not lowered.
    const raised = alone.count({ resign: true });
    alone.raise(id, mark(8, 10));
    await raised;
    await untilNoted(alone, id, mark(8, 10));
  });

  it("whatever else stands under their key gives way to them", async () => {
    const id = randomUUID();
    for (const put of [() => redis.set(key, "text"), () => redis.rpush(key, "a", "b"), () => redis.sadd(key, id)]) {
      await redis.del(key);
      await put();
      expect(await marks.read(id)).toBeNull();
      expect(await marks.compare(new Map([[id, mark(2)]]))).toEqual(new Map());
      expect(await marks.read(id)).toEqual(mark(2));
    }
  });
});

describeWithServices(["redis"], "marks in a Redis that is gone", () => {
  it("answer null, report it and throw nothing", async () => {
    await using server = await startPrivateRedis();
    const redis = connectRedis(server.url);
    redis.on("error", () => {});
    const errors: Error[] = [];
    const marks = createRedisMarks({
      redis,
      proofs: createSharedProofs(keyring, keys),
      onError: (error) => void errors.push(error),
      onRejected: () => {},
    });
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
