import { randomBytes } from "node:crypto";
import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { beforeEach, expect, test } from "vitest";
import { draftOf } from "../../../src/audit/entries.ts";
import { createJournal, type Journal } from "../../../src/audit/journal.ts";
import { auditTimes } from "../../../src/time.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { until } from "../../support/patience.ts";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { manualClock } from "../tokens/manual-clock.ts";
import { hangDisk } from "./hanging-disk.ts";

const keyring = createKeyring([{ id: "k1", key: randomBytes(32) }]);
let folder: string;
let rejected: { file: string; lines: number }[];
let errors: unknown[];
beforeEach(async () => {
  folder = join((await temporaryFolder("journal")).path, "audit");
  [rejected, errors] = [[], []];
});

/** No deadline of it ends: its clock stands still unless a test passes another one. */
const open = (process: string, ring = keyring, clock = manualClock()): Journal =>
  createJournal({
    folder,
    process,
    keyring: ring,
    clock,
    onRejected: (each) => void rejected.push(each),
    onError: (error) => void errors.push(error),
  });
const draft = (name: string, atMs = 1) =>
  draftOf({ actor: { kind: "key", id: name, name: null }, action: "keys.create", target: null, address: null }, atMs);
const begin = async (journal: Journal, id: string, atMs = 1) =>
  await journal.append({ kind: "begun", id, draft: draft(id, atMs) });
const base64 = (record: Uint8Array) => Buffer.from(record).toString("base64");
const files = () => readdirSync(folder).sort();
const only = () => join(folder, files()[0] ?? "");

test("what was begun is found by the next process, with its end if it had one, and where it may be written already", async () => {
  const first = open("p1");
  await Promise.all([begin(first, "a", 3), begin(first, "b", 2), begin(first, "c", 1)]);
  await first.append({ kind: "ended", id: "b", outcome: { result: "conflict", detail: { why: "x" } } });
  await first.append({ kind: "writing", ids: ["b", "a"], process: "p1", seq: 7 });
  const left = await open("p2").takeOver();
  expect(left).toEqual([
    { id: "c", draft: draft("c", 1), outcome: null, writings: [] },
    {
      id: "b",
      draft: draft("b", 2),
      outcome: { result: "conflict", detail: { why: "x" } },
      writings: [{ process: "p1", seq: 7 }],
    },
    { id: "a", draft: draft("a", 3), outcome: null, writings: [{ process: "p1", seq: 8 }] },
  ]);
});

test("a file that is just being opened is not removed, whatever is done meanwhile", async () => {
  const journal = open("p1");
  const state = { isWritten: false };
  const begun = begin(journal, "a").then(() => void (state.isWritten = true));
  while (!state.isWritten) {
    journal.done(["earlier"]);
    await setImmediate();
  }
  await begun;
  expect((await open("p2").takeOver()).map(({ id }) => id)).toEqual(["a"]);
});

test("what tells where an entry was written stays as long as the file in which the entry begins", async () => {
  const journal = open("p1");
  const detail = { text: "x".repeat(300_000) };
  /** A line after which the next file is begun. */
  const fill = async (id: string) => await journal.append({ kind: "begun", id, draft: { ...draft(id), detail } });
  await Promise.all([begin(journal, "open"), begin(journal, "written")]);
  await fill("first");
  await journal.append({ kind: "ended", id: "written", outcome: { result: "ok" } });
  await journal.append({ kind: "writing", ids: ["written"], process: "p1", seq: 7 });
  await fill("second");
  expect(files()).toHaveLength(2);
  journal.done(["written", "second"]);
  await journal.append({ kind: "ended", id: "open", outcome: { result: "ok" } });
  const left = await open("p2").takeOver();
  expect(left.find(({ id }) => id === "written")?.writings).toEqual([{ process: "p1", seq: 7 }]);
  journal.done(["first", "open"]);
  await journal.close();
  expect(files()).toEqual([]);
});

test("what two processes one after the other have left is found together; a file is removed when all of its entries are done", async () => {
  await begin(open("p1"), "a");
  await begin(open("p2"), "b");
  // The second one had taken over what the first one left, and was killed while it wrote.
  await open("p3").append({ kind: "writing", ids: ["a"], process: "p3", seq: 2 });
  const last = open("p4");
  const left = await last.takeOver();
  expect(left.map(({ id, writings }) => [id, writings])).toEqual([
    ["a", [{ process: "p3", seq: 2 }]],
    ["b", []],
  ]);
  last.done(["a"]);
  await until("two files are gone", () => files().length === 1);
  expect(files()).toEqual(["p2.1.journal"]);
  last.done(["b"]);
  await until("all files are gone", () => files().length === 0);
});

test("a last line that was never finished counts as never written, and those before it count", async () => {
  const journal = open("p1");
  await begin(journal, "a");
  await begin(journal, "b");
  const text = readFileSync(only(), "utf8");
  for (const cut of [1, 10, 60, 150]) {
    writeFileSync(only(), text.slice(0, -cut));
    expect((await open("p2").takeOver()).map(({ id }) => id)).toEqual(["a"]);
  }
  expect(text).not.toContain("keys.create");
  expect([rejected, errors]).toEqual([[], []]);
});

