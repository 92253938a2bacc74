import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { Database } from "./database.ts";
import { tokenColumns, type ConnectionStatus, type TokenRow } from "./token-row.ts";

/** A permission to send, as wanted. Seconds, by Postgres's clock. */
export type PermitRequest = {
  connectionId: string;
  generation: number;
  attemptId: string;
  leaseSeconds: number;
  statuses: readonly ConnectionStatus[];
  /** Null: only a free row is wanted. */
  takeover: null | {
    seenAttemptId: string;
    quietSeconds: number;
    /** False: only once the access token has run out. */
    promptly: boolean;
    /** While now + 30 s is inside this many seconds of the first send, `promptly` and the shorter quiet period hold. */
    graceSeconds: number;
    graceQuietSeconds: number;
  };
};

/** A set to be stored. `accessToken` null: the answer held none, what is stored counts as expired. */
export type SealedGrant = {
  accessToken: Uint8Array<ArrayBuffer> | null;
  refreshToken: Uint8Array<ArrayBuffer> | null;
  refreshFingerprint: Uint8Array<ArrayBuffer> | null;
  tokenType: string;
  /** Null: not said, the former ones stay. */
  grantedScopes: string[] | null;
  captured: Record<string, string>;
  issuedAt: Date;
  expiresAt: Date | null;
  refreshTokenExpiresAt: Date | null;
  /** The answer named no new refresh token: the one in use keeps its end. */
  keepsRefreshToken: boolean;
};

/** The owner of a permit and the generation it was given for. */
export type PermitKey = { connectionId: string; generation: number; attemptId: string };

export type RecordedFailure = { code: string; detail: string; status?: number };

/** A line of a connection's history. Its detail holds no secret. */
export type HistoryEvent = { type: string; detail: unknown };

/** A token that is over when it is issued must not be asked for again at once. */
const deadOnArrivalSeconds = 30;

const freePermit = Sql.sql`attempt_id = NULL, attempt_started_at = NULL, lease_until = NULL, attempt_outcome = NULL,
  attempt_answer_sealed = NULL`;
const seconds = (value: number) => Sql.sql`make_interval(secs => ${value}::double precision)`;
const json = (value: unknown) => Sql.sql`${JSON.stringify(value)}::jsonb`;
const failureColumns = (failure: RecordedFailure) => Sql.sql`consecutive_failures = c.consecutive_failures + 1,
  last_error_code = ${failure.code}, last_error_at = clock_timestamp(), last_error_detail = ${failure.detail},
  updated_at = clock_timestamp()`;

const owned = ({ connectionId, generation, attemptId }: PermitKey) =>
  Sql.sql`c.id = ${connectionId}::uuid AND c.generation = ${generation} AND c.attempt_id = ${attemptId}::uuid`;

/** The statements of the refresh protocol: each moves a row along one arrow of tokens/README.md, with its history row. */
export type TokenRows = ReturnType<typeof createTokenRows>;

