import { Client } from "pg";

/** Every row of every table, as a logical dump holds it. */
export type DatabaseCopy = readonly { table: string; rows: string }[];

/** Reads all tables as they stand at one moment. Others can work on the database meanwhile. */
export async function copyDatabase(databaseUrl: string): Promise<DatabaseCopy> {
  return await withClient(databaseUrl, async (client) => {
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const copy: { table: string; rows: string }[] = [];
    for (const table of await tablesOf(client)) {
      const found = await client.query<{ rows: string }>(
        `SELECT coalesce(json_agg(t), '[]')::text AS rows FROM ${table} t`,
      );
      copy.push({ table, rows: found.rows[0]?.rows ?? "[]" });
    }
    await client.query("COMMIT");
    return copy;
  });
}

/**
 * Replaces all rows by a copy, in one transaction. For a client that is connected, it happens between two of its statements. `afterwards`
 * runs in it too.
 */
export async function restoreTables(databaseUrl: string, copy: DatabaseCopy, afterwards: string): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    await client.query("BEGIN");
    // Foreign keys are not checked, in whatever order the tables come.
    await client.query("SET LOCAL session_replication_role = replica");
    await client.query(`TRUNCATE ${copy.map(({ table }) => table).join(", ")}`);
    for (const { table, rows } of copy) {
      const insert = `INSERT INTO ${table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::${table}, $1)`;
      await client.query(insert, [rows]);
    }
    await advanceSequences(client);
    await client.query(afterwards);
    await client.query("COMMIT");
  });
}

/** Drops a database with all who are connected to it. */
export async function dropDatabase(databaseUrl: string): Promise<void> {
  await onServerOf(databaseUrl, `DROP DATABASE ${nameOf(databaseUrl)} WITH (FORCE)`);
}

/** Gives a database, which nobody is connected to, the name of one that was dropped. */
export async function renameDatabase(fromUrl: string, toUrl: string): Promise<void> {
  await onServerOf(fromUrl, `ALTER DATABASE ${nameOf(fromUrl)} RENAME TO ${nameOf(toUrl)}`);
}

async function tablesOf(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT oid::regclass::text AS name FROM pg_class
      WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> '_prisma_migrations'`,
  );
  return rows.map(({ name }) => name);
}

/** Sequences go on after the highest number that a row of the copy has. */
async function advanceSequences(client: Client): Promise<void> {
  const numbered = await client.query<{ table: string; column: string }>(
    `SELECT table_name AS table, column_name AS column FROM information_schema.columns
      WHERE table_schema = 'public' AND (is_identity = 'YES' OR column_default LIKE 'nextval(%')`,
  );
  for (const { table, column } of numbered.rows) {
    await client.query(`SELECT setval(pg_get_serial_sequence('${table}', '${column}'), coalesce(max(${column}), 0) + 1, false)
      FROM ${table}`);
  }
}

async function onServerOf(databaseUrl: string, statement: string): Promise<void> {
  const url = new URL(databaseUrl);
  url.pathname = "/postgres";
  await withClient(url.href, (client) => client.query(statement));
}

function nameOf(databaseUrl: string): string {
  return new URL(databaseUrl).pathname.slice(1);
}

async function withClient<Result>(databaseUrl: string, work: (client: Client) => Promise<Result>): Promise<Result> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
