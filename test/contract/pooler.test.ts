import { Client } from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { DatabaseBusyError } from "../../src/errors.ts";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { openPostgres } from "../../src/store/database.ts";
import { useDatabase } from "../support/services/index.ts";
import { describeWithPooler, startPooler } from "../support/services/pgbouncer.ts";
import type { PrivateServer } from "../support/services/private-server.ts";
import { StoreStage } from "./store/stage.ts";

const health = () => createDatabaseHealth(() => performance.now());

/** A database whose sessions are in Amsterdam unless they say otherwise. */
async function databaseOfAmsterdam(): Promise<string> {
  const url = await useDatabase();
  await withClient(url, async (client) => {
    await client.query(`ALTER DATABASE ${new URL(url).pathname.slice(1)} SET timezone = 'Europe/Amsterdam'`);
  });
  return url;
}

async function withClient<Result>(url: string, work: (client: Client) => Promise<Result>): Promise<Result> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

describeWithPooler("behind PgBouncer in transaction mode, before a Postgres of Amsterdam", () => {
  let databaseUrl: string;
  let pooler: PrivateServer;
  beforeAll(async () => {
    databaseUrl = await databaseOfAmsterdam();
    // Two sessions for all clients: a transaction gets a session that others have used before.
    pooler = await startPooler(databaseUrl, { default_pool_size: "2" });
  });
  afterAll(async () => await pooler[Symbol.asyncDispose]());

  it("times are those that were meant, in every statement of many at once", async () => {
    await using stage = await opened(pooler.url);
    const { row } = await stage.permit();
    const at = new Date("2026-07-15T12:00:00.500Z");
    await stage.set(row.id, `expires_at = '${at.toISOString()}'`);
    const read = await Promise.all(Array.from({ length: 40 }, () => stage.row(row.id)));
    expect(new Set(read.map(({ expiresAt }) => expiresAt?.getTime()))).toEqual(new Set([at.getTime()]));
    const off = read.map(({ now, leaseUntil }) => (leaseUntil?.getTime() ?? NaN) - now.getTime());
    expect(off.every((ms) => ms > 0 && ms <= 30_000)).toBe(true);
    const zones = await Promise.all(
      Array.from({ length: 20 }, () => stage.query<{ zone: string }>("SELECT current_setting('TimeZone') AS zone")),
    );
    expect(new Set(zones.flat().map(({ zone }) => zone))).toEqual(new Set(["UTC"]));
    // In a transaction of several statements, too.
    const [, told] = await stage.database.prisma.$transaction([
      stage.database.prisma.$queryRaw`SELECT 1 AS one`,
      stage.database.prisma.$queryRaw<
        object[]
      >`SELECT current_setting('TimeZone') AS zone, current_setting('lock_timeout') AS wait`,
    ]);
    expect(told).toEqual([{ zone: "UTC", wait: "3s" }]);
  });

  it("what is read all the time is read in any session, and none keeps it prepared", async () => {
    await using stage = await opened(pooler.url);
    const rows = await Promise.all(Array.from({ length: 4 }, () => stage.connect()));
    const readers = Array.from({ length: 40 }, (_none, index) => rows[index % rows.length]?.name ?? "");
    const read = await Promise.all(readers.map(async (name) => await stage.rows.readByName([name])));
    expect(read.map(([found]) => found?.row.name)).toEqual(readers);
    const kept = await Promise.all(
      Array.from({ length: 20 }, () =>
        stage.query("SELECT name, statement FROM pg_prepared_statements WHERE statement LIKE '%c.name = ANY%'"),
      ),
    );
    expect(kept.flat()).toEqual([]);
  });

  it("what the broker sets is left in none of the sessions that others use, and nothing is left open", async () => {
    await using stage = await opened(pooler.url);
    await Promise.all(Array.from({ length: 10 }, () => stage.query("SELECT pg_sleep(0.01)::text AS done")));
    await expect(stage.query("SELECT 1 / 0 AS quotient")).rejects.toThrow();
    const sessions = await Promise.all(
      Array.from({ length: 8 }, () =>
        withClient(pooler.url, async (client) => {
          const { rows } = await client.query<object>(
            "SELECT current_setting('TimeZone') AS zone, current_setting('lock_timeout') AS wait, now() = statement_timestamp() AS alone",
          );
          return JSON.stringify(rows[0]);
        }),
      ),
    );
    expect(new Set(sessions)).toEqual(new Set(['{"zone":"Europe/Amsterdam","wait":"0","alone":true}']));
  });

  it("nobody waits for a lock for ever, and Postgres counts as being there", async () => {
    const known = health();
    await using stage = await opened(pooler.url, known);
    const row = await stage.connect();
    await withClient(databaseUrl, async (client) => {
      await client.query("BEGIN");
      await client.query(`SELECT 1 FROM connections WHERE id = '${row.id}' FOR UPDATE`);
      await expect(stage.set(row.id, "in_use = true")).rejects.toThrow(DatabaseBusyError);
      await client.query("ROLLBACK");
    });
    expect(known.losses()).toBe(0);
    await stage.set(row.id, "in_use = true");
    expect((await stage.row(row.id)).inUse).toBe(true);
  });

  it("a pooler that is told to ignore options leaves the times as they are meant, too", async () => {
    await using lenient = await startPooler(databaseUrl, { ignore_startup_parameters: "options" });
    const url = new URL(lenient.url);
    url.searchParams.set("options", "-c statement_timeout=600000");
    await using stage = await opened(url.href);
    const { row } = await stage.permit();
    expect((row.leaseUntil?.getTime() ?? NaN) - row.now.getTime()).toBeGreaterThan(0);
    const [clock] = await stage.query<{ zone: string }>("SELECT current_setting('TimeZone') AS zone");
    expect(clock?.zone).toBe("UTC");
  });

  it("replicas that start at once on an empty database bring it up to date", async () => {
    const url = new URL(pooler.url);
    url.pathname = new URL(await useDatabase({ empty: true })).pathname;
    const opening = Array.from({ length: 3 }, () => opened(url.href));
    for (const stage of await Promise.all(opening)) {
      await stage.connect();
      await stage.database.close();
    }
  });

  it("options in DATABASE_URL that the pooler refuses are told in one line, with what to do", async () => {
    const url = new URL(pooler.url);
    url.searchParams.set("options", "-c statement_timeout=600000");
    await expect(openPostgres(url.href, health())).rejects.toThrow(/^DATABASE_URL .*leave `options` out of the URL$/);
  });
});

async function opened(url: string, known = health()): Promise<StoreStage & AsyncDisposable> {
  const stage = new StoreStage(await openPostgres(url, known));
  return Object.assign(stage, { [Symbol.asyncDispose]: async () => await stage.database.close() });
}
