import { Pool } from "pg";

/**
 * A session is kept for the next statement on the same database: a new one costs Postgres more than most statements do, and some tests ask
 * until an answer has come.
 */
const pools = new Map<string, Pool>();
/** What Postgres calls these sessions. */
export const testsName = "tests";

/** One SQL statement on a broker's database. It must leave its session as it was. */
export async function query<Row extends Record<string, unknown>>(
  databaseUrl: string,
  text: string,
  values: unknown[] = [],
): Promise<Row[]> {
  return (await poolOf(databaseUrl).query<Row>(text, values)).rows;
}

function poolOf(connectionString: string): Pool {
  const known = pools.get(connectionString);
  if (known !== undefined) return known;
  const pool = new Pool({ connectionString, application_name: testsName, allowExitOnIdle: true });
  pool.on("error", () => {
    // The server has ended a session that nobody uses.
  });
  pools.set(connectionString, pool);
  return pool;
}
