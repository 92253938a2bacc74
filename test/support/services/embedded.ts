import type { Database } from "../../../src/store/database.ts";
import { openEmbedded } from "../../../src/store/embedded.ts";
import { temporaryFolder } from "./guardian.ts";

let opened: Promise<Database> | undefined;

/**
 * The embedded database with this version's schema, empty. The files that a worker runs one after the other share it. What a test changes in the schema or in the session it must take back.
 */
export async function useEmbedded(): Promise<Database> {
  const database = await (opened ??= open());
  const tables = await database.prisma.$queryRaw<{ name: string }[]>`
    SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_prisma_migrations'`;
  await database.prisma.$executeRawUnsafe(`TRUNCATE ${tables.map(({ name }) => name).join(", ")}`);
  return { ...database, close: async () => {} };
}

async function open(): Promise<Database> {
  const folder = await temporaryFolder("embedded");
  return await openEmbedded(folder.path, {
    answered() {},
    lost() {},
    rowWasBusy() {},
    losses: () => 0,
    uninterruptedMs: () => 0,
  });
}
