import { callbackify } from "node:util";
import { Pool, type PoolClient, type PoolConfig, type QueryConfig, type QueryResult } from "pg";
import { createGate, type Gate } from "../gate.ts";
import { PoolBusyError } from "./database-errors.ts";

type Callback = (error: Error | undefined, client: PoolClient | undefined, release: (reason?: unknown) => void) => void;

const mostPatienceMs = 10_000;

/**
 * What every statement runs under: Prisma's adapter shifts times in other zones than UTC; and nobody may hold a lock for long, or
 * wait for one, since answers must be stored.
 */
const settings = { TimeZone: "UTC", lock_timeout: "3000", idle_in_transaction_session_timeout: "5000" };

/**
 * A pool in whose queue nobody's time to connect runs out: its `connectionTimeoutMillis` counts for connecting alone. A burst
 * of work is then not taken for an absent database. Each statement runs under the broker's settings, also behind a pooler that
 * gives every transaction another session.
 */
export class PatientPool extends Pool {
  readonly #gate: Gate;

  constructor(config: PoolConfig & { max: number }) {
    super({ ...config, onConnect });
    this.#gate = createGate(config.max);
    this.on("release", () => this.#gate.leave());
    // Between the pool and who gets a connection nobody else listens; an error without a listener would end the process.
    this.on("connect", (client) => client.on("error", () => {}));
  }

  override connect(): Promise<PoolClient>;
  override connect(callback: Callback): void;
  override connect(callback?: Callback): Promise<PoolClient> | void {
    if (callback === undefined) return this.#enter();
    callbackify(() => this.#enter())((error, client) =>
      callback(error ?? undefined, client, (reason) => client.release(reason as Error)),
    );
  }

  async #enter(): Promise<PoolClient> {
    if (!(await this.#gate.enter(mostPatienceMs))) throw new PoolBusyError("no connection of the pool became free");
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
 * A new connection gets its settings by a statement, since poolers refuse them at the start. A pooler that hands out its sessions
 * for one transaction (PgBouncer, `pool_mode = transaction`) would give them to whoever comes next; it is known by the
 * number of its session, which is not the one that it has told. Behind it each transaction sets them for itself.
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

/** A statement alone becomes a transaction; one that somebody begins gets the settings first. */
function setInEachTransaction(client: PoolClient): void {
  const send = client.query.bind(client) as unknown as Run;
  let isBegun = false;
  const run: Run = async (query) => {
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
      // Of what the server refuses; a connection on which nothing answers is closed by the pool.
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
