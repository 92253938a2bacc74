import { Prisma as Sql } from "../generated/prisma/client.ts";
import { refreshTimes } from "../time.ts";
import { type ConnectionStatus, type EventType, tokenColumns } from "./token-row.ts";

/** A set to be stored. `accessToken` null: the answer held none, what is stored counts as expired. */
export type SealedGrant = {
  accessToken: Uint8Array<ArrayBuffer> | null;
  refreshToken: Uint8Array<ArrayBuffer> | null;
  refreshFingerprint: Uint8Array<ArrayBuffer> | null;
  tokenType: string;
  /** Null: not said, the former ones stay. */
  grantedScopes: string[] | null;
  captured: Record<string, string>;
  /** The redirect URI that it was got with; null: none, or nobody knows. */
  redirectUri: string | null;
  /** What lookups gave, which the tokens are bound to as well. */
  accountCaptured: Record<string, string>;
  issuedAt: Date;
  expiresAt: Date | null;
  refreshTokenExpiresAt: Date | null;
  /** The answer named no new refresh token: the one in use keeps its end. */
  keepsRefreshToken: boolean;
  /** Since when a refresh token is lacking that is needed, or one is kept that has not worked since; null: neither. */
  noRefreshTokenSince: Date | null;
  /** The answer stated a life that could not be read. */
  unreadableLifetime: boolean;
  /** Why its access token is stored and not handed out, as a connection's `last_error`; null: it may be. */
  lastError: RecordedFailure | null;
  /** When to refresh ahead of callers; null: only when one needs it. */
  refreshDueAt: Date | null;
  /** When to refresh so that the refresh token or the grant does not end unused; null: it does not. */
  keepAliveAt: Date | null;
};

/** The owner of a permit and the generation it was given for. */
export type PermitKey = { connectionId: string; generation: number; attemptId: string };

export type RecordedFailure = {
  code: string;
  detail: string;
  status?: number;
  /** Of a refusal that says nothing about the grant: what equal ones have in common. Holds nothing of a body. */
  refusal?: string;
};

/** A line of a connection's history. Its detail holds no secret. */
export type HistoryEvent = {
  type: EventType;
  detail: unknown;
  /** What every set of a grant may bring: it is told with the first one. */
  oncePerGrant?: true;
};

/** When an attempt that its owner leaves behind may be looked at: after lease and quiet period, or not before the access token ends. */
export type OrphanRule = { quietSeconds: number; promptly: boolean };

/** Attempts before the one that ends may have handed out tokens from a spool: their versions are not given again. */
export const freePermit = Sql.sql`attempt_id = NULL, attempt_started_at = NULL, lease_until = NULL,
  attempt_outcome = NULL, attempt_replays = 0,
  version_floor = GREATEST(c.version, c.version_floor) + c.attempt_replays`;

export const seconds = (value: number) => Sql.sql`make_interval(secs => ${value}::double precision)`;

/**
 * Whether an array of patterns lies within `patterns` (of LIKE). None at all counts as `*`: what is for nobody is not everybody's;
 * and so does what is no pattern.
 */
export const liesWithin = (own: Sql.Sql, patterns: readonly string[]) => Sql.sql`NOT EXISTS (
  SELECT 1 FROM unnest(CASE WHEN cardinality(${own}) > 0 THEN ${own} ELSE '{*}' END) each
  WHERE (COALESCE(each, '*') LIKE ANY(${[...patterns]}::text[])) IS NOT TRUE)`;

export const json = (value: unknown) => Sql.sql`${JSON.stringify(value)}::jsonb`;

/** What the definition's own limits held back has not failed: it is no reason for a longer back-off, nor for the history. */
export const isHeldBack = ({ code }: RecordedFailure): boolean => code === "limit_reached";

/**
 * Equal refusals that say nothing about the grant are counted until a set is stored. Whatever else fails in between (429, 503, no
 * answer, the client's secret) says nothing about them: it neither counts nor ends the row of them. Another refusal begins anew.
 */
const refusalColumns = ({ refusal }: RecordedFailure) =>
  refusal === undefined
    ? Sql.empty
    : Sql.sql`refusal = ${refusal}, refusals = CASE WHEN c.refusal = ${refusal} THEN c.refusals + 1 ELSE 1 END,
  refused_since = CASE WHEN c.refusal = ${refusal} THEN c.refused_since ELSE clock_timestamp() END,`;