export function createTokenRows({ prisma, commits }: Database) {
  const move = async (client: typeof prisma, update: Sql.Sql, event: HistoryEvent) => {
    const rows = await client.$queryRaw<TokenRow[]>(moved(update, event));
    return rows[0] ?? null;
  };

  return {
    /** Rows of these names; names without a connection are left out. */
    async readByName(names: readonly string[]): Promise<TokenRow[]> {
      return await prisma.$queryRaw`SELECT ${tokenColumns} FROM connections c WHERE c.name = ANY(${names}::text[])`;
    },

    async readById(connectionId: string): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        SELECT ${tokenColumns} FROM connections c WHERE c.id = ${connectionId}::uuid`;
      return rows[0] ?? null;
    },

    /** Step 4. Null: somebody else has the permit, or the row is not at this generation, or it must not be refreshed now. */
    async takePermit(request: PermitRequest): Promise<TokenRow | null> {
      const { connectionId, generation, attemptId, leaseSeconds, statuses, takeover } = request;
      const rows = await prisma.$queryRaw<TokenRow[]>`
        UPDATE connections c SET attempt_id = ${attemptId}::uuid, attempt_outcome = NULL,
          attempt_started_at = CASE WHEN c.attempt_id IS NULL THEN clock_timestamp() ELSE c.attempt_started_at END,
          lease_until = clock_timestamp() + ${seconds(leaseSeconds)}
        WHERE c.id = ${connectionId}::uuid AND c.generation = ${generation} AND c.status = ANY(${statuses}::text[])
          AND (c.backoff_until IS NULL OR c.backoff_until <= clock_timestamp())
          AND (c.attempt_id IS NULL OR ${takeover === null ? Sql.sql`false` : abandoned(takeover)})
        RETURNING ${tokenColumns}`;
      return rows[0] ?? null;
    },

    /** One permit, one send: a second request of the same attempt gets a permit of its own. Null: it is not ours any more. */
    async swapPermit(key: PermitKey, next: { attemptId: string; leaseSeconds: number }): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        UPDATE connections c SET attempt_id = ${next.attemptId}::uuid,
          lease_until = clock_timestamp() + ${seconds(next.leaseSeconds)}, attempt_outcome = NULL
        WHERE ${owned(key)} RETURNING ${tokenColumns}`;
      return rows[0] ?? null;
    },

    /** Nothing was spent: the permit goes back, and nobody tries before the back-off is over. */
    async returnPermit(key: PermitKey, failure: RecordedFailure, backoffSeconds: number): Promise<TokenRow | null> {
      const update = Sql.sql`UPDATE connections c SET ${freePermit}, ${failureColumns(failure)},
        backoff_until = clock_timestamp() + ${seconds(backoffSeconds)} WHERE ${owned(key)}`;
      return await move(prisma, update, { type: "refresh_failed", detail: failure });
    },

    /** Nothing left this process and nobody is to blame: the permit goes back as if it had not been taken. */
    async dropPermit(key: PermitKey): Promise<void> {
      await prisma.$executeRaw`UPDATE connections c SET ${freePermit} WHERE ${owned(key)}`;
    },

    /**
     * Nobody can tell whether the token was spent: the permit stays. Of a replay that was merely refused, the first send
     * stays unresolved; its lease ends now, so that the quiet period counts from here.
     */
    async leaveUnknown(
      key: PermitKey,
      failure: RecordedFailure,
      {
        backoffSeconds,
        answer,
        endLease,
      }: { backoffSeconds: number; answer: Uint8Array<ArrayBuffer> | null; endLease: boolean },
    ): Promise<TokenRow | null> {
      const update = Sql.sql`UPDATE connections c SET attempt_outcome = 'unknown', ${failureColumns(failure)},
        attempt_answer_sealed = COALESCE(${answer}, c.attempt_answer_sealed),
        lease_until = CASE WHEN ${endLease} THEN clock_timestamp() ELSE c.lease_until END,
        backoff_until = clock_timestamp() + ${seconds(backoffSeconds)} WHERE ${owned(key)}`;
      return await move(prisma, update, { type: "refresh_failed", detail: failure });
    },

    /**
     * The grant is over; the access token stays, it may still live. Null: the row has moved on, or a person has just
     * given new credentials, and nothing was changed.
     */
    async endGrant(
      key: PermitKey & { credentialsRevision?: number },
      failure: RecordedFailure,
    ): Promise<TokenRow | null> {
      const { credentialsRevision } = key;
      const tried =
        credentialsRevision === undefined ? Sql.empty : Sql.sql`AND c.credentials_revision = ${credentialsRevision}`;
      const update = Sql.sql`UPDATE connections c SET ${freePermit}, ${failureColumns(failure)}, backoff_until = NULL,
        ${statusColumns("needs_reauthorization")} WHERE ${owned(key)} ${tried}`;
      return await move(prisma, update, { type: "needs_reauthorization", detail: failure });
    },

    /** A token that has run out and cannot be refreshed by anybody. Only if the row is still as it was read. */
    async endUnrefreshable(row: TokenRow, failure: RecordedFailure): Promise<TokenRow | null> {
      const update = Sql.sql`UPDATE connections c SET ${failureColumns(failure)}, ${statusColumns("needs_reauthorization")}
        WHERE c.id = ${row.id}::uuid AND c.generation = ${row.generation} AND c.attempt_id IS NULL
          AND c.status = 'connected'`;
      return await move(prisma, update, { type: "needs_reauthorization", detail: failure });
    },

    /** Step 8. Null: the CAS is lost, or it was won before and this is a repetition (see `lastAttemptId`). */
    async commitRefresh(key: PermitKey, grant: SealedGrant, event: Record<string, unknown>): Promise<TokenRow | null> {
      const update = Sql.sql`UPDATE connections c SET ${grantColumns(grant)}, ${freePermit},
        backoff_until = CASE WHEN ${grant.expiresAt}::timestamptz <= ${grant.issuedAt}::timestamptz
          THEN clock_timestamp() + ${seconds(deadOnArrivalSeconds)} END,
        version = c.version + ${grant.accessToken === null ? 0 : 1}, last_attempt_id = c.attempt_id
        WHERE ${owned(key)}`;
      return await move(commits, update, { type: "refreshed", detail: event });
    },

    /**
     * A person's grant takes the place of what was there. Null: the row has moved since `generation` was read, or, where
     * `exclusive`, another connection holds the same refresh token, or it is just being sent for this one.
     */
    async replaceGrant(
      row: { id: string; generation: number; attemptId: string },
      grant: SealedGrant,
      given: { event: HistoryEvent; exclusive: boolean },
    ): Promise<TokenRow | null> {
      const fingerprint = given.exclusive ? grant.refreshFingerprint : null;
      const unique =
        fingerprint === null
          ? Sql.empty
          : Sql.sql`AND NOT EXISTS (${holders(row.id, fingerprint)})
              AND (c.attempt_id IS NULL OR c.refresh_fingerprint IS DISTINCT FROM ${fingerprint})`;
      const update = Sql.sql`UPDATE connections c SET ${grantColumns(grant)}, ${freePermit}, backoff_until = NULL,
        version = c.version + CASE WHEN c.version = 0 THEN 1 ELSE 2 END, authorization_seq = c.authorization_seq + 1,
        authorized_at = clock_timestamp(), last_attempt_id = ${row.attemptId}::uuid
        WHERE c.id = ${row.id}::uuid AND c.generation = ${row.generation} ${unique}`;
      const statement = moved(update, given.event);
      if (fingerprint === null) return (await prisma.$queryRaw<TokenRow[]>(statement))[0] ?? null;
      // The lock is taken by a statement of its own, so that the next one sees what its last holder has committed.
      const lock = prisma.$queryRaw`
        SELECT pg_advisory_xact_lock(hashtextextended(encode(${fingerprint}::bytea, 'hex'), 0))::text`;
      const [, rows] = await prisma.$transaction([lock, prisma.$queryRaw<TokenRow[]>(statement)]);
      return rows[0] ?? null;
    },

    /** How many permits stand, and since when the oldest does. */
    async permitAges(): Promise<{ count: number; oldestSeconds: number }> {
      const rows = await prisma.$queryRaw<{ count: number; oldestSeconds: number }[]>`
        SELECT count(*)::int AS count,
          COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - min(attempt_started_at)), 0)::double precision AS "oldestSeconds"
        FROM connections WHERE attempt_id IS NOT NULL`;
      return rows[0] ?? { count: 0, oldestSeconds: 0 };
    },

    /** Whether another connection holds a refresh token of this fingerprint. */
    async isHeldElsewhere(connectionId: string, fingerprint: Uint8Array<ArrayBuffer>): Promise<boolean> {
      const rows = await prisma.$queryRaw<unknown[]>`${holders(connectionId, fingerprint)}`;
      return rows.length > 0;
    },
  };
}

