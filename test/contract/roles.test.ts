import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { StartupError } from "../../src/errors.ts";
import { createDatabaseHealth, openPostgres } from "../../src/store/database.ts";
import { applyMigrations } from "../../src/store/migrate.ts";
import { query, testsName } from "../support/query.ts";
import { describeWithServices, useDatabase, useRole } from "../support/services/index.ts";

const deployPage = readFileSync(new URL("../../docs/deploy.md", import.meta.url), "utf8");
const health = createDatabaseHealth(() => 0);

/** A start with both addresses. */
async function start(migrationUrl: string, runtimeUrl: string): Promise<void> {
  await (await openPostgres(runtimeUrl, health, { migrationUrl })).close();
}

const nowhere = (url: string) => Object.assign(new URL(url), { port: "1" }).href;
const nameOf = (url: string) => new URL(url).username;

/** What a start is refused with, without the names of the roles, which are new ones each time. */
async function refusal(migrationUrl: string, runtimeUrl: string): Promise<string> {
  const error: unknown = await start(migrationUrl, runtimeUrl).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(StartupError);
  const { message } = error as StartupError;
  return message.replaceAll(nameOf(runtimeUrl), "runtime").replaceAll(nameOf(migrationUrl), "migration");
}

const tooMuch = (why: string) =>
  `DATABASE_URL must name a role that may do no more than the broker needs: ${why} (docs/deploy.md, "Two database roles")`;

/** An empty database of a role that is no superuser, and the server's own superuser in it. */
async function ownDatabase() {
  const superUrl = await useDatabase({ empty: true });
  const migrationUrl = await useRole(superUrl);
  await query(superUrl, `ALTER DATABASE "${new URL(superUrl).pathname.slice(1)}" OWNER TO ${nameOf(migrationUrl)}`);
  await query(superUrl, "REVOKE CREATE ON SCHEMA public FROM PUBLIC"); // Postgres 14 lets everybody in
  await query(superUrl, `GRANT CREATE ON SCHEMA public TO ${nameOf(migrationUrl)}`);
  return { superUrl, migrationUrl };
}

let shared: Promise<{ superUrl: string; migrationUrl: string; runtimeUrl: string }> | undefined;

/** One migrated database for every start that is refused. */
function forRefusals() {
  shared ??= ownDatabase().then(async ({ superUrl, migrationUrl }) => {
    const runtimeUrl = await useRole(superUrl);
    await start(migrationUrl, runtimeUrl);
    return { superUrl, migrationUrl, runtimeUrl };
  });
  return shared;
}

/** Every right of a role on a table, a sequence, a function or a schema of Freshet's, as the server says it. */
async function rightsOf(role: string, url: string): Promise<string[]> {
  const rows = await query<{ right: string }>(
    url,
    `SELECT format('%s %s', c.oid::regclass, string_agg(p, ',' ORDER BY p)) AS right
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
       unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
     WHERE n.nspname IN ('public', 'audit') AND c.relkind IN ('r', 'p') AND has_table_privilege($1, c.oid, p) GROUP BY c.oid
     UNION ALL SELECT format('%s USAGE', c.oid::regclass) FROM pg_class c
     WHERE c.relnamespace = 'public'::regnamespace AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege($1, c.oid, 'USAGE') END
     UNION ALL SELECT format('%s EXECUTE', p.oid::regproc) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname = 'audit' AND has_function_privilege($1, p.oid, 'EXECUTE')
     UNION ALL SELECT format('%s CREATE', n.nspname) FROM pg_namespace n
     WHERE n.nspname IN ('public', 'audit') AND has_schema_privilege($1, n.oid, 'CREATE')
     ORDER BY 1`,
    [role],
  );
  return rows.map(({ right }) => right);
}

