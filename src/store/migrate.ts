import { createHash, randomUUID } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { Client } from "pg";
import { StartupError } from "../errors.ts";
import { projectRoot } from "../root.ts";

const migrationsFolder = new URL("prisma/migrations/", projectRoot);
/** Any constant of our own: all replicas that start at once ask for this one. */
export const migrationLock = 5_721_990_142;
const oldestServer = 14;

/** What migrations need of a database session: several statements in one call, outside of any pool. */
export type MigrationSession = {
  execute(sql: string): Promise<void>;
  query<Row>(sql: string, parameters?: unknown[]): Promise<Row[]>;
};

type Migration = { name: string; sql: string; checksum: string };

/** What is to be done on the same session when the schema is this version's. */
export type Afterwards = (session: MigrationSession) => Promise<void>;

type Target = { databaseUrl: string; afterwards?: Afterwards | undefined };

/** Brings a Postgres database to this version's schema. @throws StartupError when it is too old or half migrated. */
export async function applyMigrations({ databaseUrl, afterwards }: Target): Promise<void> {
  const client = new Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000 });
  client.on("error", () => {}); // a lost connection fails the query that waits, too
  await client.connect();
  try {
    const session: MigrationSession = {
      execute: async (sql) => void (await client.query(sql)),
      query: async <Row>(sql: string, parameters: unknown[] = []) =>
        (await client.query(sql, parameters)).rows as Row[],
    };
    await applyMigrationsTo(session);
    await afterwards?.(session);
  } finally {
    await client.end();
  }
}

/**
 * Applies what is missing of prisma/migrations, each in one transaction under an advisory lock, and records it as
 * Prisma Migrate does, so that `prisma migrate deploy` and `status` agree with it.
 */
export async function applyMigrationsTo(session: MigrationSession): Promise<void> {
  await requireServerVersion(session);
  const migrations = await readMigrations();
  if (await areApplied(session, migrations)) return;
  for (const migration of migrations) {
    await session.execute("BEGIN");
    try {
      await session.query("SELECT pg_advisory_xact_lock($1)::text", [migrationLock]);
      await applyOnce(session, migration);
      await session.execute("COMMIT");
    } catch (error) {
      await session.execute("ROLLBACK");
      throw error;
    }
  }
}

async function requireServerVersion(session: MigrationSession): Promise<void> {
  const [row] = await session.query<{ version: string }>("SELECT current_setting('server_version_num') AS version");
  const major = Math.floor(Number(row?.version) / 10_000);
  if (major < oldestServer) {
    throw new StartupError(`DATABASE_URL leads to Postgres ${major}; ${oldestServer} or later is needed`);
  }
}

/** At most starts nothing is to be done, and no lock is needed to see it. */
async function areApplied(session: MigrationSession, migrations: readonly Migration[]): Promise<boolean> {
  const [table] = await session.query<{ found: boolean }>(
    "SELECT to_regclass('_prisma_migrations') IS NOT NULL AS found",
  );
  if (table?.found !== true) return false;
  const applied = await session.query<{ name: string }>(
    `SELECT migration_name AS name FROM _prisma_migrations
     GROUP BY migration_name HAVING bool_and(finished_at IS NOT NULL OR rolled_back_at IS NOT NULL)
       AND bool_or(finished_at IS NOT NULL AND rolled_back_at IS NULL)`,
  );
  const names = new Set(applied.map(({ name }) => name));
  return migrations.every(({ name }) => names.has(name));
}

/** What stands in prisma/migrations, in the order in which it is applied. */
export async function readMigrations(): Promise<Migration[]> {
  const entries = await readdir(migrationsFolder, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return await Promise.all(
    names.sort().map(async (name) => {
      const sql = await readFile(new URL(`${name}/migration.sql`, migrationsFolder), "utf8");
      return { name, sql, checksum: createHash("sha256").update(sql).digest("hex") };
    }),
  );
}

async function applyOnce(session: MigrationSession, { name, sql, checksum }: Migration): Promise<void> {
  await session.execute(migrationsTable);
  const records = await session.query<{ finished: boolean }>(
    `SELECT finished_at IS NOT NULL AS finished FROM _prisma_migrations
     WHERE migration_name = $1 AND rolled_back_at IS NULL`,
    [name],
  );
  if (records.some(({ finished }) => !finished)) {
    throw new StartupError(
      `DATABASE_URL: migration ${name} has failed there before; see "prisma migrate resolve", then start again`,
    );
  }
  if (records.length > 0) return;
  await session.execute(sql);
  await session.query(
    `INSERT INTO _prisma_migrations (id, checksum, finished_at, migration_name, applied_steps_count)
     VALUES ($1, $2, now(), $3, 1)`,
    [randomUUID(), checksum, name],
  );
}

const migrationsTable = `CREATE TABLE IF NOT EXISTS _prisma_migrations (
  id VARCHAR(36) PRIMARY KEY NOT NULL,
  checksum VARCHAR(64) NOT NULL,
  finished_at TIMESTAMPTZ,
  migration_name VARCHAR(255) NOT NULL,
  logs TEXT,
  rolled_back_at TIMESTAMPTZ,
  started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  applied_steps_count INTEGER NOT NULL DEFAULT 0
)`;
