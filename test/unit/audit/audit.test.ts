import { randomBytes, randomUUID } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createAudit } from "../../../src/audit/audit.ts";
import type { NewEntry } from "../../../src/audit/entries.ts";
import { createJournal } from "../../../src/audit/journal.ts";
import { BrokerError } from "../../../src/errors.ts";
import type { AuditStore, AuditTransaction, ChainedEntry } from "../../../src/store/audit.ts";
import { auditTimes } from "../../../src/time.ts";
import { createKeyring, keyIdOfProof } from "../../../src/vault/keyring.ts";
import { until } from "../../support/patience.ts";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { type ManualClock, manualClock } from "../tokens/manual-clock.ts";
import { hangDisk } from "./hanging-disk.ts";

const keyring = createKeyring([{ id: "k1", key: randomBytes(32) }]);
const entry: NewEntry = {
  actor: { kind: "key", id: "k", name: "n" },
  action: "connections.delete",
  target: { kind: "connection", name: "c" },
  address: null,
};

/**
 * A process with a database that takes what is written, or does not answer, or fails; and a disk that works or does not. `hangsMs`: how long its
 * start waits for the disk.
 */
async function start({ disk = true, mostWaiting = 20_000, batches = 0, hangsMs = 0, folder = "" } = {}) {
  if (folder === "") folder = join((await temporaryFolder("audit")).path, "audit");
  if (!disk) writeFileSync(folder, "in the way");
  const rows: ChainedEntry[] = [];
  const counts: number[] = [];
  const database: { does: "answer" | "hang" | "fail" } = { does: "answer" };
  /** How many batches of old entries are left to remove. */
  const maintenance = { batches };
  const transaction: AuditTransaction = {
    has: async () => false,
    insert: async (given) => void rows.push(...given),
    insertCounts: async (_flush, given) => void counts.push(...given.flatMap((each) => each.counts)),
    takeCounts: async () => [],
    newest: async () => [],
  };
  const store = {
    async write(_process: string, work: (transaction: AuditTransaction) => Promise<unknown>) {
      if (database.does === "hang") await new Promise(() => {});
      if (database.does === "fail") throw new BrokerError("storage_unavailable", "away");
      return await work(transaction);
    },
    newestSeq: async () => 0,
    openCounts: async () => 0,
    maintain: async () => (maintenance.batches === 0 ? 0 : maintenance.batches--),
  } as unknown as AuditStore;
  const clock = manualClock();
  const troubles: unknown[] = [];
  const process = randomUUID();
  const audit = createAudit({
    store,
    folder,
    keyring,
    keyIdOf: keyIdOfProof,
    self: { replica: randomUUID(), name: "test", version: "1.0.0" },
    process,
    retentionDays: 400,
    clock,
    onHead() {},
    onTrouble: (error) => void troubles.push(error),
    onWell() {},
    onDiskTrouble: (error) => void troubles.push(error),
    onDiskWell() {},
    onRejected() {},
    mostWaiting,
  });
  const started = audit.start();
  await clock.pass(hangsMs);
  await started;
  await until("the first row is written", () => rows.length === 1);
  /** The disk works again. */
  const repair = () => rmSync(folder);
  return { audit, rows, counts, maintenance, database, clock, troubles, folder, repair };
}

/** What comes of it, the code of an error included, while the clock passes. */
async function outcomeOf(work: Promise<unknown>, clock: ManualClock): Promise<unknown> {
  const done: unknown[] = [];
  void work.then(
    (value) => done.push(value ?? "done"),
    (error: unknown) => done.push((error as BrokerError).code),
  );
  await until("it is done", async () => {
    await clock.pass(auditTimes.directMs);
    return done.length > 0;
  });
  return done[0];
}

/** What the next process would find. */
async function leftIn(folder: string) {
  const next = createJournal({ folder, keyring, process: "next", clock: manualClock(), onRejected() {}, onError() {} });
  return await next.takeOver();
}

async function untilWritten(rows: readonly unknown[], count: number, clock: ManualClock): Promise<void> {
  await until("they are written", async () => {
    await clock.pass(auditTimes.retryMaxMs);
    return rows.length >= count;
  });
}

test("while the database does not answer, entries are in DATA_DIR: nobody waits, and no clock has to move", async () => {
  const { audit, database, folder, rows } = await start();
  database.does = "hang";
  for (let count = 0; count < 3; count++) {
    await audit.end(await audit.begin(entry), { result: "ok" });
    audit.countRead({ actor: entry.actor, connection: "c", result: "ok" });
    audit.countRefused();
  }
  expect(rows).toHaveLength(1);
  expect(await leftIn(folder)).toHaveLength(3);
});

test("without room in DATA_DIR a change is begun in the database, with an entry of its own, and refused where that takes nothing either", async () => {
  const { audit, database, rows, clock } = await start({ disk: false });
  const begun = await audit.begin(entry);
  expect(rows.at(-1)).toMatchObject({ action: "connections.delete", result: "begun" });
  await audit.end(begun, { result: "ok" });
  expect(rows.at(-1)).toMatchObject({ result: "ok", seq: 3 });
  expect(JSON.parse(rows.at(-1)?.detail ?? "")).toEqual({ begun: `${rows[0]?.process}:2` });
  for (const does of ["hang", "fail"] as const) {
    database.does = does;
    expect(await outcomeOf(audit.begin(entry), clock)).toBe("storage_unavailable");
  }
});