test("a line that this broker has not written is put aside and told; the lines around it count", async () => {
  const journal = open("p1");
  await begin(journal, "a");
  const forger = createKeyring([{ id: "k1", key: randomBytes(32) }]);
  const json = JSON.stringify({ kind: "begun", id: "forged", draft: draft("mallory") });
  const place = { table: "audit journal", row: "", column: "line", revision: 0 };
  const [line = ""] = readFileSync(only(), "utf8").split("\n");
  const forged = [
    base64(forger.seal(json, place)),
    base64(Buffer.from(line, "base64").fill(7, 80, 90)),
    base64(keyring.seal(json, { ...place, table: "connections" })),
    json,
    "",
  ];
  appendFileSync(only(), forged.map((each) => `${each}\n`).join(""));
  await begin(journal, "c");
  const next = open("p2");
  expect((await next.takeOver()).map(({ id }) => id)).toEqual(["a", "c"]);
  expect(rejected).toEqual([{ file: join(folder, "p1.1.journal.rejected"), lines: 5 }]);
  expect(readFileSync(rejected[0]?.file ?? "", "utf8")).toBe(forged.map((each) => `${each}\n`).join(""));
  next.done(["a", "c"]);
  await until("the file is gone", () => files().length === 1);
  expect(files()).toEqual(["p1.1.journal.rejected"]);
});

test("lines under a key that is gone are put aside, and count again when the key is back and the file has its name", async () => {
  await begin(open("p1"), "a");
  const other = createKeyring([{ id: "k2", key: randomBytes(32) }]);
  expect(await open("p2", other).takeOver()).toEqual([]);
  expect(rejected).toHaveLength(1);
  await until("the file is gone", () => files().length === 1);
  writeFileSync(join(folder, "back.journal"), readFileSync(join(folder, "p1.1.journal.rejected")));
  expect((await open("p3").takeOver()).map(({ id }) => id)).toEqual(["a"]);
});

test("a disk that takes nothing fails each line, and the next one succeeds when it takes them again, in a file of its own", async () => {
  const journal = open("p1");
  writeFileSync(folder, "in the way");
  await expect(begin(journal, "a")).rejects.toMatchObject({ code: "EEXIST" });
  rmSync(folder);
  mkdirSync(folder);
  await begin(journal, "b");
  expect((await open("p2").takeOver()).map(({ id }) => id)).toEqual(["b"]);
});

test("files are followed by new ones before they grow too large, and go when they are done: also ends and begins in different ones", async () => {
  const journal = open("p1");
  await begin(journal, "open");
  const many = Array.from({ length: 4500 }, (_each, number) => `e${number}`);
  for (let from = 0; from < many.length; from += 900) {
    await Promise.all(many.slice(from, from + 900).map((id) => begin(journal, id)));
  }
  await journal.append({ kind: "ended", id: "open", outcome: { result: "ok" } });
  await begin(journal, "last");
  const before = files().length;
  journal.done(many);
  await until("the middle is gone", () => files().length < before);
  const left = (await open("p2").takeOver()).find(({ id }) => id === "open");
  expect(left?.outcome).toEqual({ result: "ok" });
  journal.done(["open", "last"]);
  await journal.close();
  expect(files()).toEqual([]);
});

test("it says under which keys its folder holds lines, of ended processes too, and not of a former key under which nothing is left", async () => {
  const keys = ["k1", "k2"].map((id) => ({ id, key: randomBytes(32) }));
  const ring = createKeyring(keys);
  const journal = open("p1", ring);
  expect(await journal.keyIds()).toEqual([]);
  await journal.takeOver();
  await begin(journal, "a");
  expect(await journal.keyIds()).toEqual(["k1"]);
  ring.use("k2");
  await begin(journal, "b");
  expect(await journal.keyIds()).toEqual(["k1", "k2"]);
  const next = open("p2", createKeyring(keys));
  expect(await next.keyIds()).toEqual(["k1", "k2"]);
  await next.takeOver();
  expect(await next.keyIds()).toEqual(["k1", "k2"]);
  journal.done(["a"]);
  expect(await journal.keyIds()).toEqual(["k2"]);
  journal.done(["b"]);
  // Nothing is written after this change.
  ring.use("k1");
  await journal.keyIds();
  await until("the file is gone", () => files().length === 0);
  expect(await journal.keyIds()).toEqual([]);
});

test("what cannot be read may be under any key", async () => {
  mkdirSync(join(folder, "p0.1.journal"), { recursive: true });
  const ring = createKeyring(["k1", "k2"].map((id) => ({ id, key: randomBytes(32) })));
  const journal = open("p1", ring);
  await journal.takeOver();
  expect(errors).toHaveLength(1);
  expect(await journal.keyIds()).toEqual(["k1", "k2"]);
});

test("a disk that hangs fails a line after 2 s and the next ones at once; what it takes late goes when its entries are done", async () => {
  const clock = manualClock();
  const journal = open("p1", keyring, clock);
  await begin(journal, "a");
  const disk = await hangDisk();
  try {
    const slow = expect(begin(journal, "b")).rejects.toMatchObject({ code: "ETIMEDOUT" });
    await clock.pass(auditTimes.diskMs);
    await slow;
    await expect(begin(journal, "c")).rejects.toMatchObject({ code: "ETIMEDOUT" });
  } finally {
    disk.goOn();
  }
  const begun = async (id: string) =>
    await begin(journal, id).then(
      () => true,
      () => false,
    );
  await until("it takes lines again", async () => await begun("d"));
  journal.done(["a", "b"]);
  await until("the file with the late line is gone", () => files().length === 1);
  expect((await open("p2").takeOver()).map(({ id }) => id)).toEqual(["d"]);
});

test("a disk that hangs does not hold up the end", async () => {
  const clock = manualClock();
  const journal = open("p1", keyring, clock);
  await begin(journal, "a");
  const disk = await hangDisk();
  try {
    void begin(journal, "b").catch(() => {});
    const closed = journal.close();
    await clock.pass(auditTimes.diskMs);
    await closed;
  } finally {
    disk.goOn();
  }
});
