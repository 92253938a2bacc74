import { createGate, inTurn } from "../concurrency.ts";
import { DatabaseBusyError } from "../errors.ts";
import { Prisma as Sql } from "../generated/prisma/client.ts";
import { grantsWithoutPerson } from "../grant-types.ts";
import { refreshTimes } from "../time.ts";
import type { Database } from "./database.ts";
import {
  addEvents,
  failureColumns,
  freePermit,
  type HistoryEvent,
  isThrottled,
  json,
  nextDue,
  abandonedDue,
  type AbandonedRule,
  owned,
  type PermitKey,
  type RecordedFailure,
  seconds,
  eventDetail,
} from "./row-sql.ts";
import { createTogether } from "./together.ts";
import { type ConnectionStatus, tokenColumns, type TokenRow } from "./token-row.ts";

/** Which permit is asked for. Postgres's clock counts the seconds. */
export type PermitRequest = {
  connectionId: string;
  generation: number;
  attemptId: string;
  leaseSeconds: number;
  statuses: readonly ConnectionStatus[];
  /** True where sending a refresh token spends it: no two connections may send the same one. */
  exclusive: boolean;
  /** When the sweeper looks at this attempt, if its owner does not end it. */
  ifAbandoned: AbandonedRule;
  /** Null: only a row without a permit is wanted. */
  takeover: null | {
    seenAttemptId: string;
    quietSeconds: number;
    /** False: not before the access token has expired. */
    promptly: boolean;
    /** While a lease that begins now ends inside this many seconds of the first send, `promptly` and the shorter quiet period hold. */
    graceSeconds: number;
    graceQuietSeconds: number;
  };
};

/** Whether a row may be refreshed at all: it has not gone back in time, and no back-off is running. */
const mayBeAsked = Sql.sql`c.gone_back_from IS NULL
          AND (c.backoff_until IS NULL OR c.backoff_until <= clock_timestamp() OR NOT isfinite(c.backoff_until))`;

/** `takePermit` for many, in one transaction. What it leaves out is asked for alone: locked rows, and rows whose refresh token another row has, too. */
const takingFree = Sql.sql`
        WITH asked AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(${""}::jsonb)
          AS a(id uuid, generation int, attempt uuid, lease float8, statuses text[], exclusive boolean, promptly boolean, quiet float8)),
        free AS MATERIALIZED (SELECT f.id FROM connections f WHERE f.id = ANY(ARRAY(SELECT id FROM asked))
          FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE connections c SET attempt_id = a.attempt, attempt_outcome = NULL, attempt_started_at = clock_timestamp(),
          attempt_replays = 0, lease_until = clock_timestamp() + make_interval(secs => a.lease),
          next_refresh_at = CASE WHEN a.promptly THEN clock_timestamp() + make_interval(secs => a.lease + a.quiet)
            WHEN c.expires_at IS NOT NULL THEN GREATEST(c.expires_at, clock_timestamp() + make_interval(secs => a.lease + a.quiet)) END
        FROM asked a WHERE c.id = a.id AND c.id = ANY(ARRAY(SELECT id FROM free))
          AND c.generation = a.generation AND c.attempt_id IS NULL AND c.status = ANY(a.statuses) AND ${mayBeAsked}
          AND NOT (a.exclusive AND EXISTS (SELECT 1 FROM connections o
            WHERE o.refresh_fingerprint = c.refresh_fingerprint AND o.id <> c.id))
        RETURNING ${tokenColumns}`;

/** How many of those that must be asked for alone are asked for at a time: they may wait for a locked row. */
const aloneAtOnce = 6;