test("what must not fail does not, and its entry waits in memory until the database takes it", async () => {
  const { audit, database, rows, clock } = await start({ disk: false });
  database.does = "fail";
  const begun = await audit.begin(entry, { mustNotFail: true });
  expect(await outcomeOf(audit.end(begun, { result: "ok" }), clock)).toBe("done");
  expect(rows).toHaveLength(1);
  database.does = "answer";
  await untilWritten(rows, 2, clock);
  expect(rows.at(-1)).toMatchObject({ action: "connections.delete", result: "ok" });
});

test("a change that was refused while its begin was on the way has an end that says so; one that nobody had tried has left nothing", async () => {
  const { audit, database, rows, clock, troubles } = await start({ disk: false });
  database.does = "fail";
  const tried = troubles.length;
  const first = audit.begin(entry);
  await until("the database has refused it", () => troubles.length > tried + 1);
  const results = await Promise.all([first, audit.begin(entry)].map(async (each) => await outcomeOf(each, clock)));
  expect(results).toEqual(["storage_unavailable", "storage_unavailable"]);
  database.does = "answer";
  await untilWritten(rows, 3, clock);
  expect(rows.map(({ result }) => result)).toEqual(["ok", "begun", "storage_unavailable"]);
});

test("with too many entries that wait for the database, changes are refused, and what must not fail is not", async () => {
  const { audit, database, rows, clock } = await start({ mostWaiting: 50 });
  database.does = "fail";
  const all = Array.from({ length: 50 }, async () => await audit.end(await audit.begin(entry), { result: "ok" }));
  await Promise.all(all);
  await expect(audit.begin(entry)).rejects.toMatchObject({ code: "storage_unavailable" });
  const begun = await audit.begin(entry, { mustNotFail: true });
  await audit.end(begun, { result: "ok" });
  database.does = "answer";
  await untilWritten(rows, 52, clock);
  await audit.end(await audit.begin(entry), { result: "ok" });
});

test("at an orderly end while the database is away, entries and counts stay in DATA_DIR", async () => {
  const { audit, database, folder } = await start();
  database.does = "fail";
  await audit.end(await audit.begin(entry), { result: "ok" });
  for (let count = 0; count < 5; count++) audit.countRead({ actor: entry.actor, connection: "c", result: "ok" });
  await audit.stop();
  const left = await leftIn(folder);
  expect(left.map(({ draft, outcome }) => [draft.action, draft.detail["count"], outcome?.result])).toEqual(
    expect.arrayContaining([
      ["connections.delete", undefined, "ok"],
      ["tokens.read", 5, "ok"],
    ]),
  );
});

test("counts of reads are written every 4 s, also where an entry is written in between", async () => {
  const { audit, counts, rows, clock } = await start();
  const read = () => audit.countRead({ actor: entry.actor, connection: "c", result: "ok" });
  read();
  while (counts.length === 0) await clock.pass(100);
  read();
  await clock.pass(auditTimes.countsMs - 200);
  await audit.end(await audit.begin(entry), { result: "ok" });
  await until("the entry is written", () => rows.length === 2);
  expect(counts).toHaveLength(1);
  await clock.pass(300);
  expect(counts).toHaveLength(2);
});

test("old entries are removed one batch at a time, and others are written in between", async () => {
  const { audit, rows, clock, maintenance } = await start({ batches: 3 });
  expect(maintenance.batches).toBe(2);
  await audit.end(await audit.begin(entry), { result: "ok" });
  await until("the entry is written", () => rows.length === 2);
  expect(maintenance.batches).toBe(1);
  await clock.pass(auditTimes.countsMs);
  expect(maintenance.batches).toBe(0);
});

test("while DATA_DIR hangs, a change is begun in the database after 2 s; what must not fail goes on, and is written once", async () => {
  const { audit, rows, clock, folder } = await start();
  await audit.end(await audit.begin(entry), { result: "ok" });
  await until("it is written", () => rows.length === 2);
  const disk = await hangDisk();
  try {
    const first = audit.begin(entry);
    const atLink = audit.begin({ ...entry, action: "consents.complete" }, { mustNotFail: true });
    await clock.pass(auditTimes.diskMs);
    await audit.end(await first, { result: "ok" });
    await audit.end(await atLink, { result: "ok" });
    await audit.end(await audit.begin(entry), { result: "ok" });
  } finally {
    disk.goOn();
  }
  const written = rows.slice(2).map(({ action, result }) => `${action} ${result}`);
  expect(written).toEqual([
    "connections.delete begun",
    "connections.delete ok",
    "consents.complete ok",
    "connections.delete begun",
    "connections.delete ok",
  ]);
  await until("nothing is left there", async () => (await leftIn(folder)).length === 0);
});

test("a disk that hangs at the start holds it up for 2 s: anything may be there, and what is there is written when the disk answers", async () => {
  const before = await start();
  before.database.does = "fail";
  await before.audit.end(await before.audit.begin(entry), { result: "ok" });
  const disk = await hangDisk();
  const { audit, rows, clock } = await start({ folder: before.folder, hangsMs: auditTimes.diskMs });
  try {
    const held = audit.heldKeyIds();
    await clock.pass(auditTimes.diskMs);
    expect([await held, await audit.heldKeyIds()]).toEqual([["k1"], ["k1"]]);
  } finally {
    disk.goOn();
  }
  await untilWritten(rows, 2, clock);
  expect(rows.at(-1)).toMatchObject({ action: "connections.delete", result: "ok" });
});

test("entries and counts that stay in DATA_DIR at the end are told as held, under their key", async () => {
  const { audit, database } = await start();
  database.does = "fail";
  audit.countRead({ actor: entry.actor, connection: "c", result: "ok" });
  expect(await audit.heldKeyIds()).toEqual([]);
  await audit.stop();
  expect(await audit.heldKeyIds()).toEqual(["k1"]);
});
