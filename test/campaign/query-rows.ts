import { Client } from "pg";

/** For `until`: each question takes a new connection to Postgres, which costs more than the question. */
export const seldom = { everyMs: 250 };

/** Runs one statement on a connection of its own, and gives what it returns. */
export async function queryRows<Row extends object>(databaseUrl: string, statement: string): Promise<Row[]> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return (await client.query<Row>(statement)).rows;
  } finally {
    await client.end();
  }
}
