import { Prisma as Sql } from "../generated/prisma/client.ts";
import { binds, type Labels } from "../labels.ts";
import { refreshTimes } from "../time.ts";
import type { ConnectionStatus, EventType } from "./token-row.ts";

/** A token set to be stored, sealed. `accessToken` null: the answer held none, and the set counts as expired. */
export type SealedGrant = {
  accessToken: Uint8Array<ArrayBuffer> | null;
  refreshToken: Uint8Array<ArrayBuffer> | null;
  refreshFingerprint: Uint8Array<ArrayBuffer> | null;
  tokenType: string;
  /** Null: the answer does not name them, so the former ones stay. */
  grantedScopes: string[] | null;
  captured: Record<string, string>;
  /** The redirect URI that the grant was got with; null: there was none, or nobody has noted it. */
  redirectUri: string | null;
  /** What lookups of the account gave. The tokens are sealed for these values, too. */
  accountCaptured: Record<string, string>;
  issuedAt: Date;
  expiresAt: Date | null;
  refreshTokenExpiresAt: Date | null;
  /** The answer named no new refresh token: the one in use stays, and ends when it did. */
  keepsRefreshToken: boolean;
  /** Since when a needed refresh token is missing, or one is kept that has not worked since; null: neither. */
  noRefreshTokenSince: Date | null;
  /** The answer stated a lifetime that could not be read. */
  unreadableLifetime: boolean;
  /** Why the access token is stored and not handed out, as a connection's `last_error`; null: it may be handed out. */
  lastError: RecordedFailure | null;
  /** When to refresh ahead; null: only when a caller needs it. */
  refreshDueAt: Date | null;
  /** When to refresh so that neither the refresh token nor the grant ends unused; null: they do not end. */
  keepAliveAt: Date | null;
};

/** A permit: its connection, the generation that it was given for, and the attempt that owns it. */
export type PermitKey = { connectionId: string; generation: number; attemptId: string };

export type RecordedFailure = {
  code: string;
  detail: string;
  status?: number;
  /** Of a refusal that says nothing about the grant: what equal refusals have in common. It holds nothing of the body. */
  refusal?: string;
};

/** A line of a connection's history. The detail holds no secret. */
export type HistoryEvent = {
  type: EventType;
  detail: unknown;
  /** Events that every set of a grant may cause. Only the first one is noted. */
  oncePerGrant?: true;
};

/**
 * When the sweeper looks at an attempt that its owner does not end. `promptly`: after lease and quiet period. Otherwise not before the
 * access token has expired.
 */
export type AbandonedRule = { quietSeconds: number; promptly: boolean };

/** Takes the permit away. Earlier attempts of this generation may have handed out tokens from a spool: no version is used twice. */
export const freePermit = Sql.sql`attempt_id = NULL, attempt_started_at = NULL, lease_until = NULL,
  attempt_outcome = NULL, attempt_replays = 0,
  version_floor = GREATEST(c.version, c.version_floor) + c.attempt_replays`;

export const seconds = (value: number) => Sql.sql`make_interval(secs => ${value}::double precision)`;

/**
 * Whether all patterns of an array lie within `patterns` (of LIKE). An empty array counts as `*`, and so does an entry that is no
 * pattern: only who may do everything may change such a row.
 */
export const liesWithin = (own: Sql.Sql, patterns: readonly string[]) => Sql.sql`NOT EXISTS (
  SELECT 1 FROM unnest(CASE WHEN cardinality(${own}) > 0 THEN ${own} ELSE '{*}' END) each
  WHERE (COALESCE(each, '*') LIKE ANY(${[...patterns]}::text[])) IS NOT TRUE)`;

/** What the lists of a caller lie within: patterns of LIKE, of which one covers the name, and labels, each of which a row carries. */
export type Bounds = { patterns: readonly string[]; labels: Labels };

/** Whether a column of labels has each of these, with its value. The second condition is that of the indexes, in which rows without labels are not. */
export const carriesAll = (column: Sql.Sql, labels: Labels) =>
  binds(labels) ? Sql.sql`${column} @> ${json(labels)} AND ${column} <> '{}'` : Sql.sql`true`;

export const json = (value: unknown) => Sql.sql`${JSON.stringify(value)}::jsonb`;

