import { publicName } from "../text.ts";
import { Prisma as Sql } from "../generated/prisma/client.ts";
import { retentionTimes } from "../time.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database } from "./database.ts";
import {
  addEvents,
  countRefreshes,
  attemptVersion,
  backoffOnArrival,
  freePermit,
  grantColumns,
  type GrantParts,
  type HistoryEvent,
  json,
  lackEvents,
  noRefusals,
  noteStored,
  abandonedDue,
  type AbandonedRule,
  owned,
  type PermitKey,
  type SealedGrant,
  seconds,
  storedVersion,
  valuesOf,
} from "./row-sql.ts";
import { createTogether } from "./together.ts";
import { nextGeneration, tokenColumns, type TokenRow } from "./token-row.ts";

/** A candidate: a late answer that is to be tried. Its record is sealed for the generation after `baseGeneration`. */
export type Candidate = {
  attemptId: string;
  connectionId: string;
  authorization: number;
  baseGeneration: number;
  record: Uint8Array<ArrayBuffer>;
};

const candidateColumns: Columns<Candidate> = {
  attemptId: "attempt_id::text",
  connectionId: "connection_id::text",
  authorization: "authorization_seq",
  baseGeneration: "base_generation",
  record: "record_sealed",
};

type AnswerKey = Pick<Candidate, "connectionId" | "attemptId">;
type ForAnswer = { row: TokenRow | null; wasStored: boolean };

/** Whose grant it is, as far as that is known when it is stored. */
type KnownAccount = { account: string | null; label: string | null };

/** The row as it was read when the late answer was found to fit. */
type Place = { id: string; generation: number; authorization: number; attemptId: string | null };

/** Of a connection. The newest are tried first, so the older ones may go: some providers send further tokens with every refresh. */
const mostCandidates = 10;

/** An answer to a refresh, for the row that its permit stands in. */
type ToStore = { key: PermitKey; grant: SealedGrant; event: Record<string, unknown> };

/** The types of a set's columns, as they are given for many sets in one JSON text. */
const givenTypes = {
  accessToken: "bytea",
  refreshToken: "bytea",
  refreshFingerprint: "bytea",
  tokenType: "text",
  grantedScopes: "text[]",
  captured: "jsonb",
  redirectUri: "text",
  accountCaptured: "jsonb",
  issuedAt: "timestamptz",
  expiresAt: "timestamptz",
  refreshTokenExpiresAt: "timestamptz",
  keepsRefreshToken: "boolean",
  noRefreshTokenSince: "timestamptz",
  unreadableLifetime: "boolean",
  refreshDueAt: "timestamptz",
  keepAliveAt: "timestamptz",
} as const satisfies Record<keyof Omit<SealedGrant, "lastError">, string>;

const givenNames = Object.keys(givenTypes) as (keyof typeof givenTypes)[];
const givenColumns = Sql.raw(givenNames.map((name) => `"${name}" ${givenTypes[name]}`).join(", "));
const givenParts = {
  ...Object.fromEntries(givenNames.map((name) => [name, Sql.raw(`g."${name}"`)])),
  lastErrorCode: Sql.raw("NULL::text"),
  lastErrorDetail: Sql.raw("NULL::text"),
} as GrantParts;

function asGiven({ key, grant, event }: ToStore) {
  const parts = givenNames.map((name) => {
    const value = grant[name];
    return [name, value instanceof Uint8Array ? String.raw`\x${Buffer.from(value).toString("hex")}` : value];
  });
  const { connectionId: id, generation, attemptId: attempt } = key;
  return { id, generation, attempt, refreshed: event, ...Object.fromEntries(parts) } as unknown;
}

