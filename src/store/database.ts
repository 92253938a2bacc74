import { callbackify } from "node:util";
import { PrismaPg } from "@prisma/adapter-pg";
import { Pool, type PoolClient, type PoolConfig, type QueryConfig, type QueryResult, types } from "pg";
import { createGate, type Gate } from "../concurrency.ts";
import { BrokerError, DatabaseBusyError, StartupError } from "../errors.ts";
import { PrismaClient } from "../generated/prisma/client.ts";
import { storeTimes } from "../time.ts";
import { failingOf, isGone, isStalePlan, PoolBusyError, refused } from "./database-errors.ts";
import { type Direct, parsers, type Statement } from "./direct.ts";
import { type Afterwards, applyMigrations, type OnWarning } from "./migrate.ts";

/** Prisma's client, with lost connections told apart from faulty queries. */
export type Prisma = ReturnType<typeof watch>;

export type Database = {
  prisma: Prisma;
  direct: Direct;
  /** A pool of its own for the statements that store a provider's answer, so that no other work can use it up. */
  commits: Prisma;
  /** The same pool, past Prisma's client. */
  directCommits: Direct;
  /**
   * A request is about to be sent whose answer `commits` will store. Where no connection of it is idle, one is opened meanwhile, so that the answer
   * need not wait for it. Never throws.
   */
  readyToStore(): void;
  /** For the audit: its tables may be locked, missing or without room while all others serve, so its errors say nothing about the database. */
  audit: Prisma;
  close(): Promise<void>;
};

/** As many as the sweeper has requests at one token host: answers that come together are stored together. */
const commitConnections = 8;

const session = { connectionTimeoutMillis: storeTimes.connectMs, query_timeout: storeTimes.queryMs };

/**
 * Connects to Postgres 14 or later and brings its schema up to date: by `migrationUrl`, if there is one, which is used for nothing else.
 * @throws StartupError naming the variable
 */
export async function openPostgres(
  databaseUrl: string,
  health: DatabaseHealth,
  {
    migrationUrl = null,
    afterwards,
    onWarning = () => {},
  }: { migrationUrl?: string | null; afterwards?: Afterwards; onWarning?: OnWarning } = {},
): Promise<Database> {
  try {
    const target = migrationUrl === null ? { databaseUrl } : { databaseUrl: migrationUrl, runtimeUrl: databaseUrl };
    await applyMigrations({ ...target, afterwards, onWarning });
  } catch (error) {
    throw refused(error, migrationUrl === null ? "DATABASE_URL" : "DATABASE_MIGRATION_URL");
  }
  const [pool, commitPool] = [10, commitConnections].map(
    (max) => new PatientPool({ connectionString: databaseUrl, max, ...session }),
  ) as [PatientPool, PatientPool];
  const over = (each: PatientPool) => new PrismaClient({ adapter: new PrismaPg(each, { disposeExternalPool: true }) });
  const client = over(pool);
  const [prisma, commits] = [watch(client, health), watch(over(commitPool), health)];
  const close = async () => {
    await Promise.all([prisma.$disconnect(), commits.$disconnect()]);
  };
  try {
    await pool.query("SELECT 1"); // not by Prisma's client, whose errors do not name the cause
    await requireTrueTimes(prisma);
  } catch (error) {
    await close();
    throw refused(error, "DATABASE_URL");
  }
  return {
    prisma,
    direct: directOver(pool, health),
    commits,
    directCommits: directOver(commitPool, health),
    readyToStore: () => commitPool.openAhead(),
    audit: watch(client, deafHealth),
    close,
  };
}

function directOver(pool: PatientPool, health: DatabaseHealth): Direct {
  const driverTypes = { getTypeParser: (type: number) => parsers[type] ?? types.getTypeParser(type) };
  /** The driver refuses a second text under a name. One that differs after all is asked without a name. */
  const texts = new Map<string, string>();
  const isOf = (name: string, text: string): boolean => {
    if (!texts.has(name)) texts.set(name, text);
    return texts.get(name) === text;
  };
  return async <Row>({ name, text }: Statement, values: readonly unknown[]) => {
    const asked = { text, values: [...values], types: driverTypes } as QueryConfig;
    const ask = async (named: QueryConfig) => (await pool.query(named)).rows as Row[];
    return await watched(health, async () => {
      if (!isOf(name, text)) return await ask(asked);
      try {
        return await ask({ ...asked, name });
      } catch (error) {
        if (isStalePlan(error)) return await ask(asked);
        throw error;
      }
    });
  };
}

/** If the session had another time zone than the broker has set, every time that is stored or read would be wrong by the difference. */
async function requireTrueTimes(prisma: Prisma): Promise<void> {
  const [row] = await prisma.$queryRaw<{ epoch: Date; given: boolean }[]>`
    SELECT 'epoch'::timestamptz AS epoch, ${new Date(0)}::timestamptz = 'epoch'::timestamptz AS given`;
  if (row?.epoch.getTime() === 0 && row.given) return;
  throw new StartupError(
    "DATABASE_URL leads to sessions whose time zone this broker cannot set; ALTER ROLE … SET timezone = 'UTC' for its role",
  );
}

