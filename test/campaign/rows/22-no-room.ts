import { Client } from "pg";
import { fillDisk } from "../../support/faults/full-disk.ts";
import { lostOnes } from "../crash-tools.ts";
import { type Ground, openGround } from "../fleets.ts";
import type { Given, Row } from "../row.ts";
import { connectMany, offences, readUntilServed } from "../tools.ts";

export const row: Row = {
  number: 22,
  title: "Postgres read-only: requests to the provider; disk full: losses",
  promised: "0; 0",
  plays: { how: "in turn" },
  async run(given) {
    await using ground = await openGround(given, row, { replicas: 1 });
    const sent = await readOnly(given, ground);
    const kept = await fullDisks(given, ground);
    return {
      ok: sent === 0 && kept.count > 0 && kept.lost === 0 && kept.reuses === 0,
      figure: `${sent} requests while read-only; ${kept.lost} of ${kept.count} lost on full disks (Postgres's and the broker's), ${kept.reuses} reuses`,
    };
  },
};

const countOf = ({ scale }: Given) => (scale === "full" ? 100 : 5);

/** @returns how many requests reached the provider while Postgres took no writes */
async function readOnly(given: Given, { stage, databaseUrl }: Ground): Promise<number> {
  const names = (await connectMany(stage, countOf(given), "read-only")).map(({ name }) => name);
  await setReadOnly(databaseUrl, true);
  const codes = await Promise.all(names.map(async (name) => (await stage.first.api.token(name)).body.code));
  const sent = stage.provider.ledger.requestsTo("token").length;
  given.log(`read-only: ${new Set(codes).size === 1 ? "all" : "some"} answered with ${[...new Set(codes)].join(", ")}`);
  await setReadOnly(databaseUrl, false);
  await readUntilServed(stage.first, names);
  return sent;
}

/** For all sessions, those that are open included. */
async function setReadOnly(databaseUrl: string, isReadOnly: boolean): Promise<void> {
  await query(databaseUrl, [
    "SET default_transaction_read_only = off",
    `ALTER DATABASE ${new URL(databaseUrl).pathname.slice(1)} SET default_transaction_read_only = ${isReadOnly}`,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`,
  ]);
}

/**
 * Postgres has no room for any answer, and neither has the broker's own disk: Redis holds the only copies. The broker is
 * killed, and there is room again. @returns how many grants were lost
 */
async function fullDisks(given: Given, { stage, databaseUrl }: Ground) {
  const connections = await connectMany(stage, countOf(given), "disk-full");
  const names = connections.map(({ name }) => name);
  await query(databaseUrl, noRoom);
  await fillDisk(stage.first.pid, true);
  // If a caller has a token, there is a durable copy of it. If a slow Redis has not taken the answer, there is none: W2.
  const statuses = await Promise.all(
    names.map(async (name) => (await stage.first.api.token(name, { wait: 30 })).status),
  );
  const copied = names.filter((_name, index) => statuses[index] === 200);
  given.log(`full: ${copied.length} of ${names.length} have a token`);
  await stage.first.kill();
  await query(databaseUrl, roomAgain);
  await stage.first.start();
  const allLost = await lostOnes(stage.first, names);
  const lost = allLost.filter((name) => copied.includes(name)).length;
  const { reuses } = offences(stage.provider.ledger);
  return { lost, count: copied.length, reuses: reuses - (allLost.length - lost) };
}

/** What a full disk does to the statement that stores an answer, and to no other (disk_full, 53100). */
const noRoom = [
  `CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$`,
  `CREATE TRIGGER no_room BEFORE UPDATE ON connections FOR EACH ROW
    WHEN (NEW.generation > OLD.generation) EXECUTE FUNCTION no_room()`,
];
const roomAgain = ["DROP TRIGGER no_room ON connections", "DROP FUNCTION no_room()"];

async function query(databaseUrl: string, statements: readonly string[]): Promise<void> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  for (const statement of statements) await client.query(statement);
  await client.end();
}
