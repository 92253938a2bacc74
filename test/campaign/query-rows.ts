import { Client } from "pg";

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