/** Nothing is known against the grant. */
export const noRefusals = Sql.sql`refusal = NULL, refusals = 0, refused_since = NULL, probably_dead_since = NULL`;

/** The line of the history: what the row counts by is not told there. */
export const tellable = ({ refusal: _refusal, ...failure }: RecordedFailure) => failure;

export const failureColumns = (failure: RecordedFailure) => Sql.sql`${refusalColumns(failure)}
  consecutive_failures = c.consecutive_failures + ${isHeldBack(failure) ? 0 : 1},
  last_error_code = ${failure.code}, last_error_at = clock_timestamp(), last_error_detail = ${failure.detail},
  updated_at = clock_timestamp()`;

export const owned = ({ connectionId, generation, attemptId }: PermitKey) =>
  Sql.sql`c.id = ${connectionId}::uuid AND c.generation = ${generation} AND c.attempt_id = ${attemptId}::uuid`;

/** One statement: the update and its events, or neither. `also`: further parts, which may refer to the changed row as c. */
export function moved(update: Sql.Sql, events: readonly HistoryEvent[], also: Sql.Sql = Sql.empty): Sql.Sql {
  const lines = events.map(
    ({ type, detail, oncePerGrant = false }, place) =>
      Sql.sql`(${place}::int, ${type}::text, ${json(detail)}, ${oncePerGrant}::boolean)`,
  );
  const told =
    lines.length === 0
      ? Sql.empty
      : Sql.sql`, told AS (INSERT INTO connection_events (connection_id, type, detail)
          SELECT c.id, e.type, e.detail FROM c, (VALUES ${Sql.join(lines)}) AS e(place, type, detail, once)
          WHERE NOT e.once OR NOT EXISTS (SELECT 1 FROM connection_events o WHERE o.connection_id = c.id AND o.type = e.type
            AND o.at >= COALESCE(c.authorized_at, c.created_at))
          ORDER BY e.place)`;
  return Sql.sql`WITH c AS (${update} RETURNING c.*) ${told} ${also} SELECT ${tokenColumns} FROM c`;
}

/** What the history tells of a set that is stored: its own line, and what it lacks where that is new. */
export function storedEvents(event: HistoryEvent, grant: SealedGrant): HistoryEvent[] {
  const events = [event];
  const isNew = grant.noRefreshTokenSince?.getTime() === grant.issuedAt.getTime();
  if (isNew) events.push({ type: "no_refresh_token", detail: { kept: grant.refreshToken !== null } });
  if (grant.lastError !== null) events.push({ type: "token_unusable", detail: grant.lastError, oncePerGrant: true });
  if (grant.unreadableLifetime) events.push({ type: "lifetime_unreadable", detail: {}, oncePerGrant: true });
  return events;
}

/** A disabled connection stays disabled: what happens to it shows when it is enabled again. */
export function statusColumns(status: ConnectionStatus): Sql.Sql {
  return Sql.sql`status = CASE WHEN c.status = 'disabled' THEN 'disabled' ELSE ${status} END, enabled_status = ${status}`;
}

/**
 * The set as the row's newest. `generation`: what it becomes. Schedule and back-off are `freeSchedule`'s. The provider has given it,
 * unless `untried` says otherwise.
 */