/** Since when Postgres has answered this process without a gap. */
export type DatabaseHealth = {
  answered(): void;
  /** @param error what a statement failed with */
  lost(error?: unknown): void;
  /** Call it when a statement failed because of this row alone. */
  rowWasBusy(rowId: string): void;
  /** How often Postgres has gone away. */
  losses(): number;
  /**
   * Milliseconds of uninterrupted answers up to now; 0 while Postgres is away. With a row, only the time since that row was last found busy counts,
   * since an owner who waits to store its answer could not do so while the row was locked.
   */
  uninterruptedMs(rowId?: string): number;
};

/**
 * @param monotonicMs a clock that never goes back
 * @param onChange told of each loss with its error, and with null of the first answer after one
 */
export function createDatabaseHealth(
  monotonicMs: () => number,
  onChange: (lost: { error: unknown } | null) => void = () => {},
): DatabaseHealth {
  let losses = 0;
  let reachable: { sinceMs: number; lastMs: number } | null = null;
  const busyAtMs = new Map<string, number>();
  return {
    answered() {
      const nowMs = monotonicMs();
      const isGap = reachable === null || nowMs - reachable.lastMs > storeTimes.longestSilenceMs;
      const wasLost = reachable === null;
      reachable = { sinceMs: isGap || reachable === null ? nowMs : reachable.sinceMs, lastMs: nowMs };
      if (wasLost) onChange(null);
    },
    lost(error) {
      reachable = null;
      losses += 1;
      onChange({ error });
    },
    rowWasBusy(rowId) {
      const nowMs = monotonicMs();
      busyAtMs.delete(rowId); // so that the map's order is that of the times
      busyAtMs.set(rowId, nowMs);
      for (const [id, atMs] of busyAtMs) {
        if (nowMs - atMs <= storeTimes.busyRowMs) break;
        busyAtMs.delete(id);
      }
    },
    losses: () => losses,
    uninterruptedMs(rowId) {
      if (reachable === null) return 0;
      const busyMs = rowId === undefined ? undefined : busyAtMs.get(rowId);
      return Math.max(0, reachable.lastMs - Math.max(reachable.sinceMs, busyMs ?? reachable.sinceMs));
    },
  };
}

/** Notes nothing. */
export const deafHealth: DatabaseHealth = {
  answered() {},
  lost() {},
  rowWasBusy() {},
  losses: () => 0,
  uninterruptedMs: () => 0,
};

/** Prisma's client, with every query watched. */
export function watch(client: PrismaClient, health: DatabaseHealth) {
  return client.$extends({
    query: {
      async $allOperations({ args, query }) {
        return await watched(health, async (): Promise<unknown> => await query(args));
      },
    },
  });
}

/**
 * Notes whether the database answered, and turns an outage into `storage_unavailable`. An error that concerns one statement is no outage
 * (`DatabaseBusyError`).
 */
export async function watched<Result>(health: DatabaseHealth, query: () => Promise<Result>): Promise<Result> {
  try {
    const result = await query();
    health.answered();
    return withoutOddDates(result);
  } catch (error) {
    if (isGone(error)) throw new BrokerError("conflict", "What this refers to was changed at the same moment.");
    const failing = failingOf(error);
    if (failing.kind === "faulty") throw error;
    if (failing.kind === "busy") throw new DatabaseBusyError(failing.state);
    health.lost(error);
    const away = new BrokerError("storage_unavailable", "The broker's database cannot be reached right now.", {
      retryAfterSeconds: storeTimes.retryAfterSeconds,
    });
    throw Object.defineProperty(away, "cause", { value: error });
  }
}

/** Columns that may be null. A time that does not fit into a Date counts as null. */
const mayLack = new Set(["refreshTokenExpiresAt", "authorizedAt", "backoffUntil", "nextRefreshAt", "keepAliveAt"]);

/**
 * A column may hold times that do not fit into a Date (`infinity`, the year 294276). Using one later would throw, in the middle of a list or
 * between an answer and its store. So they are read as long ago: what ends is over, and what was revoked stays revoked.
 */
function withoutOddDates<Result>(result: Result): Result {
  for (const row of Array.isArray(result) ? (result as unknown[]) : [result]) {
    if (typeof row !== "object" || row === null) continue;
    for (const name of Object.keys(row)) {
      const value = (row as Record<string, unknown>)[name];
      const isOdd = value instanceof Date && Number.isNaN(value.getTime());
      if (isOdd) Object.assign(row, { [name]: mayLack.has(name) ? null : new Date(0) });
    }
  }
  return result;
}

type Callback = (error: Error | undefined, client: PoolClient | undefined, release: (reason?: unknown) => void) => void;

/**
 * Settings for every statement: UTC, since Prisma's adapter shifts times in other zones, and short timeouts for locks and statements, since
 * answers must be stored.
 */