/** The statements that take, swap and give back a permit. */
export function createPermitStatements({
  prisma,
  direct,
  readyToStore,
}: Pick<Database, "prisma" | "direct" | "readyToStore">) {
  const takeAlone = async (request: PermitRequest): Promise<TokenRow | null> => {
    const { connectionId, generation, attemptId, leaseSeconds, statuses, takeover, ifAbandoned, exclusive } = request;
    const leaseEnd = Sql.sql`clock_timestamp() + ${seconds(leaseSeconds)}`;
    const own = Sql.sql`${connectionId}::uuid`;
    const [noWait, id] =
      takeover === null
        ? [Sql.empty, own]
        : [Sql.sql`NOWAIT`, Sql.sql`(SELECT l.id FROM connections l WHERE l.id = ${own} FOR NO KEY UPDATE NOWAIT)`];
    const graceSeconds = takeover?.graceSeconds ?? 0;
    // A replay would end while the provider still accepts the old refresh token.
    const inGrace = Sql.sql`(${leaseEnd} < c.attempt_started_at + ${seconds(graceSeconds)})`;
    const isBusy = Sql.sql`EXISTS (SELECT 1 FROM sharing h WHERE h.id <> ${own} AND h.attempt_id IS NOT NULL)`;
    const statement = Sql.sql`
      WITH sharing AS MATERIALIZED (SELECT o.id, o.attempt_id FROM connections o
        WHERE ${exclusive}
          AND o.refresh_fingerprint = (SELECT s.refresh_fingerprint FROM connections s WHERE s.id = ${own})
        ORDER BY o.id FOR NO KEY UPDATE ${noWait}),
      c AS (UPDATE connections c SET attempt_id = ${attemptId}::uuid, attempt_outcome = NULL,
        attempt_started_at = CASE WHEN c.attempt_id IS NULL THEN clock_timestamp() ELSE c.attempt_started_at END,
        attempt_replays = CASE WHEN c.attempt_id IS NULL THEN 0 ELSE c.attempt_replays + 1 END,
        lease_until = ${leaseEnd}, next_refresh_at = ${abandonedDue(leaseEnd, ifAbandoned)}
      WHERE c.id = ${id} AND c.generation = ${generation} AND c.status = ANY(${statuses}::text[])
        AND ${mayBeAsked}
        AND (c.attempt_id IS NULL OR (c.attempt_id = ${takeover?.seenAttemptId ?? null}::uuid
          AND c.lease_until + CASE WHEN ${inGrace} THEN ${seconds(takeover?.graceQuietSeconds ?? 0)}
            ELSE ${seconds(takeover?.quietSeconds ?? 0)} END <= clock_timestamp()
          AND (${takeover?.promptly ?? false} OR ${inGrace} OR c.expires_at <= clock_timestamp())))
        AND NOT ${isBusy} RETURNING c.*),
      parted AS (UPDATE connections o SET refresh_token_sealed = NULL, refresh_fingerprint = NULL,
          refresh_token_expires_at = NULL, refresh_due_at = NULL, keep_alive_at = NULL, next_refresh_at = NULL,
          no_refresh_token_since = CASE WHEN o.grant_type <> ALL(${grantsWithoutPerson}::text[])
            THEN clock_timestamp() END, updated_at = clock_timestamp()
        FROM sharing s WHERE o.id = s.id AND o.attempt_id IS NULL AND CASE WHEN o.id = ${own}
          THEN o.generation = ${generation} AND ${isBusy} ELSE EXISTS (SELECT 1 FROM c) END RETURNING o.id),
      event AS (INSERT INTO connection_events (connection_id, type, detail)
        SELECT p.id, 'no_refresh_token', ${json({ kept: false, reason: "duplicate_grant" })} FROM parted p)
      SELECT ${tokenColumns} FROM c`;
    try {
      // A takeover is rare, and has another text.
      const name = ifAbandoned.promptly ? "take_permit_promptly" : "take_permit";
      const asked = takeover === null ? direct<TokenRow>({ name, text: statement.text }, statement.values) : null;
      return (await (asked ?? prisma.$queryRaw<TokenRow[]>(statement)))[0] ?? null;
    } catch (error) {
      if (takeover !== null && error instanceof DatabaseBusyError) return null;
      throw error;
    }
  };

  const takeTogether = createTogether<PermitRequest>({
    direct,
    name: "take_permits",
    sql: takingFree,
    given: ({ connectionId, generation, attemptId, leaseSeconds, statuses, exclusive, ifAbandoned }) => ({
      id: connectionId,
      generation,
      attempt: attemptId,
      lease: leaseSeconds,
      statuses,
      exclusive,
      promptly: ifAbandoned.promptly,
      quiet: ifAbandoned.quietSeconds,
    }),
    attemptOf: ({ attemptId }) => attemptId,
    attemptIn: ({ attemptId }) => attemptId,
  });
  const aloneGate = createGate(aloneAtOnce);

  return {
    /** Notes why no request could be made. Nothing was sent, so this does not count as a failure. */
    async noteUnprepared({ id, generation }: Pick<TokenRow, "id" | "generation">, detail: string): Promise<void> {
      const noteAgain = seconds(refreshTimes.unpreparedNoteSeconds);
      await prisma.$executeRaw`UPDATE connections c SET last_error_code = 'connect_failed',
          last_error_at = clock_timestamp(), last_error_detail = ${detail}
        WHERE c.id = ${id}::uuid AND c.generation = ${generation} AND c.attempt_id IS NULL
          AND (c.last_error_detail IS DISTINCT FROM ${detail} OR c.last_error_at < clock_timestamp() - ${noteAgain})`;
    },

    /**
     * Step 4. Null: somebody else has the permit, or the row is not at this generation, or it must not be refreshed now. Permits for
     * free rows are taken together. Where `exclusive`, of connections that hold the same refresh token the first one to ask keeps it, and the others lose their copy:
     * all rows that hold the token are locked, in one order, so that of two that ask at once the second sees the permit of the first
     * (a row that is locked is read as its last holder has committed it). Whoever sends spends the token, so the copy of every other
     * row is worth nothing: it goes, and that row ends with its access token.
     * A takeover gets null at once where the row is locked, so that it never stands in line before an owner who waits to store an
     * answer. @throws DatabaseBusyError when another request finds the row locked for long
     */
    async takePermit(request: PermitRequest): Promise<TokenRow | null> {
      const taken = request.takeover === null ? await takeTogether(request) : null;
      const row = taken ?? (await inTurn(aloneGate, () => takeAlone(request)));
      if (row !== null) readyToStore();
      return row;
    },

    /** One permit, one request: a second request of the same attempt gets its own permit. Null: the permit is no longer ours. */
    async swapPermit(key: PermitKey, next: { attemptId: string; leaseSeconds: number }): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        UPDATE connections c SET attempt_id = ${next.attemptId}::uuid,
          lease_until = clock_timestamp() + ${seconds(next.leaseSeconds)}, attempt_outcome = NULL
        WHERE ${owned(key)} RETURNING ${tokenColumns}`;
      return rows[0] ?? null;
    },

    /** The refresh token was not spent: gives the permit back, and starts a back-off. */
    async returnPermit(key: PermitKey, failure: RecordedFailure, backoffSeconds: number): Promise<TokenRow | null> {
      const until = Sql.sql`clock_timestamp() + ${seconds(backoffSeconds)}`;
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET ${freePermit}, ${failureColumns(failure)},
          backoff_until = ${until}, next_refresh_at = ${nextDue(until)} WHERE ${owned(key)} RETURNING c.*),
        ${addEvents(refreshFailed(failure))}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /** Nothing was sent and nothing has failed: gives the permit back as if it had not been taken. */
    async dropPermit(key: PermitKey): Promise<void> {
      await prisma.$executeRaw`UPDATE connections c SET ${freePermit},
        next_refresh_at = ${nextDue(Sql.sql`clock_timestamp()`)} WHERE ${owned(key)}`;
    },

    /**
     * The outcome is unknown, so the refresh token may be spent: the permit stays. `endLease`: a replay was refused, and the outcome
     * of the request before it is as unknown as it was. The quiet period counts from now.
     */
    async leaveUnknown(
      key: PermitKey,
      failure: RecordedFailure,
      given: {
        backoffSeconds: number;
        answer: Uint8Array<ArrayBuffer> | null;
        endLease: boolean;
        ifAbandoned: AbandonedRule;
      },
    ): Promise<TokenRow | null> {
      const { backoffSeconds, answer, endLease, ifAbandoned } = given;
      const leaseEnd = Sql.sql`CASE WHEN ${endLease} THEN clock_timestamp() ELSE c.lease_until END`;
      const until = Sql.sql`clock_timestamp() + ${seconds(backoffSeconds)}`;
      const due = abandonedDue(leaseEnd, ifAbandoned);
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET attempt_outcome = 'unknown', ${failureColumns(failure)},
          lease_until = ${leaseEnd},
          backoff_until = ${until},
          next_refresh_at = CASE WHEN ${due} IS NOT NULL THEN GREATEST(${due}, ${until}) END WHERE ${owned(key)} RETURNING c.*),
        ${addEvents(refreshFailed(failure))} ${storeUnread(key, answer)}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /**
     * A permit to retry the refresh token of an ended grant, because an operator thinks that it is still valid. The status stays. Null: the row is
     * not as it was read, or suspended, or has an attempt, or the last retry was less than `pauseSeconds` ago, or `exclusive` and another
     * connection has the token.
     */
    async takeRetryPermit(request: {
      connectionId: string;
      generation: number;
      attemptId: string;
      leaseSeconds: number;
      pauseSeconds: number;
      exclusive: boolean;
      by: string;
    }): Promise<TokenRow | null> {
      const { connectionId, generation, attemptId, leaseSeconds, pauseSeconds, exclusive, by } = request;
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET attempt_id = ${attemptId}::uuid, attempt_outcome = NULL,
          attempt_started_at = clock_timestamp(), attempt_replays = 0, retried_at = clock_timestamp(),
          lease_until = clock_timestamp() + ${seconds(leaseSeconds)}
        WHERE c.id = ${connectionId}::uuid AND c.generation = ${generation} AND c.status = 'needs_reauthorization'
          AND c.refresh_token_sealed IS NOT NULL AND c.gone_back_from IS NULL AND c.attempt_id IS NULL
          AND (c.retried_at IS NULL OR c.retried_at <= clock_timestamp() - ${seconds(pauseSeconds)})
          AND NOT EXISTS (SELECT 1 FROM connections o
            WHERE ${exclusive} AND o.refresh_fingerprint = c.refresh_fingerprint AND o.id <> c.id) RETURNING c.*),
        ${addEvents([{ type: "retried", detail: { generation, by } }])}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /** The retry has failed and spent nothing: takes its permit back. The connection stays ended. */
    async returnRetryPermit(key: PermitKey, failure: RecordedFailure): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET ${freePermit} WHERE ${owned(key)} RETURNING c.*),
        ${addEvents([{ type: "retry_failed", detail: eventDetail(failure) }])}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /** The outcome of the retry is unknown: its permit stays until it lapses. */
    async leaveRetryUnknown(
      key: PermitKey,
      failure: RecordedFailure,
      answer: Uint8Array<ArrayBuffer> | null,
    ): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET attempt_outcome = 'unknown' WHERE ${owned(key)} RETURNING c.*),
        ${addEvents([{ type: "retry_failed", detail: eventDetail(failure) }])} ${storeUnread(key, answer)}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /**
     * Takes the permit of retries whose lease and quiet period are over. Their connections stay ended. An answer that still comes
     * finds the generation that it was asked for, and is stored. Locked rows are left for the next time.
     */
    async lapseRetries(quietSeconds: number): Promise<TokenRow[]> {
      const detail = { code: "outcome_unknown", detail: "No answer to the retry came in time." };
      return await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET ${freePermit}
          WHERE c.id IN (SELECT d.id FROM connections d
            WHERE d.attempt_id IS NOT NULL AND d.enabled_status = 'needs_reauthorization'
              AND d.lease_until <= statement_timestamp() - ${seconds(quietSeconds)} FOR NO KEY UPDATE SKIP LOCKED) RETURNING c.*),
        ${addEvents([{ type: "retry_failed", detail }])}
        SELECT ${tokenColumns} FROM c`;
    },

    /** How many permits there are, and how old the oldest is. */
    async permitAges(): Promise<{ count: number; oldestSeconds: number }> {
      const rows = await prisma.$queryRaw<{ count: number; oldestSeconds: number }[]>`
        SELECT count(*)::int AS count,
          COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - min(attempt_started_at)), 0)::double precision AS "oldestSeconds"
        FROM connections WHERE attempt_id IS NOT NULL`;
      return rows[0] ?? { count: 0, oldestSeconds: 0 };
    },
  };
}

function refreshFailed(failure: RecordedFailure): HistoryEvent[] {
  return isThrottled(failure) ? [] : [{ type: "refresh_failed", detail: eventDetail(failure) }];
}

/** How many unreadable answers of a connection are stored: an answer may be large, and a provider that sends odd ones sends many. */
const mostUnread = 3;

/** Parts of a statement that store an unreadable answer, sealed. `c`: the connection's row. */
function storeUnread({ generation, attemptId }: PermitKey, answer: Uint8Array<ArrayBuffer> | null): Sql.Sql {
  if (answer === null) return Sql.empty;
  return Sql.sql`, unread AS (INSERT INTO unread_answers (connection_id, generation, attempt_id, answer_sealed)
      SELECT c.id, ${generation}::int, ${attemptId}::uuid, ${answer} FROM c),
    forgotten AS (DELETE FROM unread_answers WHERE id IN (SELECT u.id FROM unread_answers u JOIN c ON u.connection_id = c.id
      ORDER BY u.received_at DESC, u.id OFFSET ${mostUnread - 1}))`;
}