/** `commitRefresh` for many usual answers: each row by its own permit, in one transaction. Locked rows are left out. */
const storing = Sql.sql`
        WITH given AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(${""}::jsonb)
          AS g(id uuid, generation int, attempt uuid, refreshed jsonb, ${givenColumns})),
        free AS MATERIALIZED (SELECT f.id FROM connections f WHERE f.id = ANY(ARRAY(SELECT id FROM given))
          FOR NO KEY UPDATE SKIP LOCKED),
        c AS (UPDATE connections c SET ${grantColumns(givenParts, Sql.raw("g.generation + 1"))}, ${freePermit},
          next_refresh_at = ${givenParts.keepAliveAt}, backoff_until = ${backoffOnArrival(givenParts)},
          version = ${storedVersion}, last_attempt_id = c.attempt_id
          FROM given g WHERE c.id = g.id AND c.id = ANY(ARRAY(SELECT id FROM free))
            AND c.generation = g.generation AND c.attempt_id = g.attempt RETURNING c.*, g.refreshed),
        ${countRefreshes}, noted AS (INSERT INTO stored_answers (attempt_id) SELECT c.last_attempt_id FROM c)
        SELECT ${tokenColumns} FROM c`;

/** The statements that put a token set into a row. */
export function createTokenSetStatements({
  prisma,
  commits,
  directCommits,
}: Pick<Database, "prisma" | "commits" | "directCommits">) {
  const storeAlone = async ({ key, grant, event }: ToStore): Promise<TokenRow | null> => {
    const lacks = lackEvents(grant);
    const refreshed = { type: "refreshed" as const, detail: event };
    const parts = valuesOf(grant);
    const statement = Sql.sql`
        WITH c AS (UPDATE connections c SET ${grantColumns(parts, key.generation + 1)}, ${freePermit},
          next_refresh_at = ${parts.keepAliveAt}, backoff_until = ${backoffOnArrival(parts)},
          version = ${attemptVersion(grant)}, last_attempt_id = c.attempt_id WHERE ${owned(key)}
          RETURNING c.*, ${json(event)} AS refreshed),
        ${lacks.length > 0 ? addEvents([refreshed, ...lacks]) : countRefreshes}, ${noteStored(key.attemptId)}
        SELECT ${tokenColumns} FROM c`;
    // The text of the usual set is always the same. One that lacks something has another text.
    const isUsual = grant.accessToken !== null && lacks.length === 0;
    return first(
      await (isUsual
        ? directCommits<TokenRow>({ name: "commit_refresh", text: statement.text }, statement.values)
        : commits.$queryRaw<TokenRow[]>(statement)),
    );
  };

  const storeTogether = createTogether<ToStore>({
    direct: directCommits,
    name: "commit_refreshes",
    sql: storing,
    given: asGiven,
    attemptOf: ({ key }) => key.attemptId,
    attemptIn: ({ lastAttemptId }) => lastAttemptId,
  });

  return {
    /**
     * Step 8. Null: the permit is no longer ours, or this answer is stored already (see `lastAttemptId`). Answers that come while others are being
     * stored are stored together. What that leaves out is stored alone, so that no row and no answer stands in the way of another.
     */
    async commitRefresh(key: PermitKey, grant: SealedGrant, event: Record<string, unknown>): Promise<TokenRow | null> {
      const isUsual = grant.accessToken !== null && lackEvents(grant).length === 0;
      const answer = { key, grant, event };
      const stored = isUsual ? await storeTogether(answer) : null;
      return stored ?? (await storeAlone(answer));
    },

    /**
     * A person's grant takes the place of the one before. Null, where nothing was changed:
     * - the row has moved since `generation` was read;
     * - `exclusive`: another connection holds the same refresh token, or, with `unlessSent`, a request with it is under way for this one;
     * - `oldTokenOf`, an account: `grant` goes on with the refresh token of this account's grant, but the connection no longer has that grant.
     */
    async replaceGrant(
      row: { id: string; generation: number; goneBackFrom: number | null; attemptId: string },
      grant: SealedGrant,
      given: {
        event: HistoryEvent;
        exclusive: boolean;
        unlessSent?: boolean;
        /** The token set was imported: the provider has not given it to this broker. */
        untried?: boolean;
        /** The client id that it was granted to; null: not known. */
        clientId?: string | null | undefined;
        account?: KnownAccount | undefined;
        oldTokenOf?: string;
      },
    ): Promise<TokenRow | null> {
      const fingerprint = given.exclusive ? grant.refreshFingerprint : null;
      const unique =
        fingerprint === null
          ? Sql.empty
          : Sql.sql`AND NOT EXISTS (${holders(row.id, fingerprint)})
              AND (${given.unlessSent !== true} OR c.attempt_id IS NULL
                OR c.refresh_fingerprint IS DISTINCT FROM ${fingerprint})`;
      const { oldTokenOf } = given;
      // None of these moves the generation. If a request with the old refresh token is under way, nothing is sent before its lease ends.
      const living =
        oldTokenOf === undefined
          ? Sql.empty
          : Sql.sql`AND c.status = 'connected' AND c.gone_back_from IS NULL AND c.account = ${oldTokenOf}`;
      const isSent = fingerprint === null ? oldTokenOf !== undefined : Sql.sql`c.refresh_fingerprint = ${fingerprint}`;
      // An old refresh token stays as tried or untried as it was.
      const untried = oldTokenOf === undefined ? Sql.sql`${given.untried === true}` : Sql.sql`c.untried`;
      // Candidates come from grants before this one, so they are not tried any more.
      const statement = Sql.sql`
        WITH c AS (UPDATE connections c SET ${grantColumns(valuesOf(grant), nextGeneration(row), untried)}, ${freePermit},
          backoff_until = CASE WHEN ${isSent} THEN c.lease_until END, authorized_client_id = ${given.clientId ?? null},
          next_refresh_at = ${grant.keepAliveAt}::timestamptz, version = GREATEST(c.version, c.version_floor) + c.attempt_replays
            + CASE WHEN c.version = 0 THEN 1 ELSE 2 END,
          authorization_seq = c.authorization_seq + 1, ${accountColumns(given.account)}
          authorized_at = GREATEST(c.authorized_at, ${grant.issuedAt}::timestamptz), last_attempt_id = ${row.attemptId}::uuid
          WHERE c.id = ${row.id}::uuid AND c.generation = ${row.generation} ${unique} ${living} RETURNING c.*),
        ${addEvents([given.event, ...lackEvents(grant)])}, ${noteStored(row.attemptId)},
        forgotten AS (DELETE FROM candidates o USING c WHERE o.connection_id = c.id),
        ${endOlderFurtherTokens}
        SELECT ${tokenColumns} FROM c`;
      if (fingerprint === null) return first(await prisma.$queryRaw<TokenRow[]>(statement));
      // The lock is a statement of its own, so that the next statement sees what the last holder of the lock has committed.
      const lock = prisma.$queryRaw`
        SELECT pg_advisory_xact_lock(hashtextextended(encode(${fingerprint}::bytea, 'hex'), 0))::text`;
      const [, rows] = await prisma.$transaction([lock, prisma.$queryRaw<TokenRow[]>(statement)]);
      return first(rows);
    },

    /** The row that this attempt's answer is for, and whether the answer is its newest set, or ever was. `row` null: it is gone. */
    async readForAnswer({ connectionId, attemptId }: AnswerKey): Promise<ForAnswer> {
      const rows = await prisma.$queryRaw<(TokenRow & { wasStored: boolean })[]>`
        SELECT ${tokenColumns}, c.last_attempt_id IS NOT DISTINCT FROM ${attemptId}::uuid OR EXISTS (
          SELECT 1 FROM stored_answers s WHERE s.attempt_id = ${attemptId}::uuid) AS "wasStored"
        FROM connections c WHERE c.id = ${connectionId}::uuid`;
      if (rows[0] === undefined) return { row: null, wasStored: false };
      const { wasStored, ...row } = rows[0];
      return { row, wasStored };
    },

    /** The names of other connections that hold a refresh token of this fingerprint. */
    async holdersElsewhere(connectionId: string, fingerprint: Uint8Array<ArrayBuffer>): Promise<string[]> {
      const rows = await prisma.$queryRaw<{ name: string }[]>`${holders(connectionId, fingerprint)} ORDER BY o.name`;
      return rows.map(({ name }) => publicName(name));
    },

    /**
     * A late answer becomes the row's newest token set, under the authorization that it was granted for. A permit in the row is taken
     * away. `generation`: the row's next one. Null: the row is no longer as `place` says.
     */
    async promoteLate(
      place: Place,
      grant: SealedGrant,
      given: { attemptId: string; generation: number; event: HistoryEvent },
    ): Promise<TokenRow | null> {
      const rows = await commits.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET ${grantColumns(valuesOf(grant), given.generation)}, ${freePermit},
          next_refresh_at = ${grant.keepAliveAt}::timestamptz, backoff_until = ${backoffOnArrival(valuesOf(grant))},
          last_attempt_id = ${given.attemptId}::uuid,
          version = ${attemptVersion(grant)} + CASE WHEN c.attempt_id IS NULL THEN 0 ELSE 1 END
          WHERE c.id = ${place.id}::uuid AND c.generation = ${place.generation}
            AND c.authorization_seq = ${place.authorization}
            AND c.attempt_id IS NOT DISTINCT FROM ${place.attemptId}::uuid RETURNING c.*),
        ${addEvents([given.event, ...lackEvents(grant)])}, ${noteStored(given.attemptId)},
        tried AS (DELETE FROM candidates o USING c WHERE o.attempt_id = ${given.attemptId}::uuid)
        SELECT ${tokenColumns} FROM c`;
      return first(rows);
    },

    /** Stores a late answer as a candidate, and forgets those beyond the newest ten. False: a person has replaced the grant, or the row is gone. */
    async addCandidate(candidate: Candidate, detail: Record<string, unknown>): Promise<boolean> {
      const { attemptId, connectionId, authorization, baseGeneration, record } = candidate;
      const rows = await commits.$queryRaw<unknown[]>`
        WITH c AS (SELECT id FROM connections WHERE id = ${connectionId}::uuid
            AND authorization_seq = ${authorization} FOR UPDATE),
        kept AS (INSERT INTO candidates (attempt_id, connection_id, authorization_seq, base_generation, record_sealed)
          SELECT ${attemptId}::uuid, c.id, ${authorization}, ${baseGeneration}, ${record} FROM c
          ON CONFLICT (attempt_id) DO NOTHING RETURNING connection_id),
        forgotten AS (DELETE FROM candidates WHERE attempt_id = ANY(ARRAY(SELECT o.attempt_id FROM kept
            JOIN candidates o ON o.connection_id = kept.connection_id
          ORDER BY o.created_at DESC, o.base_generation DESC OFFSET ${mostCandidates - 1}))),
        event AS (INSERT INTO connection_events (connection_id, type, detail)
          SELECT connection_id, 'answer_kept', ${json(detail)} FROM kept)
        SELECT id::text FROM c`;
      return rows.length > 0;
    },

    /** The newest candidate that has not been tried yet, without those in `passedOver`. */
    async newestCandidate(
      connectionId: string,
      authorization: number,
      passedOver: readonly string[] = [],
    ): Promise<Candidate | null> {
      const rows = await prisma.$queryRaw<Candidate[]>`
        SELECT ${selectList(candidateColumns)}
        FROM candidates WHERE connection_id = ${connectionId}::uuid AND authorization_seq = ${authorization}
          AND attempt_id <> ALL(${passedOver}::uuid[])
        ORDER BY created_at DESC, base_generation DESC LIMIT 1`;
      return rows[0] ?? null;
    },

    /** A candidate's token set becomes the newest one, and the owner of the permit gets a new one to try it. Null: the permit is no longer ours. */
    async tryCandidate(
      key: PermitKey,
      grant: SealedGrant,
      given: { candidateId: string; attemptId: string; leaseSeconds: number; ifAbandoned: AbandonedRule },
    ): Promise<TokenRow | null> {
      const leaseEnd = Sql.sql`clock_timestamp() + ${seconds(given.leaseSeconds)}`;
      const detail = { generation: key.generation + 1, attempt: given.candidateId };
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET ${grantColumns(valuesOf(grant), key.generation + 1)}, version = ${attemptVersion(grant)},
          attempt_id = ${given.attemptId}::uuid, attempt_started_at = clock_timestamp(), lease_until = ${leaseEnd},
          attempt_outcome = NULL, attempt_replays = 0, backoff_until = NULL,
          next_refresh_at = ${abandonedDue(leaseEnd, given.ifAbandoned)}
          WHERE ${owned(key)} AND EXISTS (SELECT 1 FROM candidates o WHERE o.attempt_id = ${given.candidateId}::uuid)
          RETURNING c.*),
        ${addEvents([{ type: "candidate_tried", detail }])}, ${noteStored(given.candidateId)},
        tried AS (DELETE FROM candidates o USING c WHERE o.attempt_id = ${given.candidateId}::uuid)
        SELECT ${tokenColumns} FROM c`;
      return first(rows);
    },
  };
}

