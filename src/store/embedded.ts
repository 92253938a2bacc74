import { chmodSync, cpSync, existsSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import type { PGlite } from "@electric-sql/pglite";
import { StartupError } from "../errors.ts";
import { PrismaClient } from "../generated/prisma/client.ts";
import { projectRoot } from "../root.ts";
import { causeOf } from "./database-errors.ts";
import { type Database, type DatabaseHealth, deafHealth, watch, watched } from "./database.ts";
import { type Direct, parsers, type Statement } from "./direct.ts";
import {
  type Afterwards,
  applyMigrationsTo,
  type MigrationSession,
  type OnWarning,
  readMigrations,
} from "./migrate.ts";

/** A freshly migrated database folder, made by `npm run build`. Making one takes seconds, copying it a quarter of a second. */
const builtSnapshot = fileURLToPath(new URL("build/database", projectRoot));
/** The checksums of the snapshot's migrations. Written last, so that an unfinished snapshot is not used. */
const recordOf = (snapshot: string) => `${snapshot}.json`;

/**
 * Opens the embedded database in a folder that this process must have locked: PGlite does not refuse a second process, and committed rows
 * would get lost. @throws StartupError naming DATA_DIR.
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
  const client = new PrismaClient({ adapter: new PrismaPGlite(pglite) });
  const prisma = watch(client, health);
  const direct: Direct = async <Row>({ text }: Statement, values: readonly unknown[]) =>
    await watched(health, async () => (await pglite.query<Row>(text, [...values], { parsers })).rows);
  return {
    prisma,
    direct,
    commits: prisma,
    directCommits: direct,
    readyToStore() {},
    audit: watch(client, deafHealth),
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

/** A snapshot of another version is not used: this version's migrations may not fit its schema. */
async function isCurrent(snapshot: string): Promise<boolean> {
  if (!existsSync(recordOf(snapshot))) return false;
  return (await readFile(recordOf(snapshot), "utf8")) === JSON.stringify(await checksums());
}

async function checksums(): Promise<string[]> {
  return (await readMigrations()).map(({ checksum }) => checksum);
}

/** The folder gets its name when it is complete, so that a start after a crash begins again. */
function copySnapshot(snapshot: string, folder: string): void {
  const draft = `${folder}.new`;
  rmSync(draft, { recursive: true, force: true });
  cpSync(snapshot, draft, { recursive: true });
  // The snapshot may be read-only, as in an image. The copy must be writable.
  for (const name of [".", ...readdirSync(draft, { recursive: true, encoding: "utf8" })]) {
    const path = join(draft, name);
    chmodSync(path, statSync(path).isDirectory() ? 0o700 : 0o600);
  }
  renameSync(draft, folder);
}

/**
 * Without these flags V8 compiles half of Postgres a second time, optimised. That costs half a second and 60 MB, and even 12,000 statements do
 * not gain it back. Only on a command line does the first flag imply the others.
 */
const fewerCompilations = ["--liftoff-only", "--no-wasm-tier-up", "--no-wasm-dynamic-tiering"];

async function openMigrated(folder: string, onWarning: OnWarning = () => {}): Promise<PGlite> {
  for (const flag of fewerCompilations) setFlagsFromString(flag);
  const { PGlite } = await import("@electric-sql/pglite");
  // The default of 128 MB of buffers would be half of the process's memory, for a database of a few megabytes.
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
