import { randomInt } from "node:crypto";
import { Client } from "pg";
import { StartupError } from "../errors.ts";
import { storeTimes } from "../time.ts";
import { refused } from "./database-errors.ts";
import type { MigrationSession } from "./migrate.ts";

/**
 * The name of the role that DATABASE_URL logs in with, as the server says it. Called before anything is migrated: a wrong address must not
 * get tables into another database.
 * @throws StartupError when the two addresses lead to two databases
 */
export async function findRuntimeRole(session: MigrationSession, runtimeUrl: string): Promise<string> {
  const client = new Client({ connectionString: runtimeUrl, connectionTimeoutMillis: storeTimes.migrationConnectMs });
  client.on("error", () => {}); // a lost connection also fails the query that is running
  // A lock that one session takes and the other one sees. Names and identifiers are the same in a copy of the database, too.
  const key = [randomInt(2 ** 31), randomInt(2 ** 31)];
  await session.execute("BEGIN");
  try {
    await session.query("SELECT pg_advisory_xact_lock($1::int, $2::int)::text", key);
    await client.connect();
    const { rows } = await client.query<{ role: string; isSame: boolean }>(
      `SELECT current_user::text AS role, EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
         WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objsubid = 2
           AND l.classid = $1::oid AND l.objid = $2::oid) AS "isSame"`,
      key,
    );
    if (rows[0]?.isSame === true) return rows[0].role;
  } catch (error) {
    throw refused(error, "DATABASE_URL");
  } finally {
    await session.execute("ROLLBACK");
    await client.end();
  }
  throw new StartupError(
    "DATABASE_URL and DATABASE_MIGRATION_URL must lead to the same database, and they lead to two: correct host, port or name in one of them; a standby, and a copy, is another database",
  );
}

/** What the runtime role may do with tables of the schema `audit` (docs/internals/audit.md). It may do nothing else there. */
const auditRights = [
  ["entries", "{SELECT,INSERT}"],
  ["open_reads", "{SELECT,INSERT,DELETE}"],
  ["anchors", "{SELECT}"],
  ["settings", "{SELECT}"],
] as const;
/** They run as the migration role, and let in what the rules of the audit allow. */
const auditFunctions = "('maintain', 'prune')";

/**
 * The rights that the role $1 needs and lacks, each as a GRANT. What the migration role does not own is not Freshet's, and is left alone. The list of migrations
 * is there to be read: a version before, to which somebody goes back, starts with this role alone, and looks whether anything is to be done.
 */
const missingGrants = `
  WITH rights(object, oid, kind, name) AS MATERIALIZED (
    SELECT format('TABLE %s', c.oid::regclass), c.oid, 'table',
      unnest(CASE c.relname WHEN '_prisma_migrations' THEN '{SELECT}' ELSE '{SELECT,INSERT,UPDATE,DELETE}' END::text[])
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')
    UNION ALL
    SELECT format('SEQUENCE %s', c.oid::regclass), c.oid, 'sequence', 'USAGE'
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S' AND pg_has_role(c.relowner, 'USAGE')
    UNION ALL
    SELECT format('TABLE %s', c.oid::regclass), c.oid, 'table', unnest(a.rights::text[])
    FROM (VALUES ${auditRights.map(([name, rights]) => `('${name}', '${rights}')`).join(", ")}) AS a(name, rights)
    JOIN pg_class c ON c.oid = to_regclass('audit.' || a.name)
    UNION ALL
    SELECT format('SCHEMA %I', n.nspname), n.oid, 'schema', 'USAGE'
    FROM pg_namespace n WHERE n.nspname IN ('public', 'audit')
    UNION ALL
    SELECT format('FUNCTION %s', p.oid::regprocedure), p.oid, 'function', 'EXECUTE'
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'audit' AND p.proname IN ${auditFunctions}
  )
  SELECT format('GRANT %s ON %s TO %I', name, object, $1::text) AS grant FROM rights
  WHERE NOT CASE kind
    WHEN 'table' THEN has_table_privilege($1, oid, name)
    WHEN 'sequence' THEN has_sequence_privilege($1, oid, name)
    WHEN 'schema' THEN has_schema_privilege($1, oid, name)
    ELSE has_function_privilege($1, oid, name)
  END`;

