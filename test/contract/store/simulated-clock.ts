import { query } from "../../support/query.ts";
import type { Database } from "../../../src/store/database.ts";

/** Makes `clock_timestamp()` and `statement_timestamp()` the time that a test sets, in every session that begins after this. */
export async function simulateClock(databaseUrl: string): Promise<void> {
  const run = async (sql: string) => await query(databaseUrl, sql);
  await run("CREATE SCHEMA simulated");
  await run("CREATE TABLE simulated.now AS SELECT clock_timestamp() AS at");
  await run(`CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT at FROM simulated.now $$`);
  await run(`CREATE FUNCTION simulated.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT at FROM simulated.now $$`);
  for (const column of ["candidates.created_at", "tombstones.deleted_at", "connection_events.at"]) {
    const [table, name] = column.split(".");
    await run(`ALTER TABLE ${table} ALTER COLUMN ${name} SET DEFAULT simulated.clock_timestamp()`);
  }
  const name = new URL(databaseUrl).pathname.slice(1);
  await run(`ALTER DATABASE ${name} SET search_path = simulated, public, pg_catalog`);
}

/** For all sessions. */
export async function setClock({ prisma }: Database, now: Date): Promise<void> {
  await prisma.$executeRaw`UPDATE simulated.now SET at = ${now}`;
}
