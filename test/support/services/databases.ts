import { Client } from "pg";

const templateLock = 8_301_557; // any constant: files that start at once ask for this one

/** Creates an empty database on a server and returns its URL. */
export async function createDatabase(serverUrl: string, name: string, template?: string): Promise<string> {
  await withClient(serverUrl, async (client) => {
    await client.query(`CREATE DATABASE ${name}${template ? await copyOf(client, template) : ""}`);
  });
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}

/** Copies the template's files instead of writing them to the log, a third of the work, if the server need not wait for the disk. */
async function copyOf(client: Client, template: string): Promise<string> {
  const { rows } = await client.query<{ isFaster: boolean }>(
    `SELECT current_setting('fsync') = 'off' AND current_setting('server_version_num')::int >= 150000 AS "isFaster"`,
  );
  return ` TEMPLATE ${template}${rows[0]?.isFaster ? " STRATEGY file_copy" : ""}`;
}

/**
 * Makes the template that databases are cloned from, once per run: files that ask at the same time wait for the first.
 * A template is built under another name, so that one whose migration failed is never taken for a whole one.
 */
export async function ensureTemplate(
  serverUrl: string,
  name: string,
  migrate: (databaseUrl: string) => Promise<void>,
): Promise<void> {
  await withClient(serverUrl, async (client) => {
    await client.query("SELECT pg_advisory_lock($1)", [templateLock]);
    const found = await client.query("SELECT 1 FROM pg_database WHERE datname = $1", [name]);
    if (found.rowCount) return;
    const building = `${name}_building`;
    await client.query(`DROP DATABASE IF EXISTS ${building}`);
    await migrate(await createDatabase(serverUrl, building));
    await client.query(`ALTER DATABASE ${building} RENAME TO ${name}`);
  });
}

/** Drops every database and every role of a server whose name starts with `prefix`, connected clients or not. */
export async function dropDatabases(serverUrl: string, prefix: string): Promise<void> {
  await withClient(serverUrl, async (client) => {
    const found = await client.query<{ name: string }>(
      "SELECT datname AS name FROM pg_database WHERE starts_with(datname, $1)",
      [prefix],
    );
    for (const { name } of found.rows) await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    const roles = await client.query<{ name: string }>(
      "SELECT rolname AS name FROM pg_roles WHERE starts_with(rolname, $1)",
      [prefix],
    );
    for (const { name } of roles.rows) await client.query(`DROP ROLE IF EXISTS ${name}`);
  });
}

async function withClient(serverUrl: string, work: (client: Client) => Promise<void>): Promise<void> {
  const client = new Client({ connectionString: serverUrl });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
