import { randomBytes } from "node:crypto";
import { chmodSync, cpSync, existsSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import type { PGlite } from "@electric-sql/pglite";
import { StartupError, whyNotOnDisk } from "../errors.ts";
import { PrismaClient } from "../generated/prisma/client.ts";
import { projectRoot } from "../root.ts";
import { causeOf } from "./database-errors.ts";
import { type Database, type DatabaseHealth, watch } from "./database.ts";
import {
  type Afterwards,
  applyMigrationsTo,
  type MigrationSession,
  type OnWarning,
  readMigrations,
} from "./migrate.ts";

/** A freshly migrated folder, made by `npm run build`: making one takes seconds, copying it a quarter of one. */
const builtSnapshot = fileURLToPath(new URL("build/database", projectRoot));
/** Which migrations the snapshot has: their checksums. Written last, so that half a snapshot is none. */
const recordOf = (snapshot: string) => `${snapshot}.json`;

/**
 * Opens the embedded database in a folder that this process must already hold: a second process would not be refused by
 * PGlite, and committed rows would vanish. @throws StartupError naming DATA_DIR.
 */
export async function openEmbedded(
  folder: string,
  health: DatabaseHealth,
  {
    snapshot = builtSnapshot,
    afterwards,
    onWarning = () => {},
  }: { snapshot?: string | undefined; afterwards?: Afterwards; onWarning?: OnWarning } = {},
): Promise<Database> {
  const pglite = await openFolder(folder, { snapshot, onWarning });
  try {
    await afterwards?.(sessionOf(pglite));
  } catch (error) {
    await pglite.close();
    throw error;
  }
  const { PrismaPGlite } = await import("pglite-prisma-adapter");
  const prisma = watch(new PrismaClient({ adapter: new PrismaPGlite(pglite) }), health);
  return {
    prisma,
    commits: prisma,
    async close() {
      await prisma.$disconnect();
      await pglite.close();
    },
  };
}

/** Makes the snapshot that new folders are copied from. */
export async function makeSnapshot(): Promise<void> {
  rmSync(recordOf(builtSnapshot), { force: true });
  rmSync(builtSnapshot, { recursive: true, force: true });
  await (await openMigrated(builtSnapshot)).close();
  await writeFile(recordOf(builtSnapshot), JSON.stringify(await checksums()));
}

async function openFolder(
  folder: string,
  { snapshot, onWarning }: { snapshot: string; onWarning: OnWarning },
): Promise<PGlite> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    if (readdirSync(folder).length === 0 && (await isCurrent(snapshot))) copySnapshot(snapshot, folder);
    return await openMigrated(folder, onWarning);
  } catch (error) {
    if (error instanceof StartupError) throw new StartupError(error.message.replace(/^DATABASE_URL:/, "DATA_DIR:"));
    throw new StartupError(
      `DATA_DIR: the embedded database in ${folder} cannot be opened (${causeOf(error)}); put a copy of it back, or move it away to begin anew`,
    );
  }
}

/** Another version's snapshot is left alone: its schema may be one that no migration of ours leads away from. */
async function isCurrent(snapshot: string): Promise<boolean> {
  if (!existsSync(recordOf(snapshot))) return false;
  return (await readFile(recordOf(snapshot), "utf8")) === JSON.stringify(await checksums());
}

async function checksums(): Promise<string[]> {
  return (await readMigrations()).map(({ checksum }) => checksum);
}

/** The folder has its name once all is there: a start that dies in between begins anew. */
function copySnapshot(snapshot: string, folder: string): void {
  const draft = `${folder}.new`;
  rmSync(draft, { recursive: true, force: true });
  cpSync(snapshot, draft, { recursive: true });
  // The snapshot may be read-only, as in an image; this copy is the broker's own.
  for (const name of [".", ...readdirSync(draft, { recursive: true, encoding: "utf8" })]) {
    const path = join(draft, name);
    chmodSync(path, statSync(path).isDirectory() ? 0o700 : 0o600);
  }
  renameSync(draft, folder);
}

