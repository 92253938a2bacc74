import type { Database } from "../../../src/store/database.ts";

/** In a database of one session, makes `clock_timestamp()` and `statement_timestamp()` the time that a test sets. */
export async function simulateClock({ prisma }: Database): Promise<(now: Date) => Promise<void>> {
  await prisma.$executeRawUnsafe("CREATE SCHEMA simulated");
  await prisma.$executeRawUnsafe(`CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT current_setting('simulated.now')::timestamptz $$`);
  await prisma.$executeRawUnsafe(`CREATE FUNCTION simulated.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT current_setting('simulated.now')::timestamptz $$`);
  for (const column of ["candidates.created_at", "tombstones.deleted_at", "connection_events.at"]) {
    const [table, name] = column.split(".");
    await prisma.$executeRawUnsafe(`ALTER TABLE ${table} ALTER COLUMN ${name} SET DEFAULT simulated.clock_timestamp()`);
  }
  await prisma.$executeRawUnsafe("SET search_path = simulated, public, pg_catalog");
  return async (now) => {
    await prisma.$executeRawUnsafe(`SET simulated.now = '${now.toISOString()}'`);
  };
}