/** Called after the migrations at every start, under their lock: a migration of a later version may have added a table. */
export async function grantToRuntimeRole(session: MigrationSession, role: string): Promise<void> {
  const missing = await session.query<{ grant: string }>(missingGrants, [role]);
  if (missing.length > 0) await session.execute(missing.map(({ grant }) => grant).join("; "));
}

type Excess = {
  migrationRole: string;
  /** What makes a role as good as a superuser, or able to become the owner. */
  power: string | null;
  /** An owner of the schema that it may act as. */
  owner: string | null;
  /** Where it may make objects. In a schema that the migrations look into, these could pass for the schema's own. */
  creates: string | null;
  /** A right on a table of the audit, such as `DELETE ON audit.entries`. */
  right: string | null;
};

const excess = `
  SELECT current_user::text AS "migrationRole",
    (SELECT CASE
       WHEN r.rolsuper THEN 'SUPERUSER'
       WHEN r.rolcreaterole THEN 'CREATEROLE'
       ELSE (SELECT min(p.rolname) FROM pg_roles p
         WHERE p.rolname IN ('pg_execute_server_program', 'pg_write_all_data', 'pg_write_server_files') AND pg_has_role(r.oid, p.oid, 'MEMBER'))
     END FROM pg_roles r WHERE r.rolname = $1) AS power,
    (SELECT pg_get_userbyid(o.id) FROM (
       SELECT datdba FROM pg_database WHERE datname = current_database()
       UNION SELECT nspowner FROM pg_namespace WHERE nspname IN ('public', 'audit')
       UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('public', 'audit') AND c.relkind IN ('r', 'p', 'S')
       UNION SELECT p.proowner FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'audit'
       UNION SELECT oid FROM pg_roles WHERE rolname = current_user
     ) AS o(id) WHERE pg_has_role($1, o.id, 'MEMBER')
     ORDER BY pg_get_userbyid(o.id) = $1 DESC, 1 LIMIT 1) AS owner,
    (SELECT min(s.place) FROM (
       SELECT format('SCHEMA %I', nspname) FROM pg_namespace
         WHERE nspname IN ('public', 'audit') AND has_schema_privilege($1, oid, 'CREATE')
       UNION ALL SELECT format('DATABASE %I', current_database())
         WHERE has_database_privilege($1, current_database(), 'CREATE')
     ) AS s(place)) AS creates,
    (SELECT format('%s ON %s', p.name, c.oid::regclass)
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest('{INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) AS p(name)
     WHERE n.nspname = 'audit' AND c.relkind IN ('r', 'p') AND c.relname <> 'open_reads'
       AND (p.name <> 'INSERT' OR c.relname IN ('anchors', 'settings'))
       AND CASE WHEN p.name IN ('INSERT', 'UPDATE') THEN has_any_column_privilege($1, c.oid, p.name)
         ELSE has_table_privilege($1, c.oid, p.name) END
     ORDER BY c.relname, p.name LIMIT 1) AS right`;

/**
 * Append-only entries of the audit rest on what the runtime role cannot do.
 * @throws StartupError for a role that may do more than the broker needs, with what to do
 */
export async function requireLittleOf(session: MigrationSession, role: string): Promise<void> {
  const [found] = await session.query<Excess>(excess, [role]);
  const why = found === undefined ? null : tooMuch(role, found);
  if (why !== null) {
    throw new StartupError(`DATABASE_URL must name a role that may do no more than the broker needs: ${why} (${page})`);
  }
}

const page = 'docs/deploy.md, "Two database roles"';

function tooMuch(name: string, { migrationRole, power, owner, creates, right }: Excess): string | null {
  const role = quoted(name);
  if (name === migrationRole) return `it names ${role}, as DATABASE_MIGRATION_URL does; name another one`;
  if (power?.startsWith("pg_")) return `${role} is a member of ${power}; REVOKE ${power} FROM ${role}`;
  if (power !== null) return `${role} has the attribute ${power}; name another one, or ALTER ROLE ${role} NO${power}`;
  if (name === owner) return `${role} owns the database, a schema or a table of it; name another one`;
  if (owner !== null) return `${role} may act as its owner ${quoted(owner)}; REVOKE ${quoted(owner)} FROM ${role}`;
  if (creates !== null) return `${role} may make objects there; REVOKE CREATE ON ${creates} FROM ${role}, PUBLIC`;
  return right === null ? null : `${role} may change what nobody may change; REVOKE ${right} FROM ${role}, PUBLIC`;
}

/** As it stands in SQL. */
const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;
