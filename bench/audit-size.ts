import { randomBytes, randomUUID } from "node:crypto";
import { contentOf, draftOf } from "../src/audit/entries.ts";
import { createCounters } from "../src/audit/reads.ts";
import { createWriter } from "../src/audit/writer.ts";
import { createAuditStore } from "../src/store/audit.ts";
import { deafHealth, openPostgres } from "../src/store/database.ts";
import { auditTimes } from "../src/time.ts";
import { createKeyring } from "../src/vault/keyring.ts";
import { provideServices, useDatabase } from "../test/support/services/index.ts";
import { startSuite } from "../test/support/services/suite.ts";

/**
 * How much room the audit takes: a day on which 1,000 callers each read one of 1,000 connections once a minute. The broker's own writer counts
 * the reads, writes the counts every 4 s and adds them up every minute, on a Postgres of its own. Only the clock is moved by hand, so that the
 * day takes some minutes. The argument: how many minutes of the day, 1440 unless it is given.
 */
const minutes = Number(process.argv[2] ?? 1440);
const callers = 1000;
const minuteMs = auditTimes.minuteMs;

const suite = await startSuite();
provideServices(suite.services);
const database = await openPostgres(await useDatabase(), deafHealth);
const beganMs = performance.now();
const startMs = Math.floor(Date.now() / minuteMs) * minuteMs;
let nowMs = startMs;
const id = randomUUID();
const row = (action: "system.start" | "system.stop") => () =>
  contentOf(
    draftOf({ actor: { kind: "system", id: null, name: "bench" }, action, target: null, address: null }, nowMs),
    { result: "ok" },
  );
const writer = createWriter({
  process: id,
  store: createAuditStore(database),
  // Counts have no lines there.
  journal: {
    append: async () => {},
    done() {},
    takeOver: async () => [],
    keyIds: async () => [],
    close: async () => {},
  },
  keyring: createKeyring([{ id: "k1", key: randomBytes(32) }]),
  firstRow: row("system.start"),
  lastRow: row("system.stop"),
  onHead() {},
  wallMs: () => nowMs,
  monotonicMs: () => nowMs - startMs,
});
const { countRead } = createCounters(writer.counts, () => nowMs);
// As keys and connections are called in practice: an id of 12 characters, names of some words.
const actors = Array.from({ length: callers }, (_key, number) => ({
  kind: "key" as const,
  id: randomBytes(9).toString("base64url"),
  name: `billing-worker-${number}`,
}));
/** As the broker does: what fails on a busy machine is done again, and nothing is written twice. */
const untilDone = async (work: () => Promise<void>): Promise<void> => {
  for (let failures = 0; ; failures++) {
    try {
      return await work();
    } catch (error) {
      if (failures === 20) throw error;
    }
  }
};
await untilDone(writer.turn);
for (let minute = 0; minute < minutes; minute++) {
  for (const [number, actor] of actors.entries()) {
    nowMs = startMs + minute * minuteMs + Math.floor((number * minuteMs) / callers);
    if (writer.restMs() === 0) await untilDone(writer.turn);
    countRead({ actor, connection: `shop-${(number * 7 + minute) % callers}-orders`, result: "ok" });
  }
  if (minute % 120 === 119) process.stderr.write(`${minute + 1} of ${minutes} minutes\n`);
}
nowMs = startMs + minutes * minuteMs;
await untilDone(async () => await writer.finish());
const seconds = (performance.now() - beganMs) / 1000;
const [size] = await database.prisma.$queryRaw<{ entries: number; table: number; indexes: number; open: number }[]>`
  SELECT (SELECT count(*) FROM audit.entries WHERE action = 'tokens.read')::float8 AS entries,
    sum(pg_table_size(inhrelid))::float8 AS table, sum(pg_indexes_size(inhrelid))::float8 AS indexes,
    pg_total_relation_size('audit.open_reads')::float8 AS open
  FROM pg_inherits WHERE inhparent = 'audit.entries'::regclass`;
const { entries, table, indexes, open } = size ?? { entries: 0, table: 0, indexes: 0, open: 0 };
const perEntry = (bytes: number) => `${Math.round(bytes / entries)} B`;
const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
process.stdout.write(
  [
    `entries: ${entries} (${minutes} minutes of ${callers} callers), written in ${seconds.toFixed(0)} s`,
    `bytes an entry: ${perEntry(table)} in the table, ${perEntry(indexes)} in its indexes, ${perEntry(table + indexes)} together`,
    `together: ${gib(table)} + ${gib(indexes)} = ${gib(table + indexes)}; counts that are not added up take ${gib(open)}`,
    "",
  ].join("\n"),
);
await database.close();
await suite.stop();
process.exit(0);