export function grantColumns(grant: SealedGrant, generation: number, untried = Sql.sql`false`): Sql.Sql {
  return Sql.sql`generation = ${generation}, ${statusColumns("connected")},
    access_token_sealed = ${grant.accessToken}, refresh_token_sealed = ${grant.refreshToken},
    refresh_fingerprint = ${grant.refreshFingerprint}, token_type = ${grant.tokenType},
    granted_scopes = COALESCE(${grant.grantedScopes}::text[], c.granted_scopes), captured = ${json(grant.captured)},
    redirect_uri = ${grant.redirectUri},
    account_captured = ${json(grant.accountCaptured)},
    issued_at = ${grant.issuedAt}::timestamptz, expires_at = ${grant.expiresAt}::timestamptz,
    refresh_token_expires_at = CASE WHEN ${grant.keepsRefreshToken} THEN c.refresh_token_expires_at
      ELSE ${grant.refreshTokenExpiresAt}::timestamptz END,
    refresh_due_at = ${grant.refreshDueAt}::timestamptz, keep_alive_at = ${grant.keepAliveAt}::timestamptz,
    no_refresh_token_since = ${grant.noRefreshTokenSince}::timestamptz,
    lifetime_unreadable = ${grant.unreadableLifetime}, untried = ${untried},
    missing_scopes_since = CASE WHEN NOT c.scopes <@ COALESCE(${grant.grantedScopes}::text[], c.granted_scopes)
      THEN COALESCE(c.missing_scopes_since, clock_timestamp()) END,
    in_use = false, gone_back_from = NULL, ${noRefusals},
    consecutive_failures = 0, last_error_code = ${grant.lastError?.code}, last_error_detail = ${grant.lastError?.detail},
    last_error_at = CASE WHEN ${grant.lastError !== null} THEN clock_timestamp() END,
    last_refreshed_at = clock_timestamp(), updated_at = clock_timestamp()`;
}

/** Of a row with a new set and no permit. Nobody has read it yet. */
export function freeSchedule(grant: SealedGrant): Sql.Sql {
  return Sql.sql`${freePermit}, next_refresh_at = ${grant.keepAliveAt}::timestamptz,
    backoff_until = CASE WHEN ${grant.expiresAt}::timestamptz <= ${grant.issuedAt}::timestamptz
      THEN clock_timestamp() + ${seconds(refreshTimes.deadOnArrivalSeconds)} END`;
}

/**
 * Whether a row has anything that is sent to the provider's hosts, or is about to get it: tokens or credentials in any status, a
 * request whose answer may bring some, a set that waits to be tried or confirmed, a person on the way.
 */
export const holdsGrant = Sql.sql`(c.access_token_sealed IS NOT NULL OR c.refresh_token_sealed IS NOT NULL
  OR c.credentials_sealed IS NOT NULL OR c.attempt_id IS NOT NULL
  OR EXISTS (SELECT 1 FROM candidates o WHERE o.connection_id = c.id)
  OR EXISTS (SELECT 1 FROM held_grants h WHERE h.connection_id = c.id)
  OR EXISTS (SELECT 1 FROM device_authorizations d WHERE d.connection_id = c.id)
  OR EXISTS (SELECT 1 FROM authorization_requests r WHERE r.connection_id = c.id AND r.expires_at > clock_timestamp())
  OR EXISTS (SELECT 1 FROM consent_links l JOIN consent_attempts a ON a.link_id = l.id
    WHERE l.connection_id = c.id AND a.ticket IS NULL AND a.expires_at > clock_timestamp())
  OR EXISTS (SELECT 1 FROM consent_links l WHERE l.connection_id = c.id AND l.manual AND l.used_at IS NULL
    AND l.expires_at > clock_timestamp()))`;

/** The version of a set that an attempt got: every attempt of a generation has one of its own, handed out before it is stored. */
export function attemptVersion({ accessToken }: SealedGrant): Sql.Sql {
  return accessToken === null
    ? Sql.sql`c.version`
    : Sql.sql`GREATEST(c.version, c.version_floor) + 1 + c.attempt_replays`;
}

/** When the sweeper comes to a row that nobody is refreshing, from `earliest` on; null: never. */
export function nextDue(earliest: Sql.Sql): Sql.Sql {
  return Sql.sql`CASE
    WHEN c.status = 'pending' OR c.enabled_status = 'pending' THEN ${earliest}
    WHEN COALESCE(CASE WHEN c.in_use THEN c.refresh_due_at END, c.keep_alive_at) IS NOT NULL
      THEN GREATEST(LEAST(CASE WHEN c.in_use THEN c.refresh_due_at END, c.keep_alive_at), ${earliest}) END`;
}

/** When the sweeper comes to an attempt whose lease ends at `leaseEnd`, should nobody bring it to its end; null: never. */
export function orphanDue(leaseEnd: Sql.Sql, { quietSeconds, promptly }: OrphanRule): Sql.Sql {
  const abandoned = Sql.sql`${leaseEnd} + ${seconds(quietSeconds)}`;
  return promptly
    ? abandoned
    : Sql.sql`CASE WHEN c.expires_at IS NOT NULL THEN GREATEST(c.expires_at, ${abandoned}) END`;
}
