import { PrismaPg } from "@prisma/adapter-pg";
import { BrokerError, DatabaseBusyError, StartupError } from "../errors.ts";
import { PrismaClient } from "../generated/prisma/client.ts";
import { causeOf, failingOf, isGone } from "./database-errors.ts";
import type { DatabaseHealth } from "./database-health.ts";
import { PatientPool } from "./patient-pool.ts";
import { applyMigrations, type Afterwards, type OnWarning } from "./migrate.ts";

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
  { afterwards, onWarning = () => {} }: { afterwards?: Afterwards; onWarning?: OnWarning } = {},
): Promise<Database> {
  try {
    await applyMigrations({ databaseUrl, afterwards, onWarning });
  } catch (error) {
    throw refused(error);
  }
  const [pool, commitPool] = [10, 5].map(
    (max) => new PatientPool({ connectionString: databaseUrl, max, ...session }),
  ) as [PatientPool, PatientPool];
  const over = (each: PatientPool) =>
    watch(new PrismaClient({ adapter: new PrismaPg(each, { disposeExternalPool: true }) }), health);
  const [prisma, commits] = [over(pool), over(commitPool)];
  const close = async () => {
    await Promise.all([prisma.$disconnect(), commits.$disconnect()]);
  };
  try {
    await pool.query("SELECT 1"); // not by Prisma's client, whose errors keep the cause to themselves
    await requireTrueTimes(prisma);
  } catch (error) {
    await close();
    throw refused(error);
  }
  return { prisma, commits, close };
}

/** One line for the operator, with what to do. */
function refused(error: unknown): StartupError {
  if (error instanceof StartupError) return error;
  return new StartupError(`DATABASE_URL must lead to a Postgres that takes this broker in: ${causeOf(error)}`);
}

/** Every time that is stored or read would be off by the session's zone, if that were another than the broker has asked for. */
async function requireTrueTimes(prisma: Prisma): Promise<void> {
  const [row] = await prisma.$queryRaw<{ epoch: Date; given: boolean }[]>`
    SELECT 'epoch'::timestamptz AS epoch, ${new Date(0)}::timestamptz = 'epoch'::timestamptz AS given`;
  if (row?.epoch.getTime() === 0 && row.given) return;
  throw new StartupError(
    "DATABASE_URL leads to sessions whose time zone this broker cannot set; ALTER ROLE … SET timezone = 'UTC' for its role",
  );
}

/**
 * Notes for every query whether the database answered, and turns a lost one into `storage_unavailable`. What concerns one statement
 * alone says nothing about the database's being there (`DatabaseBusyError`).
 */
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
          const failing = failingOf(error);
          if (failing.kind === "faulty") throw error;
          if (failing.kind === "busy") throw new DatabaseBusyError(failing.state);
          health.lost(error);
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