/** A throttled request has not failed: it makes no back-off longer, and no line of the history. */
export const isThrottled = ({ code }: RecordedFailure): boolean => code === "limit_reached";

/**
 * Equal refusals that say nothing about the grant are counted until a token set is stored. Other failures in between (429, 503, no
 * answer, a refused client secret) leave the count as it is. A different refusal starts it again at one.
 */
const refusalColumns = ({ refusal }: RecordedFailure) =>
  refusal === undefined
    ? Sql.empty
    : Sql.sql`refusal = ${refusal}, refusals = CASE WHEN c.refusal = ${refusal} THEN c.refusals + 1 ELSE 1 END,
  refused_since = CASE WHEN c.refusal = ${refusal} THEN c.refused_since ELSE clock_timestamp() END,`;

/** No refusal counts against the grant any more. */
export const noRefusals = Sql.sql`refusal = NULL, refusals = 0, refused_since = NULL, probably_dead_since = NULL`;

/** A failure as it is written into the history: without the text by which equal refusals are counted. */
export const eventDetail = ({ refusal: _refusal, ...failure }: RecordedFailure) => failure;

/** The row's newest failure. */
export const failureColumns = (failure: RecordedFailure) => Sql.sql`${refusalColumns(failure)}
  consecutive_failures = c.consecutive_failures + ${isThrottled(failure) ? 0 : 1},
  last_error_code = ${failure.code}, last_error_at = clock_timestamp(), last_error_detail = ${failure.detail},
  updated_at = clock_timestamp()`;

/** The row, while this permit stands in it: the compare-and-swap of every statement that ends or passes on a permit. */
export const owned = ({ connectionId, generation, attemptId }: PermitKey) =>
  Sql.sql`c.id = ${connectionId}::uuid AND c.generation = ${generation} AND c.attempt_id = ${attemptId}::uuid`;

/**
 * A part of a WITH that adds lines to the history of `c`, the rows that the same statement has changed: they are committed together.
 * `oncePerGrant`: not where the grant has such a line already.
 */
export function addEvents(events: readonly HistoryEvent[]): Sql.Sql {
  const lines = events.map(
    ({ type, detail, oncePerGrant = false }, place) =>
      Sql.sql`(${place}::int, ${type}::text, ${json(detail)}, ${oncePerGrant}::boolean)`,
  );
  return lines.length === 0
    ? Sql.sql`event AS (SELECT)`
    : Sql.sql`event AS (INSERT INTO connection_events (connection_id, type, detail)
          SELECT c.id, e.type, e.detail FROM c, (VALUES ${Sql.join(lines)}) AS e(place, type, detail, once)
          WHERE NOT e.once OR NOT EXISTS (SELECT 1 FROM connection_events o WHERE o.connection_id = c.id AND o.type = e.type
            AND o.at >= COALESCE(c.authorized_at, c.created_at))
          ORDER BY e.place)`;
}

/** Others may write here: what is no number counts as one. */
const oneMore = Sql.sql`CASE WHEN jsonb_typeof(e.detail->'count') = 'number' THEN (e.detail->>'count')::numeric ELSE 1 END + 1`;

/**
 * The same for refreshes; `c.refreshed`: the detail of each. Where the newest line of a connection's history is a refresh of the same day (UTC), it is
 * counted there: `count` and `first`, and what the newest says. A line that somebody else has locked is left alone, since nothing may hold up a token set.
 */
export const countRefreshes = Sql.sql`newest AS (SELECT e.*, c.refreshed FROM c, LATERAL (SELECT id, type, at FROM connection_events
      WHERE connection_id = c.id ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED) e),
    counted AS (UPDATE connection_events e SET at = clock_timestamp(), detail = n.refreshed
        || jsonb_build_object('count', ${oneMore}, 'first', COALESCE(e.detail->'first', to_jsonb(e.at)))
      FROM newest n WHERE e.id = n.id AND n.type = 'refreshed'
        AND n.at >= date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' RETURNING e.connection_id),
    event AS (INSERT INTO connection_events (connection_id, type, detail)
      SELECT c.id, 'refreshed', c.refreshed FROM c WHERE NOT EXISTS (SELECT 1 FROM counted n WHERE n.connection_id = c.id))`;

