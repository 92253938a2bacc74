import { mkdir } from "node:fs/promises";
import { PGlite } from "@electric-sql/pglite";
import { PrismaPg } from "@prisma/adapter-pg";
import { PrismaPGlite } from "pglite-prisma-adapter";
import { BrokerError, StartupError } from "../errors.ts";
import { PrismaClient } from "../generated/prisma/client.ts";
import { causeOf, isConnectionLoss, isGone } from "./database-errors.ts";
import type { DatabaseHealth } from "./database-health.ts";
import { PatientPool } from "./patient-pool.ts";
import { applyMigrations, applyMigrationsTo } from "./migrate.ts";

/** Prisma's client, with lost connections told apart from faulty queries. */
export type Prisma = ReturnType<typeof watch>;

export type Database = {
  prisma: Prisma;
  /** For the statement that stores what a provider answered: a pool that no other work can exhaust. */
  commits: Prisma;
  close(): Promise<void>;
};

const session = { connectionTimeoutMillis: 3000, query_timeout: 10_000 };

/** Connects to Postgres 14 or later and brings its schema up to date. @throws StartupError naming DATABASE_URL. */
export async function openPostgres(databaseUrl: string, health: DatabaseHealth): Promise<Database> {
  try {
    await applyMigrations({ databaseUrl });
  } catch (error) {
    throw error instanceof StartupError
      ? error
      : new StartupError(`DATABASE_URL must lead to a Postgres that takes this broker in: ${causeOf(error)}`);
  }
  const connectionString = withSettings(databaseUrl);
  const connect = (max: number) =>
    watch(
      new PrismaClient({
        adapter: new PrismaPg(new PatientPool({ connectionString, max, ...session }), { disposeExternalPool: true }),
      }),
      health,
    );
  const prisma = connect(10);
  const commits = connect(5);
  return {
    prisma,
    commits,
    async close() {
      await Promise.all([prisma.$disconnect(), commits.$disconnect()]);
    },
  };
}

/** Both adapters shift times in other zones; and nobody may hold a lock for long, or wait for one, since answers must be stored. */
const settings = "-c timezone=UTC -c lock_timeout=3000 -c idle_in_transaction_session_timeout=5000";

/** Options of the URL's own stay: the last setting of a name counts. */
function withSettings(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.searchParams.set("options", `${url.searchParams.get("options") ?? ""} ${settings}`.trim());
  return url.href;
}

/**
 * Opens the embedded database in a folder that this process must already hold: a second process would not be refused by
 * PGlite, and committed rows would vanish. @throws StartupError naming DATA_DIR.
 */
export async function openEmbedded(folder: string, health: DatabaseHealth): Promise<Database> {
  const pglite = await openFolder(folder);
  await pglite.exec("SET timezone = 'UTC'");
  await applyMigrationsTo({
    execute: async (sql) => void (await pglite.exec(sql)),
    query: async <Row>(sql: string, parameters: unknown[] = []) => (await pglite.query(sql, parameters)).rows as Row[],
  });
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

async function openFolder(folder: string): Promise<PGlite> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return await PGlite.create(folder);
  } catch (error) {
    throw new StartupError(`DATA_DIR: the embedded database in ${folder} cannot be opened (${causeOf(error)})`);
  }
}

/** Notes for every query whether the database answered, and turns a lost one into `storage_unavailable`. */
function watch(client: PrismaClient, health: DatabaseHealth) {
  return client.$extends({
    query: {
      async $allOperations({ args, query }) {
        try {
          const result: unknown = await query(args);
          health.answered();
          return result;
        } catch (error) {
          if (isGone(error)) throw new BrokerError("conflict", "What this refers to was changed at the same moment.");
          if (!isConnectionLoss(error)) throw error;
          health.lost();
          throw new BrokerError("storage_unavailable", "The broker's database cannot be reached right now.", {
            retryAfterSeconds: 2,
          });
        }
      },
    },
  });
}
