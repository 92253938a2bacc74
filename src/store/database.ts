import { PrismaPg } from "@prisma/adapter-pg";
import { BrokerError, StartupError } from "../errors.ts";
import { PrismaClient } from "../generated/prisma/client.ts";
import { causeOf, isConnectionLoss, isGone } from "./database-errors.ts";
import type { DatabaseHealth } from "./database-health.ts";
import { PatientPool } from "./patient-pool.ts";
import { applyMigrations, type Afterwards } from "./migrate.ts";

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
export async function openPostgres(
  databaseUrl: string,
  health: DatabaseHealth,
  afterwards?: Afterwards,
): Promise<Database> {
  try {
    await applyMigrations({ databaseUrl, afterwards });
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

/** Notes for every query whether the database answered, and turns a lost one into `storage_unavailable`. */
export function watch(client: PrismaClient, health: DatabaseHealth) {
  return client.$extends({
    query: {
      async $allOperations({ args, query }) {
        try {
          const result: unknown = await query(args);
          health.answered();
          return withoutOddDates(result);
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

/** Ends and beginnings that may be lacking: one that no Date can hold is none. */
const mayLack = new Set(["refreshTokenExpiresAt", "authorizedAt", "backoffUntil", "nextRefreshAt", "keepAliveAt"]);

/**
 * A column may hold times that no Date can (`infinity`, the year 294276): a later use of them would throw, in the middle of a list,
 * or between an answer and its store. They read as long ago: what ends is over, and what was revoked stays so.
 */
function withoutOddDates(result: unknown): unknown {
  for (const row of Array.isArray(result) ? (result as unknown[]) : [result]) {
    if (typeof row !== "object" || row === null) continue;
    for (const [name, value] of Object.entries(row)) {
      const isOdd = value instanceof Date && Number.isNaN(value.getTime());
      if (isOdd) Object.assign(row, { [name]: mayLack.has(name) ? null : new Date(0) });
    }
  }
  return result;
}