/** A part of a WITH by which the statement that stores an answer notes its attempt: for 90 days an answer that comes late is known by it. */
export const noteStored = (attemptId: string): Sql.Sql =>
  Sql.sql`noted AS (INSERT INTO stored_answers (attempt_id) SELECT ${attemptId}::uuid FROM c)`;

/** The lines of the history for what a token set that is stored lacks. */
export function lackEvents(grant: SealedGrant): HistoryEvent[] {
  const events: HistoryEvent[] = [];
  const isNew = grant.noRefreshTokenSince?.getTime() === grant.issuedAt.getTime();
  if (isNew) events.push({ type: "no_refresh_token", detail: { kept: grant.refreshToken !== null } });
  if (grant.lastError !== null) events.push({ type: "token_unusable", detail: grant.lastError, oncePerGrant: true });
  if (grant.unreadableLifetime) events.push({ type: "lifetime_unreadable", detail: {}, oncePerGrant: true });
  return events;
}

/** A disabled connection stays disabled: it gets the status when it is enabled again. */
export function statusColumns(status: ConnectionStatus): Sql.Sql {
  return Sql.sql`status = CASE WHEN c.status = 'disabled' THEN 'disabled' ELSE ${status} END, enabled_status = ${status}`;
}

/** The parts of a token set as a statement names them: the values of one set, or the columns of many. */
export type GrantParts = { readonly [Part in keyof Omit<SealedGrant, "lastError">]: Sql.Sql } & {
  readonly lastErrorCode: Sql.Sql;
  readonly lastErrorDetail: Sql.Sql;
};

export function valuesOf({ lastError, ...grant }: SealedGrant): GrantParts {
  return {
    accessToken: Sql.sql`${grant.accessToken}::bytea`,
    refreshToken: Sql.sql`${grant.refreshToken}::bytea`,
    refreshFingerprint: Sql.sql`${grant.refreshFingerprint}::bytea`,
    tokenType: Sql.sql`${grant.tokenType}`,
    grantedScopes: Sql.sql`${grant.grantedScopes}::text[]`,
    captured: json(grant.captured),
    redirectUri: Sql.sql`${grant.redirectUri}`,
    accountCaptured: json(grant.accountCaptured),
    issuedAt: Sql.sql`${grant.issuedAt}::timestamptz`,
    expiresAt: Sql.sql`${grant.expiresAt}::timestamptz`,
    refreshTokenExpiresAt: Sql.sql`${grant.refreshTokenExpiresAt}::timestamptz`,
    keepsRefreshToken: Sql.sql`${grant.keepsRefreshToken}::boolean`,
    noRefreshTokenSince: Sql.sql`${grant.noRefreshTokenSince}::timestamptz`,
    unreadableLifetime: Sql.sql`${grant.unreadableLifetime}::boolean`,
    refreshDueAt: Sql.sql`${grant.refreshDueAt}::timestamptz`,
    keepAliveAt: Sql.sql`${grant.keepAliveAt}::timestamptz`,
    lastErrorCode: Sql.sql`${lastError?.code ?? null}::text`,
    lastErrorDetail: Sql.sql`${lastError?.detail ?? null}::text`,
  };
}

/**
 * The token set as the row's newest. `generation`: the row's next one. The statement sets permit, schedule and back-off beside them. The provider has given it,
 * unless `untried` says otherwise.
 */