/** One statement: the update and its event, or neither. */
function moved(update: Sql.Sql, event: HistoryEvent): Sql.Sql {
  return Sql.sql`WITH c AS (${update} RETURNING c.*),
    event AS (INSERT INTO connection_events (connection_id, type, detail)
              SELECT c.id, ${event.type}, ${json(event.detail)} FROM c)
    SELECT ${tokenColumns} FROM c`;
}

function holders(connectionId: string, fingerprint: Uint8Array<ArrayBuffer>): Sql.Sql {
  return Sql.sql`SELECT 1 FROM connections o
    WHERE o.refresh_fingerprint = ${fingerprint} AND o.id <> ${connectionId}::uuid`;
}

/** A disabled connection stays disabled: what happens to it shows when it is enabled again. */
function statusColumns(status: ConnectionStatus): Sql.Sql {
  return Sql.sql`status = CASE WHEN c.status = 'disabled' THEN 'disabled' ELSE ${status} END, enabled_status = ${status}`;
}

function grantColumns(grant: SealedGrant): Sql.Sql {
  return Sql.sql`generation = c.generation + 1, ${statusColumns("connected")},
    access_token_sealed = ${grant.accessToken}, refresh_token_sealed = ${grant.refreshToken},
    refresh_fingerprint = ${grant.refreshFingerprint}, token_type = ${grant.tokenType},
    granted_scopes = COALESCE(${grant.grantedScopes}::text[], c.granted_scopes), captured = ${json(grant.captured)},
    issued_at = ${grant.issuedAt}::timestamptz, expires_at = ${grant.expiresAt}::timestamptz,
    refresh_token_expires_at = CASE WHEN ${grant.keepsRefreshToken} THEN c.refresh_token_expires_at
      ELSE ${grant.refreshTokenExpiresAt}::timestamptz END,
    consecutive_failures = 0, last_error_code = NULL, last_error_at = NULL, last_error_detail = NULL,
    last_refreshed_at = clock_timestamp(), updated_at = clock_timestamp()`;
}

/** "After a crash": the permit that was seen is past its lease and quiet period, and `reuse` lets the token be sent again. */
function abandoned(takeover: NonNullable<PermitRequest["takeover"]>): Sql.Sql {
  const inGrace = Sql.sql`(clock_timestamp() + interval '30 seconds'
    < c.attempt_started_at + ${seconds(takeover.graceSeconds)})`;
  return Sql.sql`(c.attempt_id = ${takeover.seenAttemptId}::uuid
    AND c.lease_until + CASE WHEN ${inGrace} THEN ${seconds(takeover.graceQuietSeconds)}
      ELSE ${seconds(takeover.quietSeconds)} END <= clock_timestamp()
    AND (${takeover.promptly} OR ${inGrace} OR c.expires_at <= clock_timestamp()))`;
}
