-- The audit: who did what, append-only. docs/internals/audit.md says who may do what here, and why there are no keys.
CREATE SCHEMA audit;

-- `detail` is json, which keeps its text as it is: the hash covers it.
CREATE TABLE audit.entries (
  at TIMESTAMPTZ(3) NOT NULL,
  seq BIGINT NOT NULL,
  process UUID NOT NULL,
  actor_kind TEXT NOT NULL,
  actor_id TEXT,
  actor_name TEXT,
  action TEXT NOT NULL,
  target_kind TEXT,
  target_name TEXT,
  address TEXT,
  result TEXT NOT NULL,
  detail JSON,
  hash BYTEA NOT NULL,
  mac TEXT NOT NULL
) PARTITION BY RANGE (at);

CREATE INDEX entries_at_idx ON audit.entries (at);
CREATE INDEX entries_actor_idx ON audit.entries (COALESCE(actor_id, actor_name), at);
CREATE INDEX entries_target_idx ON audit.entries (target_name, at) WHERE target_name IS NOT NULL;
CREATE INDEX entries_action_idx ON audit.entries (action, at);
CREATE INDEX entries_chain_idx ON audit.entries (process, seq);

CREATE TABLE audit.entries_default PARTITION OF audit.entries DEFAULT;

-- Counts of token reads, some seconds at a time, until their minute is over. `flush`: which of its process; one whose end it does not know is
-- written again, and must not count twice.
CREATE TABLE audit.open_reads (
  flush BIGINT NOT NULL,
  minute TIMESTAMPTZ(3) NOT NULL,
  process UUID NOT NULL,
  action TEXT NOT NULL,
  actor_kind TEXT NOT NULL,
  actor_id TEXT,
  actor_name TEXT,
  connection TEXT,
  result TEXT NOT NULL,
  count BIGINT NOT NULL,
  first TIMESTAMPTZ(3) NOT NULL,
  last TIMESTAMPTZ(3) NOT NULL
);
CREATE INDEX open_reads_minute_idx ON audit.open_reads (minute);
CREATE INDEX open_reads_flush_idx ON audit.open_reads (process, flush);

-- The last row that was pruned of each chain, as it was, and the hash before it: so its hash proves its time, also when its key is gone.
CREATE TABLE audit.anchors (LIKE audit.entries, previous_hash BYTEA NOT NULL);
CREATE INDEX anchors_process_idx ON audit.anchors (process);

CREATE TABLE audit.settings (retention_days INTEGER NOT NULL CHECK (retention_days > 0));
INSERT INTO audit.settings VALUES (400);

-- A month's partition, with the rows that the default partition has got for it meanwhile. Attaching it locks nobody out who inserts: only the
-- default partition is locked, for as long as it is looked through. If anything is in the way, the default partition goes on taking the rows.
CREATE FUNCTION audit.add_partition(month TIMESTAMPTZ) RETURNS VOID LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '1s' AS $$
DECLARE
  name TEXT := 'entries_' || to_char(month, 'YYYY_MM');
  following TIMESTAMPTZ := month + interval '1 month';