/** The new token set is not sealed for what was looked up of the account before: it is looked up again. */
function accountColumns(known: KnownAccount | undefined): Sql.Sql {
  if (known === undefined) return Sql.empty;
  return Sql.sql`account = ${known.account}, account_label = ${known.label}, looked_up = NULL,`;
}

/**
 * Further tokens that a new grant did not bring belong to the grant before, which may be another account's: they end with it, and so
 * do requests for them that are under way. An answer to one finds that the authorization has moved on. A further token from a token
 * exchange has no `authorized_at`: the time of its newest token set, or of its attempt, counts.
 */
const endOlderFurtherTokens = Sql.sql`ended AS (
  UPDATE connections x SET generation = GREATEST(x.generation, COALESCE(x.gone_back_from, 0)) + 1,
    authorization_seq = x.authorization_seq + 1, enabled_status = 'pending',
    status = CASE WHEN x.status = 'disabled' THEN 'disabled' ELSE 'pending' END,
    attempt_id = NULL, attempt_started_at = NULL, lease_until = NULL, attempt_outcome = NULL,
    version_floor = GREATEST(x.version, x.version_floor) + x.attempt_replays, attempt_replays = 0,
    access_token_sealed = NULL, refresh_token_sealed = NULL, refresh_fingerprint = NULL, granted_scopes = '{}',
    issued_at = NULL, expires_at = NULL, refresh_token_expires_at = NULL, refresh_due_at = NULL, keep_alive_at = NULL,
    no_refresh_token_since = NULL, missing_scopes_since = NULL, in_use = false, gone_back_from = NULL, backoff_until = NULL, next_refresh_at = NULL, consecutive_failures = 0,
    last_error_code = NULL, last_error_at = NULL, last_error_detail = NULL, ${noRefusals}, updated_at = clock_timestamp()
  FROM c WHERE x.parent_id = c.id AND CASE WHEN x.grant_type = 'token_exchange'
    THEN COALESCE(x.issued_at, x.attempt_started_at) < c.last_refreshed_at
    ELSE COALESCE(x.authorized_at, '-infinity') < c.authorized_at END)`;

