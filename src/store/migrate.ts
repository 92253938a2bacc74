import { createHash, randomUUID } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { Client } from "pg";
import manifest from "../../package.json" with { type: "json" };
import { StartupError } from "../errors.ts";
import { projectRoot } from "../root.ts";
import { storeTimes } from "../time.ts";
import { findRuntimeRole, grantToRuntimeRole, requireLittleOf } from "./roles.ts";

const migrationsFolder = new URL("prisma/migrations/", projectRoot);
/** The id of the advisory lock: an arbitrary constant, the same for all replicas that start. */
export const migrationLock = 5_721_990_142;
const oldestServer = 14;

/** What migrations need of a database session: several statements in one call, outside of any pool. */
export type MigrationSession = {
  execute(sql: string): Promise<void>;
  query<Row>(sql: string, parameters?: unknown[]): Promise<Row[]>;
};

/** `breaks`: the last version that cannot work with the schema after this migration; null: all earlier ones can. */
type Migration = { name: string; sql: string; checksum: string; breaks: string | null };

/** Called on the same session when the schema is this version's. */
export type Afterwards = (session: MigrationSession) => Promise<void>;

/** `runtimeUrl`: of the role that the broker runs with, where `databaseUrl` is that of the role which migrates. */
type Target = {
  databaseUrl: string;
  runtimeUrl?: string | undefined;
  afterwards?: Afterwards | undefined;
  onWarning?: OnWarning;
};

/** Called at the start for an odd schema that does not prevent the start. */
export type OnWarning = (text: string) => void;

/** The migrations that a version has, and which one it is. */
export type Known = { migrations: readonly Migration[]; version: string };

/**
 * Migrates a Postgres database to this version's schema, and gives the runtime role, if there is one, its rights.
 * @throws StartupError when Postgres is too old, the database is half migrated, or the runtime role is another database's or may do too much
 */
export async function applyMigrations({ databaseUrl, runtimeUrl, afterwards, onWarning }: Target): Promise<void> {
  const client = new Client({ connectionString: databaseUrl, connectionTimeoutMillis: storeTimes.migrationConnectMs });
  client.on("error", () => {}); // a lost connection also fails the query that is running
  await client.connect();
  try {
    const session: MigrationSession = {
      execute: async (sql) => void (await client.query(sql)),
      query: async <Row>(sql: string, parameters: unknown[] = []) =>
        (await client.query(sql, parameters)).rows as Row[],
    };
    const runtimeRole = runtimeUrl === undefined ? null : await findRuntimeRole(session, runtimeUrl);
    await applyMigrationsTo(session, onWarning === undefined ? {} : { onWarning });
    if (runtimeRole !== null) {
      await underMigrationLock(session, async () => await grantToRuntimeRole(session, runtimeRole));
      await requireLittleOf(session, runtimeRole);
    }
    await afterwards?.(session);
  } finally {
    await client.end();
  }
}

/**
 * Applies the missing migrations of prisma/migrations, each in one transaction under an advisory lock, and records them as Prisma Migrate
 * does, so that `prisma migrate deploy` and `status` agree.
 *
 * This version also works with the schema of a newer version, so that an operator can go back, unless one of the newer migrations breaks it:
 * a line `-- breaks: 1.2.3` in its SQL names the last version that cannot work with it. It is stored in the column `logs` of the record,
 * since this version does not have the file.
 * @throws StartupError also for a migration that was applied with another content than this version has
 */
export async function applyMigrationsTo(
  session: MigrationSession,
  { onWarning = () => {}, known }: { onWarning?: OnWarning; known?: Known } = {},
): Promise<void> {
  await requireServerVersion(session);
  const { migrations, version } = known ?? { migrations: await readMigrations(), version: manifest.version };
  const applied = await appliedTo(session);
  requireOwnContent(migrations, applied);
  tellNewer(unknownTo(migrations, applied), version, onWarning);
  if (!migrations.every(({ name }) => applied.has(name))) {
    for (const migration of migrations) {
      await underMigrationLock(session, async () => await applyOnce(session, migration));
    }
  }
  for (const { name, breaks } of migrations) {
    // Applied by Prisma's own command.
    if (breaks !== null && applied.get(name)?.logs === null) await noteBreaks(session, { name, breaks });
  }
}

async function underMigrationLock(session: MigrationSession, work: () => Promise<void>): Promise<void> {
  await session.execute("BEGIN");
  try {
    await session.query("SELECT pg_advisory_xact_lock($1)::text", [migrationLock]);
    await work();
    await session.execute("COMMIT");
  } catch (error) {
    await session.execute("ROLLBACK");
    throw error;
  }
}

