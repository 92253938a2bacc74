import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { connectRedis, type RedisClient } from "../../src/coordination/redis.ts";
import {
  createFileSpool,
  createRedisSpool,
  nameOf,
  type ResealedSpool,
  type SpoolEntry,
} from "../../src/coordination/spool.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, startPrivateRedis, useRedis } from "../support/services/index.ts";
import { withRedis } from "../support/services/redis.ts";
import { eventually } from "./leases/bench.ts";

function entryOf(changes: Partial<SpoolEntry> = {}): SpoolEntry {
  const record = new Uint8Array(randomBytes(3000));
  return { connectionId: randomUUID(), generation: 3, attemptId: randomUUID(), record, ...changes };
}

const wanted = (connectionId: string, generation: number) => ({ connectionId, generation, attemptId: null });

const byAttempt = (entries: SpoolEntry[]) =>
  [...entries].sort((one, other) => one.attemptId.localeCompare(other.attemptId));

/** What every place promises. Each test finds it empty. */
function spooling(place: () => ResealedSpool): void {
  it("an empty one holds nothing, and there is nothing to remove", async () => {
    expect([await place().list(), await place().find(wanted(randomUUID(), 1))]).toEqual([[], []]);
    await place().remove(entryOf());
  });

  it("records come out as they went in, all of them", async () => {
    const entries = Array.from({ length: 50 }, (_none, index) => entryOf({ generation: index * 1000 }));
    await Promise.all(entries.map((entry) => place().put(entry)));
    expect(byAttempt(await place().list())).toEqual(byAttempt(entries));
  });

  it("records of one generation are found by it, several of them too, and no others", async () => {
    const [one, other] = [entryOf(), entryOf()];
    const again = { ...entryOf(), connectionId: one.connectionId };
    const next = { ...entryOf({ generation: 30 }), connectionId: one.connectionId };
    for (const entry of [one, other, again, next]) await place().put(entry);
    expect(byAttempt(await place().find(wanted(one.connectionId, 3)))).toEqual(byAttempt([one, again]));
    expect(await place().find(wanted(one.connectionId, 30))).toEqual([next]);
    expect(await place().find(wanted(other.connectionId, 30))).toEqual([]);
  });

  it("a removed record is gone, and those beside it stay", async () => {
    const one = entryOf();
    const beside = { ...entryOf(), connectionId: one.connectionId };
    await place().put(one);
    await place().put(beside);
    await place().remove(one);
    await place().remove(one);
    expect(await place().list()).toEqual([beside]);
    expect(await place().find(wanted(one.connectionId, 3))).toEqual([beside]);
  });

  it("a record is replaced only where it stands as it was read, and does not come back once it is removed", async () => {
    const one = entryOf();
    const [next, later] = [entryOf().record, entryOf().record];
    await place().put(one);
    expect(await place().replace(one, next)).toBe(true);
    expect(await place().replace(one, later)).toBe(false);
    expect(await place().list()).toEqual([{ ...one, record: next }]);
    // The answer is stored while its record is sealed anew.
    await Promise.all([place().replace({ ...one, record: next }, later), place().remove(one)]);
    expect(await place().list()).toEqual([]);
    expect(await place().replace({ ...one, record: later }, next)).toBe(false);
    expect(await place().list()).toEqual([]);
  });

  it("a record that is put again takes the place of the first", async () => {
    const entry = entryOf();
    await place().put(entry);
    const again = { ...entry, record: new Uint8Array([1, 2, 3]) };
    await place().put(again);
    expect(await place().list()).toEqual([again]);
  });
}