/**
 * Else V8 compiles half of Postgres once more, for speed: half a second of work and 60 MB, which 12,000 statements do not earn back.
 * The first one implies the others on a command line alone.
 */
const fewerCompilations = ["--liftoff-only", "--no-wasm-tier-up", "--no-wasm-dynamic-tiering"];

async function openMigrated(folder: string, onWarning: OnWarning = () => {}): Promise<PGlite> {
  for (const flag of fewerCompilations) setFlagsFromString(flag);
  const { PGlite } = await import("@electric-sql/pglite");
  // Its own 128 MB of buffers would be half of the process's memory, for a database of a few.
  const startParams = [...PGlite.defaultStartParams, "-c", "shared_buffers=8MB"];
  const pglite = await PGlite.create(folder, { startParams });
  await pglite.exec("SET timezone = 'UTC'");
  await applyMigrationsTo(sessionOf(pglite), { onWarning });
  return pglite;
}

function sessionOf(pglite: PGlite): MigrationSession {
  return {
    execute: async (sql) => void (await pglite.exec(sql)),
    query: async <Row>(sql: string, parameters: unknown[] = []) => (await pglite.query(sql, parameters)).rows as Row[],
  };
}

/** The broker's own folder, held by this process until it ends. */
export type DataDir = {
  readonly path: string;
  readonly embeddedDatabase: string;
  /** Answers that Postgres could not take yet. */
  readonly spool: string;
  /** What has been stored, remembered outside of the database. */
  readonly marks: string;
  /** Where it is remembered that this folder has seen a database of the sealed format. */
  readonly sealedFormat: string;
  /** Reads a secret kept in the folder, or makes it on first use, readable by this user only. */
  secret(name: string, make: () => string): Promise<{ value: string; path: string; isNew: boolean }>;
  release(): void;
};

/**
 * Takes the folder for this process alone.
 * @throws StartupError when it cannot be written, or another process holds it.
 */
export async function holdDataDir(path: string): Promise<DataDir> {
  let lock: DatabaseSync;
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    lock = new DatabaseSync(join(path, "lock"));
  } catch (error) {
    throw new StartupError(`DATA_DIR ${path} cannot be written ${whyNotOnDisk(error)}`);
  }
  takeLock(lock, path);
  held.add(lock);
  return {
    path,
    embeddedDatabase: join(path, "database"),
    spool: join(path, "spool"),
    marks: join(path, "marks"),
    sealedFormat: join(path, "sealed-format"),
    secret: async (name, make) => await readOrMake(join(path, name), make),
    release() {
      held.delete(lock);
      lock.close();
    },
  };
}

/** The garbage collector would close a lock, and so free the folder, that nothing leads to any more. */
const held = new Set<DatabaseSync>();

/** SQLite's exclusive lock is the kernel's file lock: it ends with the process, however that ends, and no other way. */
function takeLock(lock: DatabaseSync, path: string): void {
  try {
    lock.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    lock.close();
    const isBusy = (error as SqliteError).errcode === sqliteBusy;
    throw new StartupError(
      isBusy
        ? `DATA_DIR ${path} is held by another broker process; each needs a folder of its own: stop that one, or set DATA_DIR`
        : `DATA_DIR ${path} cannot be locked ${whyNotOnDisk(error)}`,
    );
  }
}

type SqliteError = NodeJS.ErrnoException & { errcode?: number };
const sqliteBusy = 5;

async function readOrMake(path: string, make: () => string) {
  try {
    return { value: (await readFile(path, "utf8")).trim(), path, isNew: false };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      throw new StartupError(`${path} cannot be read ${whyNotOnDisk(error)}`);
    }
  }
  const value = make();
  const draft = `${path}.${randomBytes(4).toString("hex")}`;
  try {
    await writeFile(draft, `${value}\n`, { mode: 0o600, flush: true });
    await rename(draft, path); // a start that dies in between leaves no half-written secret
  } catch (error) {
    throw new StartupError(`${path} cannot be written ${whyNotOnDisk(error)}`);
  }
  return { value, path, isNew: true };
}
