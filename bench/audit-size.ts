import { randomBytes, randomUUID } from "node:crypto";
import { chainTo, emptyChain } from "../src/audit/chain.ts";
import { deafHealth, openPostgres } from "../src/store/database.ts";
import { createAuditStore, type EntryContent } from "../src/store/audit.ts";
import { createKeyring } from "../src/vault/keyring.ts";

/**
 * How much room the audit takes: 1,000 callers that read one of 1,000 connections each minute make 1,000 entries a minute. Writes the entries of
 * an hour, as the broker does it, and tells what a day of it comes to. DATABASE_URL: an empty database.
 */
const minutes = Number(process.argv[2] ?? 60);
const callers = 1000;
const databaseUrl = process.env["DATABASE_URL"] ?? "";

const database = await openPostgres(databaseUrl, deafHealth);
const store = createAuditStore(database);
const keyring = createKeyring([{ id: "k1", key: randomBytes(32) }]);
const id = randomUUID();
// As keys and connections are called in practice: an id of 12 characters, names of some words.
const keys = Array.from({ length: callers }, (_key, number) => ({
  id: randomBytes(9).toString("base64url"),
  name: `billing-worker-${number}`,
}));
let end = emptyChain(id);
const startMs = Date.now() - minutes * 60_000;
const beganMs = performance.now();
for (let minute = 0; minute < minutes; minute++) {
  const contents = keys.map(({ id: actorId, name: actorName }, number): EntryContent => {
    const at = new Date(startMs + minute * 60_000 + number * 50);
    const detail = { count: 1, first: at.toISOString(), last: at.toISOString() };
    return {
      at,
      actorKind: "key",
      actorId,
      actorName,
      action: "tokens.read",
      targetKind: "connection",
      targetName: `shop-${(number * 7) % callers}-orders`,
      address: null,
      result: "ok",
      detail: JSON.stringify(detail),
    };
  });
  const rows = chainTo(end, contents, keyring);
  const last = rows.at(-1);
  if (last !== undefined) end = { process: id, seq: last.seq, hash: last.hash, mac: last.mac };
  await store.write(id, async (transaction) => await transaction.insert(rows));
}
const seconds = (performance.now() - beganMs) / 1000;
const [size] = await database.prisma.$queryRaw<{ table: number; indexes: number }[]>`
  SELECT sum(pg_table_size(inhrelid))::float8 AS table, sum(pg_indexes_size(inhrelid))::float8 AS indexes
  FROM pg_inherits WHERE inhparent = 'audit.entries'::regclass`;
const entries = minutes * callers;
const { table, indexes } = size ?? { table: 0, indexes: 0 };
const perEntry = (bytes: number) => `${Math.round(bytes / entries)} B`;
const perDay = (bytes: number) => `${(((bytes / minutes) * 1440) / 2 ** 30).toFixed(2)} GiB`;
process.stdout.write(
  [
    `entries: ${entries} (${minutes} minutes of ${callers} callers), written in ${seconds.toFixed(1)} s, ${Math.round(entries / seconds)} a second`,
    `bytes an entry: ${perEntry(table)} in the table, ${perEntry(indexes)} in its indexes, ${perEntry(table + indexes)} together`,
    `a day of it, scaled from ${minutes} minutes: ${(entries / minutes) * 1440} entries, ${perDay(table)} + ${perDay(indexes)} = ${perDay(table + indexes)}`,
    "",
  ].join("\n"),
);
await database.close();