describe("a spool in a folder", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let path: string;
  let place: ResealedSpool;
  beforeEach(async () => {
    folder = await temporaryFolder("spool");
    path = join(folder.path, "spool");
    place = createFileSpool(path, () => {});
    return async () => await folder.remove();
  });
  spooling(() => place);

  it("can be read by its own user only", async () => {
    const entry = entryOf();
    await place.put(entry);
    expect(((await stat(path)).mode & 0o777).toString(8)).toBe("700");
    expect(((await stat(join(path, nameOf(entry)))).mode & 0o777).toString(8)).toBe("600");
  });

  it("shows a record only when it is whole: what a crash left half written is no record, and harms no other", async () => {
    const [half, whole] = [entryOf(), entryOf()];
    await place.put(whole);
    await writeFile(join(path, `${nameOf(half)}.part`), half.record.slice(0, 10));
    expect(await place.list()).toEqual([whole]);
    expect(await place.find(wanted(half.connectionId, half.generation))).toEqual([]);
    await place.put(half);
    expect(byAttempt(await place.list())).toEqual(byAttempt([half, whole]));
    expect((await readdir(path)).filter((name) => name.endsWith(".part"))).toEqual([]);
  });

  it("never shows half a record to who looks while it is written", async () => {
    const entries = Array.from({ length: 40 }, () => entryOf({ record: new Uint8Array(200_000).fill(7) }));
    const writing = Promise.all(entries.map((entry) => place.put(entry)));
    let seen: SpoolEntry[] = [];
    while (seen.length < entries.length) {
      seen = await place.list();
      expect(seen.filter(({ record }) => record.length !== 200_000)).toEqual([]);
    }
    await writing;
  });

  it("passes over what is not its own", async () => {
    await place.put(entryOf());
    for (const name of ["notes.txt", `${randomUUID()}.x.${randomUUID()}`, "lock"]) {
      await writeFile(join(path, name), "x");
    }
    expect(await place.list()).toHaveLength(1);
  });

  it("survives the process that wrote it", async () => {
    const entry = entryOf();
    await place.put(entry);
    expect(await createFileSpool(path, () => {}).list()).toEqual([entry]);
  });

  it("a record that goes while somebody looks at the others is no fault", async () => {
    const [stays, goes] = [entryOf(), entryOf()];
    await place.put(stays);
    // The file's name is there when the folder is read, and the file is gone when it is opened.
    await symlink(join(path, "gone"), join(path, nameOf(goes)));
    expect(await place.list()).toEqual([stays]);
    expect(await place.find(wanted(goes.connectionId, goes.generation))).toEqual([]);
  });

  it("a file that cannot be read is told, keeps no other from the list, and makes its own generation uncertain", async () => {
    const errors: unknown[] = [];
    place = createFileSpool(path, (error) => void errors.push(error));
    const [bad, other] = [entryOf(), entryOf()];
    await place.put(other);
    await mkdir(join(path, nameOf(bad))); // a file whose blocks are gone cannot be read either
    expect([await place.list(), errors.length]).toEqual([[other], 1]);
    await expect(place.find(wanted(bad.connectionId, bad.generation))).rejects.toThrow();
    expect(await place.find(wanted(other.connectionId, other.generation))).toEqual([other]);
  });

  it("what a process that ended left unfinished is finished where it is whole, and else removed", async () => {
    const [whole, half] = [entryOf(), entryOf()];
    const spool = createFileSpool(path, () => {});
    await mkdir(path, { recursive: true });
    await writeFile(join(path, `${nameOf(whole)}.part`), whole.record);
    await writeFile(join(path, `${nameOf(half)}.part`), half.record.slice(0, 10));
    await writeFile(join(path, "notes.part"), "x");
    await spool.finishParts(({ record }) => record.length === whole.record.length);
    expect([await spool.list(), (await readdir(path)).sort()]).toEqual([[whole], [nameOf(whole), "notes.part"].sort()]);
  });

  it("says so when its folder cannot be written or read", async () => {
    await rm(path, { recursive: true, force: true });
    await writeFile(path, "a file in the folder's place");
    await expect(place.put(entryOf())).rejects.toThrow();
    await expect(place.list()).rejects.toThrow();
    await expect(place.find(wanted(randomUUID(), 1))).rejects.toThrow();
  });

  it("says so when the disk is full, and leaves nothing that looks like a record", async () => {
    const entry = entryOf();
    await mkdir(path, { recursive: true });
    // A folder in the place of the file cannot be written, like a file on a full disk.
    await mkdir(join(path, `${nameOf(entry)}.part`));
    await expect(place.put(entry)).rejects.toThrow();
    expect(await place.list()).toEqual([]);
  });
});

