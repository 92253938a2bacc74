import { describe, expect, it } from "vitest";
import type { SpoolEntry, SpoolPlace } from "../../../src/coordination/spool.ts";
import { createSpools } from "../../../src/tokens/recovery.ts";
import { attemptId } from "./answers.ts";
import { memorySpool } from "./memory-places.ts";

const entry: SpoolEntry = { connectionId: "c", generation: 3, attemptId, record: new Uint8Array([1]) };

/** Two places for spooled answers, and what was reported of a place that failed. */
function spoolsIn(places: readonly SpoolPlace[]) {
  const failed: string[] = [];
  return { spools: createSpools({ places, onError: (place) => void failed.push(place) }), failed };
}

function slow(place: SpoolPlace) {
  const { promise, resolve } = Promise.withResolvers<void>();
  const put: SpoolPlace["put"] = async (given) => {
    await promise;
    await place.put(given);
  };
  return { place: { ...place, put }, finish: resolve };
}

describe("the spools", () => {
  it("are done with the first durable copy, and write the others too", async () => {
    const [disk, redis] = [memorySpool("data_dir"), memorySpool("redis")];
    const { place, finish } = slow(redis);
    const { spools } = spoolsIn([disk, place]);
    expect(await spools.put(entry)).toBe(true);
    expect([disk.entries.size, redis.entries.size]).toEqual([1, 0]);
    finish();
    await expect.poll(() => redis.entries.size).toBe(1);
  });

  it("take an answer when one place fails, which is reported, and say so when all fail", async () => {
    const [disk, redis] = [memorySpool("data_dir"), memorySpool("redis")];
    const { spools, failed } = spoolsIn([disk, redis]);
    disk.isAway = true;
    expect(await spools.put(entry)).toBe(true);
    expect(failed).toEqual(["data_dir"]);
    redis.isAway = true;
    expect(await spools.put(entry)).toBe(false);
    expect(failed).toEqual(["data_dir", "data_dir", "redis"]);
    expect(await spoolsIn([]).spools.put(entry)).toBe(false);
  });

  it("remove a copy that is still being written once it is there: none stays behind", async () => {
    const [disk, redis] = [memorySpool("data_dir"), memorySpool("redis")];
    const { place, finish } = slow(redis);
    const { spools } = spoolsIn([disk, place]);
    await spools.put(entry);
    const removed = spools.remove(entry);
    finish();
    await removed;
    expect([disk.entries.size, redis.entries.size]).toEqual([0, 0]);
  });

  it("remove from every place that answers, and report the others", async () => {
    const [disk, redis] = [memorySpool("data_dir"), memorySpool("redis")];
    const { spools, failed } = spoolsIn([disk, redis]);
    await spools.put(entry);
    disk.isAway = true;
    await spools.remove(entry);
    expect([failed, redis.entries.size]).toEqual([["data_dir"], 0]);
  });

  it("list what each place holds, and say where, from the places that answer", async () => {
    const [disk, redis] = [memorySpool("data_dir"), memorySpool("redis")];
    const { spools, failed } = spoolsIn([disk, redis]);
    await spools.put(entry);
    const inFolder = { ...entry, place: "data_dir" };
    expect(await spools.list()).toEqual({ entries: [inFolder, { ...entry, place: "redis" }], isComplete: true });
    redis.isAway = true;
    expect(await spools.list()).toEqual({ entries: [inFolder], isComplete: false });
    expect(failed).toEqual(["redis"]);
  });

  it("find what waits of one generation, and say whether every place has answered", async () => {
    const [disk, redis] = [memorySpool("data_dir"), memorySpool("redis")];
    const { spools } = spoolsIn([disk, redis]);
    const found = async (connectionId: string, generation: number) => {
      const { entries, isComplete } = await spools.find({ connectionId, generation, attemptId: null });
      return [entries.map(({ place }) => place), isComplete];
    };
    expect(await found("c", 3)).toEqual([[], true]);
    await spools.put(entry);
    expect([await found("c", 3), await found("c", 4)]).toEqual([
      [["data_dir", "redis"], true],
      [[], true],
    ]);
    redis.isAway = true;
    expect([await found("c", 3), await found("d", 3)]).toEqual([
      [["data_dir"], false],
      [[], false],
    ]);
  });
});
