import { type Database, deafHealth } from "../../../src/store/database.ts";
import { openEmbedded } from "../../../src/store/embedded.ts";
import { temporaryFolder } from "./guardian.ts";

let opened: Promise<Database> | undefined;

/**
 * The embedded database with this version's schema, empty. The files that a worker runs one after the other share it. What a test changes in the schema or in the session it must take back.
 */
export async function useEmbedded(): Promise<Database> {
  const database = await (opened ??= open());
  const tables = await database.prisma.$queryRaw<{ name: string }[]>`
    SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables
    WHERE schemaname IN ('public', 'audit') AND tablename NOT IN ('_prisma_migrations', 'settings')`;
  await database.prisma.$executeRawUnsafe(`TRUNCATE ${tables.map(({ name }) => name).join(", ")}`);
  return { ...database, close: async () => {} };
}

async function open(): Promise<Database> {
  const folder = await temporaryFolder("embedded");
  return await openEmbedded(folder.path, deafHealth);
}