describeWithServices(["redis"], "a spool in Redis", () => {
  const rejected: (string | null)[] = [];
  let url: string;
  let redis: RedisClient;
  let place: ResealedSpool;
  beforeAll(async () => {
    url = await useRedis();
    redis = connectRedis(url);
    await eventually(() => redis.status === "ready");
    place = createRedisSpool(redis, (id) => void rejected.push(id));
  });
  beforeEach(async () => void (await redis.flushdb()));
  afterAll(() => redis.disconnect());
  spooling(() => place);

  it("keeps a record without an end, under the name that the protocol gives it", async () => {
    const entry = entryOf();
    await place.put(entry);
    const key = `spool:${entry.connectionId}:3`;
    expect([await redis.ttl(key), await redis.exists(key)]).toEqual([-1, 1]);
    await place.remove(entry);
    expect(await redis.exists(key)).toBe(0);
  });

  it("lists thousands, and passes over what is not its own", async () => {
    for (let batch = 0; batch < 20; batch++) {
      const entries = Array.from({ length: 100 }, () => entryOf({ record: new Uint8Array([1]) }));
      await Promise.all(entries.map((entry) => place.put(entry)));
    }
    await redis.set("spool:notes", "x");
    await redis.set("refresh:x:1", "x");
    expect(await place.list()).toHaveLength(2000);
  });

  it("what cannot be a record is passed over and told: text, endless text, another type in the place of the hash", async () => {
    const entry = entryOf();
    const key = `spool:${entry.connectionId}:3`;
    await place.put(entry);
    rejected.splice(0);
    await redis.hset(key, { x: "not base64!", y: "A".repeat(2_000_000), z: "" });
    expect([await place.list(), rejected]).toEqual([[entry], Array.from({ length: 3 }, () => entry.connectionId)]);
    await redis.del(key);
    await redis.set(key, "text");
    expect([await place.find(wanted(entry.connectionId, 3)), await place.list()]).toEqual([[], []]);
    await place.put(entry);
    expect(await place.find(wanted(entry.connectionId, 3))).toEqual([entry]);
  });

  it("a flood of fields hides no answer of the attempt that is looked for, and is not read as a whole", async () => {
    const entry = entryOf();
    await place.put(entry);
    const key = `spool:${entry.connectionId}:3`;
    const flood = Array.from({ length: 20_000 }, () => [randomUUID(), randomBytes(60).toString("base64")] as const);
    await withRedis(url, async (patient) => await patient.hset(key, Object.fromEntries(flood)));
    const found = await place.find({ connectionId: entry.connectionId, generation: 3, attemptId: entry.attemptId });
    expect(found).toContainEqual(entry);
    expect(found.length).toBeLessThanOrEqual(256);
  });

  it("is shared with other replicas", async () => {
    const entry = entryOf();
    await place.put(entry);
    const other = connectRedis(url);
    await eventually(() => other.status === "ready");
    expect(await createRedisSpool(other, () => {}).find(wanted(entry.connectionId, 3))).toEqual([entry]);
    other.disconnect();
  });
});

describeWithServices(["redis"], "a spool in a Redis that is gone", () => {
  it("says so at every question, promptly, and serves again when it is back", async () => {
    await using server = await startPrivateRedis();
    const redis = connectRedis(server.url);
    redis.on("error", () => {});
    await eventually(() => redis.status === "ready");
    const place = createRedisSpool(redis, () => {});
    const entry = entryOf();
    await server.stop();
    await eventually(() => redis.status !== "ready");
    const questions = [place.put(entry), place.remove(entry), place.list(), place.find(wanted(entry.connectionId, 3))];
    const outcomes = await Promise.allSettled(questions);
    expect(outcomes.map(({ status }) => status)).toEqual(questions.map(() => "rejected"));
    await server.restart();
    await eventually(() => redis.status === "ready");
    await place.put(entry);
    expect(await withRedis(server.url, (direct) => direct.exists(`spool:${entry.connectionId}:3`))).toBe(1);
    redis.disconnect();
  });

  it("and frozen says so after the command timeout", async () => {
    await using server = await startPrivateRedis();
    const redis = connectRedis(server.url);
    redis.on("error", () => {});
    await eventually(() => redis.status === "ready");
    await server.pause();
    await expect(createRedisSpool(redis, () => {}).find(wanted(randomUUID(), 1))).rejects.toThrow();
    await server.resume();
    redis.disconnect();
  });
});