function first(rows: readonly TokenRow[]): TokenRow | null {
  return rows[0] ?? null;
}

function holders(connectionId: string, fingerprint: Uint8Array<ArrayBuffer>): Sql.Sql {
  return Sql.sql`SELECT o.name FROM connections o
    WHERE o.refresh_fingerprint = ${fingerprint} AND o.id <> ${connectionId}::uuid`;
}

/** What is left of a deleted connection for a day: enough to revoke its grant at the provider. */
export type Tombstone = {
  name: string;
  provider: string;
  clientRef: string | null;
  inputs: Record<string, string>;
  captured: Record<string, string>;
};

const tombstoneColumns: Columns<Tombstone> = {
  name: "name",
  provider: "provider",
  clientRef: "client_ref::text",
  inputs: "inputs",
  captured: "captured",
};

export type Tombstones = ReturnType<typeof createTombstones>;

export function createTombstones({ prisma }: Pick<Database, "prisma">) {
  return {
    /** Null: it was never deleted, or more than a day ago. */
    async find(connectionId: string): Promise<Tombstone | null> {
      const rows = await prisma.$queryRaw<Tombstone[]>`
        SELECT ${selectList(tombstoneColumns)} FROM tombstones
        WHERE connection_id = ${connectionId}::uuid AND deleted_at > clock_timestamp() - make_interval(hours => ${retentionTimes.deletedHours}::int)`;
      return rows[0] ?? null;
    },
  };
}
