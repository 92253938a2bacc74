import { Prisma as Sql } from "../generated/prisma/client.ts";
import { refreshTimes, retentionTimes } from "../time.ts";
import type { Database } from "./database.ts";
import { addEvents, freePermit, nextDue, seconds } from "./row-sql.ts";
import { tokenColumns, type TokenRow } from "./token-row.ts";

/** A connection's newest generation and version, as its mark outside of the database holds them. */
export type GenerationMark = { connectionId: string; generation: number; version: number };

const tidyBatch = 10_000;

/** The statements of the sweeper, and of suspended rows: those that a restored database has taken back in time. */
export function createDueStatements({ prisma, direct }: Pick<Database, "prisma" | "direct">) {
  /**
   * Lines are made in the order of their ids, and `at` of one moves on for a day at most: so the old ones are the first. Goes on until a batch has
   * none. An index on `at` would make every refresh that counts in a line write all indexes of the table.
   */
  const tidyHistory = async (): Promise<void> => {
    for (let after = 0n, deleted = 1; deleted > 0;) {
      const [page] = await prisma.$queryRaw<{ last: bigint | null }[]>`
        SELECT max(p.id) AS last FROM (SELECT id FROM connection_events WHERE id > ${after} ORDER BY id LIMIT ${tidyBatch}) p`;
      if (page === undefined || page.last === null) return;
      deleted = await prisma.$executeRaw`
        DELETE FROM connection_events WHERE ctid = ANY(ARRAY(SELECT ctid FROM connection_events
          WHERE id > ${after} AND id <= ${page.last} AND at < ${hoursAgo(24 * retentionTimes.eventDays)} FOR UPDATE SKIP LOCKED))`;
      after = page.last;
    }
  };

  /** Looks at all of them, batch by batch: an index on a time would make every request write it. */
  const tidyLimits = async (): Promise<void> => {
    for (let after = ""; ;) {
      const [page] = await prisma.$queryRaw<{ last: string | null }[]>`
        SELECT max(p.key) AS last FROM (SELECT key FROM request_limits WHERE key > ${after} ORDER BY key LIMIT ${tidyBatch}) p`;
      if (page === undefined || page.last === null) return;
      await prisma.$executeRaw`
        DELETE FROM request_limits WHERE ctid = ANY(ARRAY(SELECT ctid FROM request_limits
          WHERE key > ${after} AND key <= ${page.last}
            AND GREATEST(closed_until, asked_at + GREATEST(make_interval(hours => ${retentionTimes.limitHours}::int),
              make_interval(secs => keep_seconds))) < statement_timestamp() - ${seconds(retentionTimes.limitRestSeconds)}
          FOR UPDATE SKIP LOCKED))`;
      after = page.last;
    }
  };

  return {
    /**
     * Claims up to `limit` due rows. No other replica gets them for `claimSeconds`. Skips rows that another replica is claiming at this moment,
     * and those of `busyProviders`. By `statement_timestamp()`: an index answers no comparison with `clock_timestamp()`, which changes from row to row.
     */
    async claimDue(given: {
      limit: number;
      claimSeconds: number;
      busyProviders: readonly string[];
    }): Promise<TokenRow[]> {
      const { limit, claimSeconds, busyProviders } = given;
      const { text, values } = Sql.sql`
        UPDATE connections c SET next_refresh_at = clock_timestamp()
          + CASE WHEN c.attempt_id IS NULL THEN ${seconds(claimSeconds)} ELSE ${seconds(refreshTimes.abandonedClaimSeconds)} END
        WHERE c.id IN (SELECT d.id FROM connections d
          WHERE d.next_refresh_at <= statement_timestamp() AND d.status IN ('connected', 'pending')
            AND d.gone_back_from IS NULL AND d.provider <> ALL(${busyProviders}::text[])
          ORDER BY d.next_refresh_at LIMIT ${limit} FOR UPDATE SKIP LOCKED)
        RETURNING ${tokenColumns}`;
      return await direct<TokenRow>({ name: "claim_due", text }, values);
    },

    /** A claimed row is looked at again after `afterSeconds`; null: never. A row that has moved on is left as it is. */
    async postpone({ id, generation }: { id: string; generation: number }, afterSeconds: number | null): Promise<void> {
      const next = afterSeconds === null ? Sql.sql`NULL` : Sql.sql`clock_timestamp() + ${seconds(afterSeconds)}`;
      await prisma.$executeRaw`
        UPDATE connections c SET next_refresh_at = ${next}
        WHERE c.id = ${id}::uuid AND c.generation = ${generation} AND c.next_refresh_at IS NOT NULL
          AND c.attempt_id IS NULL`;
    },

    /** Makes a row due now, so that the next sweep of any replica takes it. Not while it is being refreshed. */
    async hasten({ id, generation }: { id: string; generation: number }): Promise<void> {
      await prisma.$executeRaw`
        UPDATE connections c SET next_refresh_at = clock_timestamp()
        WHERE c.id = ${id}::uuid AND c.generation = ${generation} AND c.attempt_id IS NULL
          AND (c.next_refresh_at IS NULL OR c.next_refresh_at > clock_timestamp())`;
    },

    /**
     * Notes that callers read these tokens, so that they are refreshed ahead of need. Each is noted once. Returns those whose rows
     * are locked at this moment: they are left out, since the rest must not wait for them.
     */
    async markInUse(
      read: readonly { id: string; generation: number }[],
    ): Promise<{ id: string; generation: number }[]> {
      const ids = read.map(({ id }) => id);
      const generations = read.map(({ generation }) => generation);
      const due = Sql.sql`CASE WHEN c.attempt_id IS NOT NULL OR c.refresh_due_at IS NULL THEN c.next_refresh_at
        ELSE GREATEST(LEAST(c.refresh_due_at, c.keep_alive_at), c.backoff_until) END`;
      return await prisma.$queryRaw`
        WITH wanted AS (SELECT w.id FROM unnest(${ids}::uuid[], ${generations}::int[]) AS r(id, generation)
            JOIN connections w ON w.id = r.id AND w.generation = r.generation WHERE NOT w.in_use),
          free AS MATERIALIZED (SELECT f.id FROM connections f WHERE f.id IN (SELECT id FROM wanted)
            FOR NO KEY UPDATE SKIP LOCKED),
          noted AS (UPDATE connections c SET in_use = true, next_refresh_at = ${due}
            FROM unnest(${ids}::uuid[], ${generations}::int[]) AS r(id, generation)
            WHERE c.id = r.id AND c.generation = r.generation AND NOT c.in_use AND c.id IN (SELECT id FROM free))
        SELECT r.id::text, r.generation FROM unnest(${ids}::uuid[], ${generations}::int[]) AS r(id, generation)
        WHERE r.id IN (SELECT id FROM wanted EXCEPT SELECT id FROM free)`;
    },

    /** Suspends the rows that are older than their marks, and returns them. Other rows are left alone. */
    async suspendRestored(marks: readonly GenerationMark[]): Promise<TokenRow[]> {
      const ids = marks.map(({ connectionId }) => connectionId);
      const generations = marks.map(({ generation }) => generation);
      const versions = marks.map(({ version }) => version);
      return await prisma.$queryRaw`
        WITH c AS (UPDATE connections u SET gone_back_from = m.generation, gone_back_at = clock_timestamp(),
            version_floor = GREATEST(u.version_floor, m.version), updated_at = clock_timestamp()
          FROM unnest(${ids}::uuid[], ${generations}::int[], ${versions}::int[]) AS m(id, generation, version)
          WHERE u.id = m.id AND u.generation < m.generation AND u.gone_back_from IS DISTINCT FROM m.generation
          RETURNING u.*, m.generation AS mark),
        event AS (INSERT INTO connection_events (connection_id, type, detail)
          SELECT c.id, 'held_after_restore', jsonb_build_object('generation', c.generation, 'stored_before', c.mark) FROM c)
        SELECT ${tokenColumns} FROM c`;
    },

    /** Newest generations, in the order of ids, for the comparison with their marks. */
    async generationsAfter(connectionId: string | null, limit: number): Promise<GenerationMark[]> {
      return await prisma.$queryRaw`
        SELECT c.id::text AS "connectionId", c.generation, GREATEST(c.version, c.version_floor)::int AS version FROM connections c
        WHERE ${connectionId}::uuid IS NULL OR c.id > ${connectionId}::uuid ORDER BY c.id LIMIT ${limit}`;
    },

    /** Rows that are suspended. */
    async goneBack(): Promise<TokenRow[]> {
      return await prisma.$queryRaw`SELECT ${tokenColumns} FROM connections c WHERE c.gone_back_from IS NOT NULL
        ORDER BY c.name`;
    },

    /**
     * An operator releases a suspended row as it is: it may be refreshed again, under the generation that it had before the database
     * went back. `tokens`: the same ones, sealed for that generation. Null: the row is no longer suspended as it was read.
     */
    async releaseGoneBack(
      row: { id: string; generation: number; goneBackFrom: number },
      tokens: { accessToken: Uint8Array<ArrayBuffer> | null; refreshToken: Uint8Array<ArrayBuffer> | null },
      by: string,
    ): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET generation = c.gone_back_from, gone_back_from = NULL, ${freePermit},
          access_token_sealed = ${tokens.accessToken}, refresh_token_sealed = ${tokens.refreshToken},
          backoff_until = NULL, updated_at = clock_timestamp(), next_refresh_at = ${nextDue(Sql.sql`clock_timestamp()`)}
          WHERE c.id = ${row.id}::uuid AND c.generation = ${row.generation} AND c.gone_back_from = ${row.goneBackFrom}
          RETURNING c.*),
        ${addEvents([{ type: "released_after_restore", detail: { by } }])}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /**
     * Deletes what need not be kept: how to revoke the grants of deleted connections, old lines of the history, unreadable answers, and
     * limits that nobody uses. Locked rows are left for the next time. Each statement looks at a batch, found by an index.
     */
    async tidy(): Promise<void> {
      await inBatches(
        () => prisma.$executeRaw`
          UPDATE tombstones SET client_ref = NULL, inputs = '{}', captured = '{}'
          WHERE name = ANY(ARRAY(SELECT name FROM tombstones
            WHERE deleted_at < ${hoursAgo(retentionTimes.deletedHours)}
              AND (client_ref IS NOT NULL OR inputs <> '{}' OR captured <> '{}')
            ORDER BY deleted_at LIMIT ${tidyBatch} FOR UPDATE SKIP LOCKED))`,
      );
      await tidyHistory();
      await inBatches(
        () => prisma.$executeRaw`
          DELETE FROM stored_answers WHERE ctid = ANY(ARRAY(SELECT ctid FROM stored_answers
            WHERE stored_at < ${hoursAgo(24 * retentionTimes.storedAnswerDays)}
            ORDER BY stored_at LIMIT ${tidyBatch} FOR UPDATE SKIP LOCKED))`,
      );
      await inBatches(
        () => prisma.$executeRaw`
          DELETE FROM unread_answers WHERE ctid = ANY(ARRAY(SELECT ctid FROM unread_answers
            WHERE received_at < ${hoursAgo(24 * retentionTimes.unreadAnswerDays)}
            ORDER BY received_at LIMIT ${tidyBatch} FOR UPDATE SKIP LOCKED))`,
      );
      await tidyLimits();
    },
  };
}

const hoursAgo = (hours: number) => Sql.sql`statement_timestamp() - make_interval(hours => ${hours}::int)`;

/** Repeats until a batch is not full. */
async function inBatches(deleteSome: () => PromiseLike<number>): Promise<void> {
  while ((await deleteSome()) === tidyBatch);
}
