-- Makes the two roles of Freshet, and gives the migration role what is in the database already. Postgres plays it by itself for a new volume. For
-- an older one: docs/deploy.md, "Two roles for an older volume". It may be played again: it sets the passwords anew, and changes nothing else.
\set migration_password `cat /run/secrets/postgres_migration_password`
\set runtime_password `cat /run/secrets/postgres_runtime_password`

SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest('{freshet_migration,freshet_runtime}'::text[]) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE freshet_migration PASSWORD :'migration_password';
ALTER ROLE freshet_runtime PASSWORD :'runtime_password';

SELECT format('ALTER DATABASE %I OWNER TO freshet_migration', current_database()) \gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE ON SCHEMA public TO freshet_migration;

-- What an older version has made as the superuser. Indexes and sequences go with their tables.
SELECT format('ALTER SCHEMA %I OWNER TO freshet_migration', nspname) FROM pg_namespace WHERE nspname = 'audit' \gexec
SELECT format('ALTER TABLE %s OWNER TO freshet_migration', c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('public', 'audit') AND c.relkind IN ('r', 'p') \gexec
SELECT format('ALTER FUNCTION %s OWNER TO freshet_migration', p.oid::regprocedure)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'audit' \gexec