BEGIN
  IF to_regclass('audit.' || name) IS NOT NULL THEN RETURN; END IF;
  EXECUTE format('CREATE TABLE audit.%I (LIKE audit.entries INCLUDING INDEXES, CHECK (at >= %L AND at < %L))', name, month, following);
  EXECUTE format('WITH strays AS (DELETE FROM audit.entries_default WHERE at >= %L AND at < %L RETURNING *)
    INSERT INTO audit.%I SELECT * FROM strays', month, following, name);
  EXECUTE format('ALTER TABLE audit.entries ATTACH PARTITION audit.%I FOR VALUES FROM (%L) TO (%L)', name, month, following);
EXCEPTION WHEN lock_not_available OR check_violation OR deadlock_detected OR duplicate_table THEN
  RETURN;
END $$;

-- Removes up to `batch` rows that are older: of each chain the lowest numbers, up to the first row that is kept, so that what is left of a
-- chain is always its end. Its last row becomes the anchor. Then drops partitions that are empty, if nobody uses the table at this moment.
CREATE FUNCTION audit.remove_before(before TIMESTAMPTZ, batch INTEGER) RETURNS INTEGER LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '1s' AS $$
DECLARE
  removed INTEGER := 0;
  taken INTEGER;
  chain UUID;
  kept BIGINT;
  newest audit.entries;
  previous BYTEA;
  part TEXT;
  is_empty BOOLEAN;
BEGIN
  FOR chain IN
    WITH RECURSIVE chains AS (
      (SELECT e.process FROM audit.entries e ORDER BY e.process LIMIT 1)
      UNION ALL
      SELECT (SELECT e.process FROM audit.entries e WHERE e.process > c.process ORDER BY e.process LIMIT 1)
      FROM chains c WHERE c.process IS NOT NULL)
    SELECT c.process FROM chains c WHERE c.process IS NOT NULL
  LOOP
    SELECT COALESCE(min(e.seq) FILTER (WHERE e.at >= before), max(e.seq) + 1) INTO kept
      FROM (SELECT l.seq, l.at FROM audit.entries l WHERE l.process = chain ORDER BY l.seq LIMIT batch - removed) e;
    SELECT * INTO newest FROM audit.entries e WHERE e.process = chain AND e.seq < kept ORDER BY e.seq DESC LIMIT 1;
    CONTINUE WHEN NOT FOUND;
    previous := COALESCE(
      (SELECT e.hash FROM audit.entries e WHERE e.process = chain AND e.seq < newest.seq ORDER BY e.seq DESC LIMIT 1),
      (SELECT a.hash FROM audit.anchors a WHERE a.process = chain ORDER BY a.seq DESC LIMIT 1),
      decode(repeat('00', 32), 'hex'));
    DELETE FROM audit.anchors a WHERE a.process = chain;
    INSERT INTO audit.anchors SELECT newest.*, previous;
    DELETE FROM audit.entries e WHERE e.process = chain AND e.seq < kept;
    GET DIAGNOSTICS taken = ROW_COUNT;
    removed := removed + taken;
    EXIT WHEN removed >= batch;
  END LOOP;
  FOR part IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'audit.entries'::regclass AND c.relname ~ '^entries_\d{4}_\d{2}$'
      AND (to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month')::timestamptz <= before
  LOOP
    BEGIN
      EXECUTE format('SELECT NOT EXISTS (SELECT FROM audit.%I)', part) INTO is_empty;
      CONTINUE WHEN NOT is_empty;
      EXECUTE format('LOCK TABLE ONLY audit.entries, ONLY audit.%I IN ACCESS EXCLUSIVE MODE NOWAIT', part);
      EXECUTE format('SELECT NOT EXISTS (SELECT FROM audit.%I)', part) INTO is_empty;
      IF is_empty THEN EXECUTE format('DROP TABLE audit.%I', part); END IF;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      CONTINUE;
    END;
  END LOOP;
  RETURN removed;
END $$;

-- Makes the partitions of this month and the next two, and the default partition if somebody has dropped it, and removes up to `batch` rows of months that are over and older than the retention.
-- Call it again while it returns `batch`. Of replicas that come at the same moment one does it.
CREATE FUNCTION audit.maintain(batch INTEGER DEFAULT 10000) RETURNS INTEGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '1s' AS $$
BEGIN
  IF NOT pg_try_advisory_xact_lock(5721990143) THEN RETURN 0; END IF;
  IF to_regclass('audit.entries_default') IS NULL THEN
    CREATE TABLE audit.entries_default PARTITION OF audit.entries DEFAULT;
  END IF;
  PERFORM audit.add_partition(date_trunc('month', now()) + make_interval(months => n)) FROM generate_series(0, 2) n;
  RETURN audit.remove_before(
    date_trunc('month', now() - make_interval(days => (SELECT max(retention_days) FROM audit.settings))), batch);
END $$;

-- The same up to a time. Refuses a time within the retention.
CREATE FUNCTION audit.prune(before TIMESTAMPTZ, batch INTEGER DEFAULT 10000) RETURNS INTEGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '1s' AS $$
DECLARE
  days INTEGER := (SELECT max(retention_days) FROM audit.settings);
BEGIN
  IF days IS NULL OR before IS NULL OR before > now() - make_interval(days => days) THEN
    RAISE EXCEPTION 'audit entries of the last % days cannot be removed', days USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN audit.remove_before(before, batch);
END $$;

REVOKE ALL ON FUNCTION audit.add_partition(TIMESTAMPTZ), audit.remove_before(TIMESTAMPTZ, INTEGER), audit.maintain(INTEGER),
  audit.prune(TIMESTAMPTZ, INTEGER) FROM PUBLIC;

SELECT audit.maintain();
