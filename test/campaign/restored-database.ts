import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { applyMigrations } from "../../src/store/migrate.ts";
import type { BrokerProcess } from "../support/broker-process.ts";
import { type DatabaseCopy, dropDatabase, renameDatabase, restoreTables } from "../support/database-copy.ts";
import { createDatabase } from "../support/services/databases.ts";

/** Makes the copy an hour old. */
const anHourAgo = ["issued_at", "expires_at", "refresh_due_at", "keep_alive_at", "next_refresh_at", "last_refreshed_at"]
  .map((column) => `${column} = ${column} - interval '1 hour'`)
  .join(", ");
const anHourPasses = `UPDATE connections SET ${anHourAgo}`;

/** How a copy takes the database's place. */
export type Restoring = {
  name: string;
  /** A single replica without Redis keeps its marks in DATA_DIR. */
  hasRedis: boolean;
  /** Brokers are killed before, and start on the restored database. */
  restarts: boolean;
  /** There is no database for a while; `meanwhile` is done then. */
  hasGap: boolean;
  /** The short size plays this one. */
  isShort: boolean;
  restore(databaseUrl: string, copy: DatabaseCopy, meanwhile: () => Promise<void>): Promise<void>;
};

/** The database is dropped, and its copy, made ready under another name, gets its name. */
async function replace(databaseUrl: string, copy: DatabaseCopy, meanwhile: () => Promise<void>): Promise<void> {
  const restoredUrl = await createDatabase(databaseUrl, `${new URL(databaseUrl).pathname.slice(1)}_restored`);
  await applyMigrations({ databaseUrl: restoredUrl });
  await restoreTables(restoredUrl, copy, anHourPasses);
  await dropDatabase(databaseUrl);
  await meanwhile();
  await renameDatabase(restoredUrl, databaseUrl);
}

export const waysOfRestoring: readonly Restoring[] = [
  { name: "under running brokers", hasRedis: true, restarts: false, hasGap: true, isShort: true, restore: replace },
  {
    name: "in one transaction under running brokers",
    hasRedis: true,
    restarts: false,
    hasGap: false,
    isShort: false,
    restore: (databaseUrl, copy) => restoreTables(databaseUrl, copy, anHourPasses),
  },
  { name: "before brokers start", hasRedis: true, restarts: true, hasGap: true, isShort: false, restore: replace },
  {
    name: "before one broker without Redis starts",
    hasRedis: false,
    restarts: true,
    hasGap: true,
    isShort: false,
    restore: replace,
  },
];

/** Every version of every connection that a caller was given, and whether one of them ever named two tokens. */
export class VersionBook {
  readonly #tokens = new Map<string, string>();
  readonly #newest = new Map<string, number>();
  readonly ambiguous: string[] = [];

  /** Reads, and notes what came. @returns the code of a refusal, or null */
  async read(broker: BrokerProcess, name: string, query: Record<string, number> = {}): Promise<string | null> {
    const { status, body } = await broker.api.token(name, query);
    if (status !== 200) return `${status} ${body.code} ${body.detail}`;
    const key = `${name} version ${body.version}`;
    const known = this.#tokens.get(key) ?? body.access_token;
    if (known !== body.access_token) this.ambiguous.push(key);
    this.#tokens.set(key, body.access_token);
    this.#newest.set(name, Math.max(body.version, this.newest(name)));
    return null;
  }

  newest(name: string): number {
    return this.#newest.get(name) ?? 0;
  }
}

const cli = fileURLToPath(new URL("../../bin/freshet.cjs", import.meta.url));
const run = promisify(execFile);

/** `freshet recover` as an operator types it. @throws with what it wrote when it fails */
export async function freshetRecover(broker: BrokerProcess, words: readonly string[]): Promise<string> {
  const env = { PATH: process.env["PATH"], FRESHET_URL: broker.url, FRESHET_KEY: broker.adminKey };
  return (await run(process.execPath, [cli, "recover", ...words], { env })).stdout;
}