const settings = {
  TimeZone: "UTC",
  lock_timeout: String(storeTimes.lockMs),
  idle_in_transaction_session_timeout: String(storeTimes.idleTransactionMs),
};

/**
 * A pool whose `connectionTimeoutMillis` counts only for connecting and not for waiting in its queue. So a burst of work does not look like
 * a database that is away. Each statement runs under the broker's settings, also behind a pooler that gives every transaction another
 * session.
 */
export class PatientPool extends Pool {
  readonly #gate: Gate;

  constructor(config: PoolConfig & { max: number }) {
    super({ ...config, onConnect });
    this.#gate = createGate(config.max);
    this.on("release", () => this.#gate.leave());
    // While a connection passes from the pool to its user nobody listens for errors, and an error without a listener ends the process.
    this.on("connect", (client) => client.on("error", () => {}));
    // The same of the pool, which is told of each idle connection that is lost. Whoever asks next gets another one, or learns why there is none.
    this.on("error", () => {});
  }

  override connect(): Promise<PoolClient>;
  override connect(callback: Callback): void;
  override connect(callback?: Callback): Promise<PoolClient> | void {
    if (callback === undefined) return this.#enter();
    // In a turn of its own: what the callback throws must not reject the promise.
    this.#enter().then(
      (client) => process.nextTick(callback, undefined, client, (reason?: unknown) => client.release(reason as Error)),
      (error: unknown) => process.nextTick(callback, error, undefined, () => {}),
    );
  }

  /** Opens a connection for whoever comes next, unless one is idle or there are as many as there may be. */
  openAhead(): void {
    if (this.idleCount > 0 || this.totalCount >= this.options.max) return;
    // If it cannot be opened, whoever comes next learns why.
    void this.connect().then(
      (client) => client.release(),
      () => undefined,
    );
  }

  async #enter(): Promise<PoolClient> {
    const isFree = await this.#gate.enter(storeTimes.poolPatienceMs);
    if (!isFree) throw new PoolBusyError("no connection of the pool became free");
    try {
      return await super.connect();
    } catch (error) {
      this.#gate.leave();
      throw error;
    }
  }
}

/** `processID`: the session's, as the server said when it was opened. */
type Connected = PoolClient & { processID: number | null };

/**
 * A new connection gets its settings by a statement, since poolers refuse them at the start. A pooler that hands out its sessions for one
 * transaction (PgBouncer, `pool_mode = transaction`) would give a session with these settings to others. It is recognised by the session's
 * process id, which differs from the one in the handshake. Behind it each transaction sets them for itself.
 */
async function applySettings(client: Connected): Promise<void> {
  const isOwn = "pg_backend_pid() = $1::int";
  const set = Object.entries(settings).map(
    ([name, value]) => `CASE WHEN ${isOwn} THEN set_config('${name}', '${value}', false) END`,
  );
  const { rows } = await client.query<{ isOwn: boolean | null }>(`SELECT ${isOwn} AS "isOwn", ${set.join(", ")}`, [
    client.processID,
  ]);
  if (rows[0]?.isOwn !== true) setInEachTransaction(client);
}

/** The pool waits for what this returns, though its types do not say so. */
const onConnect = applySettings as unknown as NonNullable<PoolConfig["onConnect"]>;

const setLocally = Object.entries(settings)
  .map(([name, value]) => `SET LOCAL ${name} = '${value}'`)
  .join("; ");

type Run = (query: string | QueryConfig) => Promise<QueryResult>;

/**
 * A single statement becomes a transaction. A transaction begins with the settings. No statement has a name: the session that has prepared it
 * need not be the one that gets it next.
 */
function setInEachTransaction(client: PoolClient): void {
  const send = client.query.bind(client) as unknown as Run;
  let isBegun = false;
  const run: Run = async (asked) => {
    const query = typeof asked === "string" ? asked : { ...asked, name: undefined };
    const text = typeof query === "string" ? query : query.text;
    if (text === "BEGIN") {
      const begun = await send(query);
      await send(setLocally);
      isBegun = true;
      return begun;
    }
    if (isBegun) {
      if (text === "COMMIT" || text === "ROLLBACK") isBegun = false;
      return await send(query);
    }
    await send(`BEGIN; ${setLocally}`);
    try {
      const result = await send(query);
      await send("COMMIT");
      return result;
    } catch (error) {
      // After an error of the server. The pool closes a connection that does not answer.
      if ("code" in (error as object)) await send("ROLLBACK").catch(() => undefined);
      throw error;
    }
  };
  type Reply = (error: Error | null, result: QueryResult) => void;
  const query = (asked: string | QueryConfig, values?: unknown[] | Reply, reply?: Reply) => {
    const given = Array.isArray(values) ? { ...(typeof asked === "string" ? { text: asked } : asked), values } : asked;
    const callback = typeof values === "function" ? values : reply;
    if (callback === undefined) return run(given);
    callbackify(run)(given, callback);
    return undefined;
  };
  Object.assign(client, { query });
}
