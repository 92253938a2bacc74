import { chmodSync, cpSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { openEmbedded } from "../../src/store/embedded.ts";
import { temporaryFolder } from "../support/services/guardian.ts";

const built = fileURLToPath(new URL("../../build/database", import.meta.url));
const health = createDatabaseHealth(() => 0);

/** The system identifier, which Postgres chooses at random when it makes a folder: the first eight bytes of its control file. */
function identifierOf(folder: string): bigint {
  return readFileSync(join(folder, "global/pg_control")).readBigUInt64LE(0);
}

async function tableNames(folder: string, snapshot?: string): Promise<string[]> {
  const database = await openEmbedded(folder, health, { snapshot });
  const rows = await database.prisma.$queryRaw<{ name: string }[]>`
    SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`;
  await database.close();
  return rows.map(({ name }) => name);
}

test("a new folder is a copy of the snapshot, which may be read-only, and what a start that died has left is thrown away", async () => {
  const { path } = await temporaryFolder("snapshot");
  const snapshot = join(path, "built");
  cpSync(built, snapshot, { recursive: true });
  cpSync(`${built}.json`, `${snapshot}.json`);
  for (const name of readdirSync(snapshot, { recursive: true, encoding: "utf8" })) {
    const entry = join(snapshot, name);
    if (statSync(entry).isFile()) chmodSync(entry, 0o444);
  }
  const folder = join(path, "database");
  await mkdir(`${folder}.new`);
  writeFileSync(join(`${folder}.new`, "PG_VERSION"), "9.1\n");

  expect(await tableNames(folder, snapshot)).toContain("connections");
  expect(identifierOf(folder)).toBe(identifierOf(built));
  expect(readdirSync(path).sort()).toEqual(["built", "built.json", "database"]);
  expect(statSync(join(folder, "PG_VERSION")).mode & 0o777).toBe(0o600);
});

test("a snapshot of other migrations is left alone: the folder is made from nothing, with the same tables", async () => {
  const { path } = await temporaryFolder("snapshot");
  const snapshot = join(path, "other");
  cpSync(built, snapshot, { recursive: true });
  writeFileSync(`${snapshot}.json`, JSON.stringify(["another checksum"]));
  const [made, copied] = [join(path, "made"), join(path, "copied")];
  expect(await tableNames(made, snapshot)).toEqual(await tableNames(copied));
  expect(identifierOf(made)).not.toBe(identifierOf(built));
});