/** The SQL of a part of docs/deploy.md, block by block, with roles and database of this test in the place of its names. */
function documentedSql(heading: string, prefix: string): string[][] {
  const [, after = ""] = deployPage.split(`\n${heading}\n`);
  const [part = ""] = after.split(/\n##+ /);
  return [...part.matchAll(/```sql\n([\s\S]*?)```/g)].map(([, block = ""]) =>
    block
      .replaceAll(/\bfreshet/g, prefix)
      .split(";\n")
      .filter((statement) => statement.trim() !== ""),
  );
}

const play = async (url: string, statements: readonly string[] = []) => {
  for (const statement of statements) await query(url, statement);
};

/** The same database, or another one of the server, as somebody else. */
const as = (url: string, username: string, database = new URL(url).pathname.slice(1)) =>
  Object.assign(new URL(url), { username, password: "a long password", pathname: `/${database}` }).href;

describeWithServices(["postgres"], "the SQL of docs/deploy.md", () => {
  it("makes a new database of two roles", async () => {
    const superUrl = await useDatabase({ empty: true });
    const name = `${new URL(superUrl).pathname.slice(1)}n`; // dropped when the run ends, as its roles are
    const [made, onFourteen] = documentedSql("### A new database", name);
    await play(superUrl, made);
    const migrationUrl = as(superUrl, `${name}_migration`, name);
    await start(migrationUrl, as(superUrl, `${name}_runtime`, name));
    await play(as(superUrl, new URL(superUrl).username, name), onFourteen);
    await start(migrationUrl, as(superUrl, `${name}_runtime`, name));
    expect([made?.length, onFourteen?.length]).toEqual([3, 2]);
  });

  it("makes two roles of one, with brokers of one role and of two at the same time, and back", async () => {
    const { superUrl, migrationUrl: oneUrl } = await ownDatabase();
    const startOne = async () => await (await openPostgres(oneUrl, health)).close();
    await startOne();
    await query(oneUrl, "INSERT INTO encryption_keys (id, check_sealed) VALUES ('older', 'x')");
    const [moved, ...more] = documentedSql("### From one role to two", nameOf(oneUrl));
    expect([moved?.length, more]).toEqual([3, []]);
    await play(superUrl, moved);
    const runtimeUrl = as(superUrl, `${nameOf(oneUrl)}_runtime`);
    await start(oneUrl, runtimeUrl);
    expect(await query(runtimeUrl, "SELECT id FROM encryption_keys")).toEqual([{ id: "older" }]);
    await startOne();
    await start(oneUrl, runtimeUrl);
    await query(oneUrl, "DELETE FROM audit.entries");
    await expect(query(runtimeUrl, "DELETE FROM audit.entries")).rejects.toThrow("permission denied");
  });
});

describeWithServices(["postgres"], "two roles of Postgres", () => {
  it("the runtime role may use every row of the broker's, add to the audit, and do nothing else", async () => {
    const { superUrl, migrationUrl } = await ownDatabase();
    const runtimeUrl = await useRole(superUrl);
    await start(migrationUrl, runtimeUrl);
    const tables = await query<{ name: string }>(
      superUrl,
      "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_prisma_migrations'",
    );
    expect(tables.length).toBeGreaterThan(10);
    expect(await rightsOf(nameOf(runtimeUrl), superUrl)).toEqual(
      [
        ...tables.map(({ name }) => `${name} DELETE,INSERT,SELECT,UPDATE`),
        "_prisma_migrations SELECT",
        "connection_events_id_seq USAGE",
        "audit.entries INSERT,SELECT",
        "audit.open_reads DELETE,INSERT,SELECT",
        "audit.anchors SELECT",
        "audit.settings SELECT",
        "audit.maintain EXECUTE",
        "audit.prune EXECUTE",
      ].toSorted(),
    );
    for (const statement of [
      "DELETE FROM audit.entries",
      "UPDATE audit.entries SET result = 'done'",
      "TRUNCATE audit.entries",
      "DELETE FROM audit.entries_default",
      "UPDATE audit.settings SET retention_days = 1",
      "DROP TABLE connections",
      "ALTER TABLE audit.entries DISABLE TRIGGER ALL",
      "CREATE TABLE mine (id int)",
      "DELETE FROM _prisma_migrations",
    ]) {
      await expect(query(runtimeUrl, statement), statement).rejects.toThrow(/permission denied|must be owner/);
    }
    const month = await query(runtimeUrl, "SELECT audit.maintain()");
    expect(month).toHaveLength(1);
  });

  it("a table that is added later is the runtime role's, too, from the next start on; and a start that finds all right changes nothing", async () => {
    const { superUrl, migrationUrl } = await ownDatabase();
    const runtimeUrl = await useRole(superUrl);
    await start(migrationUrl, runtimeUrl);
    await query(migrationUrl, "CREATE TABLE later (id bigserial)");
    await query(superUrl, "CREATE TABLE foreign_one (id bigserial)");
    await expect(query(runtimeUrl, "SELECT * FROM later")).rejects.toThrow("permission denied");
    await start(migrationUrl, runtimeUrl);
    expect(await query(runtimeUrl, "INSERT INTO later DEFAULT VALUES RETURNING id")).toHaveLength(1);
    await expect(query(runtimeUrl, "SELECT * FROM foreign_one")).rejects.toThrow("permission denied");
    const versions = async () => await query(superUrl, "SELECT oid, xmin FROM pg_class ORDER BY oid");
    const before = await versions();
    await start(migrationUrl, runtimeUrl);
    expect(await versions()).toEqual(before);
  });

  it("several starts at once give the rights once, and none of them fails", async () => {
    const { superUrl, migrationUrl } = await forRefusals();
    const runtimeUrl = await useRole(superUrl);
    await Promise.all([1, 2, 3, 4, 5, 6].map(async () => await start(migrationUrl, runtimeUrl)));
    expect(await query(runtimeUrl, "SELECT * FROM connections")).toEqual([]);
  });

  /** `given`: what makes the role one of this kind; `back`: what makes it a right one again, which is also what is told. */
  it.for<{ what: string; given: string; back: string; why: string }>([
    {
      what: "a superuser",
      given: "ALTER ROLE runtime SUPERUSER",
      why: `"runtime" has the attribute SUPERUSER; name another one, or`,
      back: `ALTER ROLE "runtime" NOSUPERUSER`,
    },
    {
      what: "one that makes roles",
      given: "ALTER ROLE runtime CREATEROLE",
      why: `"runtime" has the attribute CREATEROLE; name another one, or`,
      back: `ALTER ROLE "runtime" NOCREATEROLE`,
    },
    {
      what: "one that runs programs on the server",
      given: "GRANT pg_execute_server_program TO runtime",
      why: `"runtime" is a member of pg_execute_server_program`,
      back: `REVOKE pg_execute_server_program FROM "runtime"`,
    },
    {
      what: "one that writes every table",
      given: "GRANT pg_write_all_data TO runtime",
      why: `"runtime" is a member of pg_write_all_data`,
      back: `REVOKE pg_write_all_data FROM "runtime"`,
    },
    {
      what: "a member of the owner",
      given: "GRANT migration TO runtime",
      why: `"runtime" may act as its owner "migration"`,
      back: `REVOKE "migration" FROM "runtime"`,
    },
    {
      what: "one that may make objects beside the tables",
      given: "GRANT CREATE ON SCHEMA public TO PUBLIC",
      why: `"runtime" may make objects there`,
      back: `REVOKE CREATE ON SCHEMA public FROM "runtime", PUBLIC`,
    },
    {
      what: "one that may make schemas",
      given: "GRANT CREATE ON DATABASE here TO runtime",
      why: `"runtime" may make objects there`,
      back: `REVOKE CREATE ON DATABASE here FROM "runtime", PUBLIC`,
    },
    {
      what: "one that may delete from the audit",
      given: "GRANT DELETE ON audit.entries TO PUBLIC",
      why: `"runtime" may change what nobody may change`,
      back: `REVOKE DELETE ON audit.entries FROM "runtime", PUBLIC`,
    },
    {
      what: "one that may change a column of the audit",
      given: "GRANT UPDATE (result) ON audit.entries TO runtime",
      why: `"runtime" may change what nobody may change`,
      back: `REVOKE UPDATE ON audit.entries FROM "runtime", PUBLIC`,
    },
    {
      what: "one that may empty a partition",
      given: "GRANT TRUNCATE ON audit.entries_default TO runtime",
      why: `"runtime" may change what nobody may change`,
      back: `REVOKE TRUNCATE ON audit.entries_default FROM "runtime", PUBLIC`,
    },
    {
      what: "one that may shorten the retention",
      given: "GRANT UPDATE ON audit.settings TO runtime",
      why: `"runtime" may change what nobody may change`,
      back: `REVOKE UPDATE ON audit.settings FROM "runtime", PUBLIC`,
    },
  ])("the runtime role is refused if it is $what, and what the start says mends it", async ({ given, why, back }) => {
    const { superUrl, migrationUrl, runtimeUrl } = await forRefusals();
    const here = new URL(superUrl).pathname.slice(1);
    const named = (text: string) =>
      text
        .replaceAll("runtime", nameOf(runtimeUrl))
        .replaceAll("migration", nameOf(migrationUrl))
        .replaceAll("here", here);
    await query(superUrl, named(given));
    const said = await refusal(migrationUrl, runtimeUrl);
    expect(said.replaceAll(here, "here")).toBe(tooMuch(why.endsWith(" or") ? `${why} ${back}` : `${why}; ${back}`));
    await query(superUrl, named(back));
    await start(migrationUrl, runtimeUrl);
  });

  it("the runtime role is refused if it owns a table", async () => {
    const { superUrl, migrationUrl, runtimeUrl } = await forRefusals();
    await query(superUrl, `ALTER TABLE connections OWNER TO ${nameOf(runtimeUrl)}`);
    const why = `"runtime" owns the database, a schema or a table of it; name another one`;
    expect(await refusal(migrationUrl, runtimeUrl)).toBe(tooMuch(why));
    await query(superUrl, `ALTER TABLE connections OWNER TO ${nameOf(migrationUrl)}`);
  });

  it("a version before, which knows one role only, starts with the runtime role where nothing is to be migrated", async () => {
    const { runtimeUrl } = await forRefusals();
    await applyMigrations({ databaseUrl: runtimeUrl });
  });

  it("one role for both is refused, and told", async () => {
    const { migrationUrl } = await forRefusals();
    const said = await refusal(migrationUrl, migrationUrl);
    expect(said).toBe(tooMuch(`it names "runtime", as DATABASE_MIGRATION_URL does; name another one`));
  });

  it("addresses of two databases are refused before anything is made in either", async () => {
    const { superUrl, migrationUrl } = await ownDatabase();
    const other = new URL(await useRole(superUrl));
    other.pathname = new URL(await useDatabase({ empty: true })).pathname;
    expect(await refusal(migrationUrl, other.href)).toMatch(
      /^DATABASE_URL and DATABASE_MIGRATION_URL must lead to the same database, and they lead to two: correct host, port or name in one of them/,
    );
    for (const url of [superUrl, other.href]) {
      expect(await query(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).toEqual([]);
    }
  });

  it("an address that does not let the broker in is told by its variable", async () => {
    const { superUrl, migrationUrl } = await forRefusals();
    const cause = "must lead to a Postgres that takes this broker in: nothing listens at its host and port";
    expect(await refusal(nowhere(migrationUrl), await useRole(superUrl))).toContain(`DATABASE_MIGRATION_URL ${cause}`);
    expect(await refusal(migrationUrl, nowhere(await useRole(superUrl)))).toContain(`DATABASE_URL ${cause}`);
  });

  it("what the start does on its own session, it does as the migration role, and the broker never has that role", async () => {
    const { superUrl, migrationUrl, runtimeUrl } = await forRefusals();
    const roles: string[] = [];
    const database = await openPostgres(runtimeUrl, health, {
      migrationUrl,
      async afterwards(session) {
        const rows = await session.query<{ role: string }>("SELECT current_user::text AS role");
        roles.push(...rows.map(({ role }) => role));
      },
    });
    for (const pool of [database.prisma, database.commits]) {
      const rows = await pool.$queryRaw<{ role: string }[]>`SELECT current_user::text AS role`;
      roles.push(...rows.map(({ role }) => role));
    }
    const sessions = await query<{ role: string }>(
      superUrl,
      "SELECT DISTINCT usename::text AS role FROM pg_stat_activity WHERE datname = current_database() AND application_name <> $1",
      [testsName],
    );
    await database.close();
    const [owner, runtime] = [nameOf(migrationUrl), nameOf(runtimeUrl)];
    expect(roles).toEqual([owner, runtime, runtime]);
    expect(sessions.map(({ role }) => role)).toEqual([runtime]);
  });
});