async function requireServerVersion(session: MigrationSession): Promise<void> {
  const [row] = await session.query<{ version: string }>("SELECT current_setting('server_version_num') AS version");
  const major = Math.floor(Number(row?.version) / 10_000);
  if (major < oldestServer) {
    throw new StartupError(`DATABASE_URL leads to Postgres ${major}; ${oldestServer} or later is needed`);
  }
}

type Applied = ReadonlyMap<string, { checksum: string; logs: string | null }>;

/** Migrations that are finished in this database. At most starts nothing is to be done, and no lock is needed to see that. */
async function appliedTo(session: MigrationSession): Promise<Applied> {
  const [table] = await session.query<{ found: boolean }>(
    "SELECT to_regclass('_prisma_migrations') IS NOT NULL AS found",
  );
  if (table?.found !== true) return new Map();
  const applied = await session.query<{ name: string; checksum: string; logs: string | null }>(
    `SELECT migration_name AS name, checksum, logs FROM _prisma_migrations m
     WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL AND NOT EXISTS (SELECT 1 FROM _prisma_migrations o
       WHERE o.migration_name = m.migration_name AND o.finished_at IS NULL AND o.rolled_back_at IS NULL)`,
  );
  return new Map(applied.map(({ name, ...rest }) => [name, rest]));
}

/** Refuses a database with a failed migration: its schema is unknown. */
function requireOwnContent(migrations: readonly Migration[], applied: Applied): void {
  const other = migrations.find(({ name, checksum }) => (applied.get(name)?.checksum ?? checksum) !== checksum);
  if (other === undefined) return;
  throw new StartupError(
    `DATABASE_URL: migration ${other.name} was applied there with another content than this version's, so its schema may be another one; start the version that applied it, or restore a backup from before`,
  );
}

function unknownTo(migrations: readonly Migration[], applied: Applied): { name: string; breaks: string | null }[] {
  const own = new Set(migrations.map(({ name }) => name));
  return [...applied]
    .filter(([name]) => !own.has(name))
    .map(([name, { logs }]) => ({ name, breaks: breaksOf(logs ?? "") }));
}

/** @throws StartupError where one of them breaks this version */
function tellNewer(
  newer: readonly { name: string; breaks: string | null }[],
  version: string,
  onWarning: OnWarning,
): void {
  const breaking = newer.find(({ breaks }) => breaks !== null && !isLater(version, breaks));
  if (breaking !== undefined) {
    throw new StartupError(
      `DATABASE_URL: a newer version has applied migration ${breaking.name}, with which no version up to ${breaking.breaks} works, and this is ${version}; start a later version, or restore a backup from before`,
    );
  }
  if (newer.length === 0) return;
  const names = newer.map(({ name }) => name).join(", ");
  onWarning(`The database has migrations of a newer version (${names}); this version, ${version}, works with them.`);
}

/** Reads the `breaks` line of a migration's SQL, or of its record. */
function breaksOf(text: string): string | null {
  return /^-- breaks: (\S+)\s*$/m.exec(text)?.[1] ?? null;
}

/** False if one of them cannot be read, so that a database with a version that nobody can compare is refused. */
function isLater(version: string, than: string): boolean {
  const [own, other] = [version, than].map((text) => /^(\d+)\.(\d+)\.(\d+)/.exec(text)?.slice(1).map(Number));
  if (own === undefined || other === undefined) return false;
  const at = own.findIndex((part, index) => part !== other[index]);
  return at >= 0 && (own[at] ?? 0) > (other[at] ?? 0);
}

async function noteBreaks(
  session: MigrationSession,
  { name, breaks }: { name: string; breaks: string },
): Promise<void> {
  await session.query("UPDATE _prisma_migrations SET logs = $2 WHERE migration_name = $1 AND logs IS NULL", [
    name,
    `-- breaks: ${breaks}`,
  ]);
}

/** The migrations of prisma/migrations, in the order in which they are applied. */
export async function readMigrations(): Promise<Migration[]> {
  const entries = await readdir(migrationsFolder, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return await Promise.all(
    names.sort().map(async (name) => {
      const sql = await readFile(new URL(`${name}/migration.sql`, migrationsFolder), "utf8");
      return { name, sql, checksum: createHash("sha256").update(sql).digest("hex"), breaks: breaksOf(sql) };
    }),
  );
}

async function applyOnce(session: MigrationSession, { name, sql, checksum, breaks }: Migration): Promise<void> {
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
  if (breaks !== null) await noteBreaks(session, { name, breaks });
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
