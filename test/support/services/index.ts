import { randomBytes } from "node:crypto";
import { describe, inject } from "vitest";
import { applyMigrations } from "../../../src/store/migrate.ts";
import type { ServiceKind } from "./choice.ts";
import { query } from "../query.ts";
import { createDatabase, ensureTemplate } from "./databases.ts";
import { type PostgresOptions, type PrivatePostgres, startPostgres } from "./postgres.ts";
import type { PrivateServer } from "./private-server.ts";
import { startRedis, withRedis } from "./redis.ts";
import type { Services } from "./suite.ts";

export { statementsIn } from "./postgres.ts";

const reservedDatabase = 0; // counts the databases that were handed out
let provided: Services | null = null;
/** Asked for once in this process. */
let migrated: Promise<void> | undefined;

/** For a program that uses these helpers without vitest: the services that it has started. */
export function provideServices(services: Services): void {
  provided = services;
}

function offered(): Services {
  return provided ?? inject("services");
}

/** `describe` that runs where the services can be had, and is skipped, naming the remedy, where they cannot. */
export function describeWithServices(kinds: ServiceKind[], name: string, body: () => void): void {
  const remedies = kinds.flatMap((kind) => {
    const source = offered()[kind].private;
    return offered()[kind].url === undefined && source.from === "nowhere" ? [source.remedy] : [];
  });
  if (remedies.length === 0) describe(name, body);
  else describe.skip(`${name} (to run: ${remedies.join("; ")})`, body);
}

/** The URL of a fresh database with this version's schema, or an empty one. Dropped when the run ends. */
export async function useDatabase({ empty = false }: { empty?: boolean } = {}): Promise<string> {
  const { databasePrefix, postgres } = offered();
  const serverUrl = sharedUrl("postgres", postgres.url);
  const name = `${databasePrefix}${randomBytes(6).toString("hex")}`;
  if (empty) return await createDatabase(serverUrl, name);
  const template = `${databasePrefix}template`;
  await (migrated ??= ensureTemplate(serverUrl, template, (databaseUrl) => applyMigrations({ databaseUrl })));
  return await createDatabase(serverUrl, name, template);
}

/** The same database by a new role, which may do nothing yet but log in. Dropped when the run ends. */
export async function useRole(databaseUrl: string, attributes = ""): Promise<string> {
  const url = new URL(databaseUrl);
  [url.username, url.password] = [`${offered().databasePrefix}${randomBytes(6).toString("hex")}`, "secret"];
  await query(databaseUrl, `CREATE ROLE ${url.username} LOGIN PASSWORD '${url.password}' ${attributes}`);
  return url.href;
}

/**
 * The URL of an empty Redis database. Pub/sub channels and `INFO` are the server's own, shared by all its databases:
 * a test that counts either starts a private one.
 */
export async function useRedis(): Promise<string> {
  const url = new URL(sharedUrl("redis", offered().redis.url));
  url.pathname = `/${reservedDatabase}`;
  const number = await withRedis(url.href, async (redis) => {
    const limit = Number((await redis.config("GET", "databases"))[1]);
    return 1 + (((await redis.incr("freshet:test:databases")) - 1) % (limit - 1));
  });
  url.pathname = `/${number}`;
  await withRedis(url.href, (redis) => redis.flushdb());
  return url.href;
}

/** A Postgres of this test's own. Take it with `await using`; what is forgotten ends with the test file. */
export async function startPrivatePostgres(options: PostgresOptions = {}): Promise<PrivatePostgres> {
  return await startPostgres(offered().postgres.private, options);
}

/** A Redis of this test's own. Take it with `await using`; what is forgotten ends with the test file. */
export async function startPrivateRedis(): Promise<PrivateServer> {
  return await startRedis(offered().redis.private);
}

function sharedUrl(kind: ServiceKind, url: string | undefined): string {
  if (url !== undefined) return url;
  throw new Error(`this run has no ${kind}; put the test into describeWithServices(["${kind}"])`);
}