export function grantColumns(grant: GrantParts, generation: number | Sql.Sql, untried = Sql.sql`false`): Sql.Sql {
  return Sql.sql`generation = ${generation}, ${statusColumns("connected")},
    access_token_sealed = ${grant.accessToken}, refresh_token_sealed = ${grant.refreshToken},
    refresh_fingerprint = ${grant.refreshFingerprint}, token_type = ${grant.tokenType},
    granted_scopes = COALESCE(${grant.grantedScopes}, c.granted_scopes), captured = ${grant.captured},
    redirect_uri = ${grant.redirectUri},
    account_captured = ${grant.accountCaptured},
    issued_at = ${grant.issuedAt}, expires_at = ${grant.expiresAt},
    refresh_token_expires_at = CASE WHEN ${grant.keepsRefreshToken} THEN c.refresh_token_expires_at
      ELSE ${grant.refreshTokenExpiresAt} END,
    refresh_due_at = ${grant.refreshDueAt}, keep_alive_at = ${grant.keepAliveAt},
    no_refresh_token_since = ${grant.noRefreshTokenSince},
    lifetime_unreadable = ${grant.unreadableLifetime}, untried = ${untried},
    missing_scopes_since = CASE WHEN NOT c.scopes <@ COALESCE(${grant.grantedScopes}, c.granted_scopes)
      THEN COALESCE(c.missing_scopes_since, clock_timestamp()) END,
    in_use = false, gone_back_from = NULL, ${noRefusals},
    consecutive_failures = 0, last_error_code = ${grant.lastErrorCode}, last_error_detail = ${grant.lastErrorDetail},
    last_error_at = CASE WHEN ${grant.lastErrorCode} IS NOT NULL THEN clock_timestamp() END,
    last_refreshed_at = clock_timestamp(), updated_at = clock_timestamp()`;
}

/** A token that has expired when it is issued must not be asked for again at once. */
export function backoffOnArrival({ issuedAt, expiresAt }: Pick<GrantParts, "issuedAt" | "expiresAt">): Sql.Sql {
  return Sql.sql`CASE WHEN ${expiresAt} <= ${issuedAt}
      THEN clock_timestamp() + ${seconds(refreshTimes.deadOnArrivalSeconds)} END`;
}

/**
 * Whether a row has anything that is sent to the provider's hosts, or may get it soon: tokens or credentials in any status, a request
 * under way, a candidate, an unconfirmed grant, a person who is connecting the account.
 */
export const hasOrAwaitsSecrets = Sql.sql`(c.access_token_sealed IS NOT NULL OR c.refresh_token_sealed IS NOT NULL
  OR c.credentials_sealed IS NOT NULL OR c.attempt_id IS NOT NULL
  OR EXISTS (SELECT 1 FROM candidates o WHERE o.connection_id = c.id)
  OR EXISTS (SELECT 1 FROM held_grants h WHERE h.connection_id = c.id)
  OR EXISTS (SELECT 1 FROM device_authorizations d WHERE d.connection_id = c.id)
  OR EXISTS (SELECT 1 FROM authorization_requests r WHERE r.connection_id = c.id AND r.expires_at > clock_timestamp())
  OR EXISTS (SELECT 1 FROM consent_links l JOIN consent_attempts a ON a.link_id = l.id
    WHERE l.connection_id = c.id AND a.ticket IS NULL AND a.expires_at > clock_timestamp())
  OR EXISTS (SELECT 1 FROM consent_links l WHERE l.connection_id = c.id AND l.manual AND l.used_at IS NULL
    AND l.expires_at > clock_timestamp()))`;

/** The version of the access token that an attempt got. Every attempt of a generation has its own, since it may be handed out unstored. */
export function attemptVersion({ accessToken }: SealedGrant): Sql.Sql {
  return accessToken === null ? Sql.sql`c.version` : storedVersion;
}

/** The same where it got one. */
export const storedVersion = Sql.sql`GREATEST(c.version, c.version_floor) + 1 + c.attempt_replays`;

/** When the sweeper looks at a row without a permit, at `earliest` or later; null: never. */
export function nextDue(earliest: Sql.Sql): Sql.Sql {
  return Sql.sql`CASE
    WHEN c.status = 'pending' OR c.enabled_status = 'pending' THEN ${earliest}
    WHEN COALESCE(CASE WHEN c.in_use THEN c.refresh_due_at END, c.keep_alive_at) IS NOT NULL
      THEN GREATEST(LEAST(CASE WHEN c.in_use THEN c.refresh_due_at END, c.keep_alive_at), ${earliest}) END`;
}

/** When the sweeper looks at an attempt whose lease ends at `leaseEnd`, unless its owner ends it before; null: never. */
export function abandonedDue(leaseEnd: Sql.Sql, { quietSeconds, promptly }: AbandonedRule): Sql.Sql {
  const abandoned = Sql.sql`${leaseEnd} + ${seconds(quietSeconds)}`;
  return promptly
    ? abandoned
    : Sql.sql`CASE WHEN c.expires_at IS NOT NULL THEN GREATEST(c.expires_at, ${abandoned}) END`;
}
