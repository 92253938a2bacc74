import { createHash } from "node:crypto";
import { cpSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { PGlite } from "@electric-sql/pglite";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { StartupError } from "../../src/errors.ts";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { openPostgres } from "../../src/store/database.ts";
import {
  applyMigrations,
  applyMigrationsTo,
  type Known,
  type MigrationSession,
  type OnWarning,
  readMigrations,
} from "../../src/store/migrate.ts";
import { diffToSchema } from "../support/schema-engine.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";

const folder = new URL("../../prisma/migrations/", import.meta.url);

/** The migrations of this version, read as Prisma reads them. */
async function migrations(): Promise<{ name: string; sql: string; checksum: string }[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  return await Promise.all(
    names.sort().map(async (name) => {
      const bytes = await readFile(new URL(`${name}/migration.sql`, folder));
      return { name, sql: bytes.toString("utf8"), checksum: createHash("sha256").update(bytes).digest("hex") };
    }),
  );
}

const givenTo = (known?: Known, onWarning?: OnWarning) => ({
  ...(known && { known }),
  ...(onWarning && { onWarning }),
});

function sessionOf(client: Client): MigrationSession {
  return {
    execute: async (sql) => void (await client.query(sql)),
    query: async <Row>(sql: string, parameters: unknown[] = []) => (await client.query(sql, parameters)).rows as Row[],
  };
}

/** A migration of a version to come. */
const newer = (number: number, breaks: string | null) => {
  const sql = `${breaks === null ? "" : `-- breaks: ${breaks}\n`}CREATE TABLE newer_${number} (id text);`;
  return { name: `2099010100000${number}_newer`, sql, checksum: String(number).repeat(64), breaks };
};

type Query = <Row>(sql: string) => Promise<Row[]>;
type Subject = {
  /** Empty at first. */
  query: Query;
  migrate: (known?: Known, onWarning?: OnWarning) => Promise<void>;
};

async function recordsIn({ query }: Subject) {
  return await query<{ name: string; checksum: string; finished: boolean; steps: number; logs: string | null }>(
    `SELECT migration_name AS name, checksum, finished_at IS NOT NULL AND rolled_back_at IS NULL AS finished,
       applied_steps_count AS steps, logs FROM _prisma_migrations ORDER BY started_at, migration_name`,
  );
}

async function tablesIn({ query }: Subject): Promise<string[]> {
  const tables = await query<{ name: string }>(
    "SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
  );
  return tables.map(({ name }) => name);
}

/** The same for both databases. */
function migrating(empty: () => Promise<Subject>): void {
  it("every migration is applied once and recorded as Prisma does, with its checksum", async () => {
    const subject = await empty();
    await subject.migrate();
    const expected = (await migrations()).map(({ name, checksum }) => ({
      name,
      checksum,
      finished: true,
      steps: 1,
      logs: null,
    }));
    expect(await recordsIn(subject)).toEqual(expected);
    const before = await subject.query("SELECT * FROM _prisma_migrations");
    await subject.migrate();
    expect(await subject.query("SELECT * FROM _prisma_migrations")).toEqual(before);
    expect(await tablesIn(subject)).toContain("connections");
  });

  it("one that failed half-way before stops the start, and says which; one that was rolled back is applied", async () => {
    const subject = await empty();
    await subject.migrate();
    const [{ name } = { name: "" }] = await migrations();
    await subject.query("UPDATE _prisma_migrations SET finished_at = NULL");
    const start = subject.migrate();
    await expect(start).rejects.toThrow(StartupError);
    await expect(start).rejects.toThrow(name);

    await subject.query("UPDATE _prisma_migrations SET rolled_back_at = now()");
    for (const table of await tablesIn(subject)) {
      if (table !== "_prisma_migrations") await subject.query(`DROP TABLE "${table}" CASCADE`);
    }
    await subject.query("DROP SCHEMA audit CASCADE");
    await subject.migrate();
    const count = (await migrations()).length;
    const finished = (await recordsIn(subject)).filter((record) => record.finished);
    expect([finished.length, (await recordsIn(subject)).length]).toEqual([count, 2 * count]);
    expect(await tablesIn(subject)).toContain("connections");
  });

  it("one that fails now leaves nothing, and is applied once the cause is gone", async () => {
    const subject = await empty();
    await subject.query("CREATE TABLE api_keys (id text)");
    await expect(subject.migrate()).rejects.toThrow(/api_keys/);
    expect(await tablesIn(subject)).toEqual(["api_keys"]);
    await subject.query("DROP TABLE api_keys");
    await subject.migrate();
    expect(await tablesIn(subject)).toContain("connections");
  });

  it("one that was applied with another content than this version's is refused, and named", async () => {
    const subject = await empty();
    await subject.migrate();
    const last = (await migrations()).at(-1)?.name ?? "";
    await subject.query(`UPDATE _prisma_migrations SET checksum = repeat('0', 64) WHERE migration_name = '${last}'`);
    const start = subject.migrate();
    await expect(start).rejects.toThrow(StartupError);
    await expect(start).rejects.toThrow(new RegExp(`migration ${last} was applied there with another content`));
  });

  it("those of a newer version are told in one warning, and refused where one says that it breaks this version", async () => {
    const subject = await empty();
    await subject.migrate();
    const own = await readMigrations();
    // The newer version's own start applies them, with its own files.
    await subject.migrate({ migrations: [...own, newer(1, null), newer(2, "1.4.2")], version: "1.5.0" });
    const warned = async (version: string) => {
      const warnings: string[] = [];
      await subject.migrate({ migrations: own, version }, (text) => void warnings.push(text));
      return warnings;
    };
    const told = await warned("1.4.3");
    expect([told.length, told[0]]).toEqual([1, expect.stringMatching(/20990101000001_newer, 20990101000002_newer/)]);
    for (const version of ["1.4.2", "1.4.1", "0.9.9"]) {
      await expect(warned(version)).rejects.toThrow(StartupError);
      await expect(warned(version)).rejects.toThrow(/20990101000002_newer, with which no version up to 1\.4\.2 works/);
    }
    expect((await recordsIn(subject)).length).toBe(own.length + 2);
    await subject.query("UPDATE _prisma_migrations SET logs = '-- breaks: soon' WHERE logs IS NOT NULL");
    await expect(warned("9.9.9")).rejects.toThrow(/up to soon works/);
  });

  it("what a migration breaks is noted, too, where Prisma's own command has applied it", async () => {
    const subject = await empty();
    await subject.migrate();
    const own = await readMigrations();
    const last = { ...(own.at(-1) as (typeof own)[number]), breaks: "0.0.1" };
    await subject.migrate({ migrations: [...own.slice(0, -1), last], version: "0.0.2" });
    expect((await recordsIn(subject)).at(-1)?.logs).toBe("-- breaks: 0.0.1");
    await expect(subject.migrate({ migrations: own.slice(0, -1), version: "0.0.1" })).rejects.toThrow(StartupError);
  });

  it("connections that lack a refresh token, or scopes, when the broker learns to tell are known to do so from then on", async () => {
    const subject = await empty();
    await subject.migrate();
    const old = [
      "('none', 'authorization_code', NULL, now(), '{read}', '{read}', NULL)",
      "('has', 'authorization_code', 'r', now(), '{read,write}', '{read}', NULL)",
      "('endless', 'authorization_code', NULL, NULL, '{read}', '{read}', NULL)",
      "('unattended', 'client_credentials', NULL, now(), '{read}', '{read}', NULL)",
      "('logs-in', 'password', NULL, now(), '{read}', '{read}', 'c')",
    ];
    await subject.query(`INSERT INTO connections (id, name, provider, grant_type, refresh_token_sealed, expires_at, scopes, granted_scopes,
        credentials_sealed, generation, status, enabled_status, access_token_sealed, issued_at, authorized_at)
      SELECT gen_random_uuid(), o.name, 'own', o.grant_type, o.refresh::bytea, o.expires_at, o.scopes::text[], o.granted::text[],
        o.credentials::bytea, 1, 'connected', 'connected', 'a', '2026-11-20T12:00:00Z', '2026-11-20T12:00:00Z'
      FROM (VALUES ${old.join(", ")}) AS o(name, grant_type, refresh, expires_at, scopes, granted, credentials)`);
    const { sql = "" } = (await migrations()).find(({ name }) => name.endsWith("_no_refresh_token")) ?? {};
    const updates = sql.split(";").filter((statement) => statement.includes("UPDATE"));
    expect(updates).toHaveLength(3);
    for (const update of updates) await subject.query(update);
    const lacking = async (column: string) =>
      (
        await subject.query<{ name: string }>(`SELECT name FROM connections WHERE ${column} = '2026-11-20T12:00:00Z'`)
      ).map(({ name }) => name);
    expect([await lacking("no_refresh_token_since"), await lacking("missing_scopes_since")]).toEqual([
      ["none"],
      ["has"],
    ]);
  });
}

/** Each test that uses it empties it first: to make a new one would take seconds. */
let pglite: PGlite;
beforeAll(async () => {
  const { path } = await temporaryFolder("migrations");
  cpSync(fileURLToPath(new URL("../../build/database", import.meta.url)), path, { recursive: true });
  pglite = await PGlite.create(path);
});
afterAll(async () => await pglite.close());

describe("migrations, embedded", () => {
  const session: MigrationSession = {
    execute: async (sql) => void (await pglite.exec(sql)),
    query: async <Row>(sql: string, parameters: unknown[] = []) => (await pglite.query<Row>(sql, parameters)).rows,
  };
  migrating(async () => {
    await pglite.exec("DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS audit CASCADE; CREATE SCHEMA public");
    return {
      query: async (sql) => await session.query(sql),
      migrate: async (known, onWarning) => await applyMigrationsTo(session, givenTo(known, onWarning)),
    };
  });
});

describeWithServices(["postgres"], "migrations, on Postgres", () => {
  const clients: Client[] = [];
  afterAll(async () => void (await Promise.all(clients.map((client) => client.end()))));

  const empty = async () => {
    const databaseUrl = await useDatabase({ empty: true });
    const client = new Client({ connectionString: databaseUrl });
    clients.push(client);
    await client.connect();
    const query: Query = async <Row>(sql: string) => (await client.query(sql)).rows as Row[];
    return {
      databaseUrl,
      query,
      migrate: async (known?: Known, onWarning?: OnWarning) =>
        known === undefined
          ? await applyMigrations({ databaseUrl, ...givenTo(undefined, onWarning) })
          : await applyMigrationsTo(sessionOf(client), givenTo(known, onWarning)),
    };
  };
  migrating(empty);

  it("eight replicas that start at once on an empty database apply them once", async () => {
    const subject = await empty();
    await Promise.all(Array.from({ length: 8 }, () => subject.migrate()));
    expect((await recordsIn(subject)).map(({ name }) => name)).toEqual((await migrations()).map(({ name }) => name));
  });

  it("a failure at start is told as one of DATABASE_URL", async () => {
    const { databaseUrl, query } = await empty();
    await query("CREATE TABLE api_keys (id text)");
    const start = openPostgres(
      databaseUrl,
      createDatabaseHealth(() => 0),
    );
    await expect(start).rejects.toThrow(StartupError);
    await expect(start).rejects.toThrow(/^DATABASE_URL .*api_keys/);
  });
});

describe("schema.prisma", () => {
  it("says what the migrations make", async () => {
    const all = (await migrations()).map(({ sql }) => sql);
    expect((await diffToSchema(pglite, all)).trim()).toBe("-- This is an empty migration.");
  });

  it("and a schema that has drifted from them is noticed", async () => {
    const all = (await migrations()).map(({ sql }) => sql);
    const drift = await diffToSchema(pglite, [
      ...all,
      "ALTER TABLE clients DROP COLUMN provider; DROP INDEX api_keys_created_at_id_idx",
    ]);
    expect(drift).toContain('ALTER TABLE "clients" ADD COLUMN');
    expect(drift).toContain("api_keys_created_at_id_idx");
  });
});
