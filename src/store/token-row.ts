import { type Columns, selectList } from "./columns.ts";

export type ConnectionStatus = "pending" | "connected" | "needs_reauthorization" | "disabled";

/** A connection's row as the token core reads it: tokens sealed, times by Postgres's clock. */
export type TokenRow = {
  id: string;
  name: string;
  provider: string;
  clientRef: string | null;
  grant: string;
  status: ConnectionStatus;
  scopes: string[];
  inputs: Record<string, string>;
  /** The inputs of the connection and its client together; for a further token those of its connection. */
  inputsInForce: Record<string, string>;
  labels: Record<string, string>;
  captured: Record<string, string>;
  /** The redirect URI of the authorization request; null: none, or not noted. */
  redirectUri: string | null;
  /** The connection whose consent gave this further token; null: this is a connection itself. */
  parentId: string | null;
  /** Which further token of its parent this is. */
  chain: string | null;
  /** Who the provider says it is; null: nobody asked, or it did not say. */
  account: string | null;
  /** The same for people to read, where the provider says it. */
  accountLabel: string | null;
  /** Values captured by lookups of the account, for later templates. */
  accountCaptured: Record<string, string>;
  /** The authorization under which the account was looked up; null: not yet. */
  lookedUp: number | null;
  /** How often the lookups have failed, and when last. A failure before the grant does not count. */
  lookupFailures: number;
  lookupFailedAt: Date | null;
  credentials: Uint8Array | null;
  credentialsRevision: number;
  generation: number;
  authorization: number;
  version: number;
  accessToken: Uint8Array | null;
  refreshToken: Uint8Array | null;
  tokenType: string | null;
  grantedScopes: string[];
  issuedAt: Date | null;
  /** Null with an access token: it does not expire. */
  expiresAt: Date | null;
  refreshTokenExpiresAt: Date | null;
  /** When the grant was given. */
  authorizedAt: Date | null;
  /** The client id that the grant was given to; null: not known. */
  authorizedClientId: string | null;
  /** Since when a needed refresh token is missing, or an older one has been kept that has not worked since; null: neither. */
  noRefreshTokenSince: Date | null;
  /** The lifetime in the newest answer could not be read, so the definition's fallback counts. */
  unreadableLifetime: boolean;
  /** Its set was imported, or its credentials were set, and no refresh has succeeded since: nobody knows whether it will ever work. */
  untried: boolean;
  /** When it is refreshed even if nobody reads it, so that neither refresh token nor grant ends unused; null: they do not end. */
  keepAliveAt: Date | null;
  attemptId: string | null;
  attemptStartedAt: Date | null;
  leaseUntil: Date | null;
  attemptOutcome: string | null;
  lastAttemptId: string | null;
  attemptReplays: number;
  backoffUntil: Date | null;
  consecutiveFailures: number;
  lastErrorCode: string | null;
  lastErrorDetail: string | null;
  /** How many equal refusals that say nothing about the grant have come without a success since. */
  refusals: number;
  /** Since when the grant counts as probably dead; null: it does not. */
  probablyDeadSince: Date | null;
  /** When an operator last had the refresh token retried after the grant had ended; null: never. */
  retriedAt: Date | null;
  /** Its access token has been read since the last refresh, so the sweeper refreshes it ahead. */
  inUse: boolean;
  /** The generation that was stored before the database was restored from a backup; null: it was not. */
  goneBackFrom: number | null;
  versionFloor: number;
  /** The MAC over the columns that people set; see proven-rows.ts. */
  mac: string | null;
  /** Postgres's clock when the row was read. */
  now: Date;
};

const columns: Columns<TokenRow> = {
  id: "c.id::text",
  name: "c.name",
  provider: "c.provider",
  clientRef: "c.client_ref::text",
  grant: "c.grant_type",
  status: "c.status",
  scopes: "c.scopes",
  inputs: "c.inputs",
  inputsInForce:
    "COALESCE((SELECT p.inputs FROM connections p WHERE p.id = c.parent_id), c.inputs) || COALESCE((SELECT k.inputs FROM clients k WHERE k.id = c.client_ref), '{}')",
  labels: "c.labels",
  captured: "c.captured",
  redirectUri: "c.redirect_uri",
  parentId: "c.parent_id::text",
  chain: "c.chain",
  account: "c.account",
  accountLabel: "c.account_label",
  accountCaptured: "c.account_captured",
  lookedUp: "c.looked_up",
  lookupFailures: "c.lookup_failures",
  lookupFailedAt: "c.lookup_failed_at",
  credentials: "c.credentials_sealed",
  credentialsRevision: "c.credentials_revision",
  generation: "c.generation",
  authorization: "c.authorization_seq",
  version: "c.version",
  accessToken: "c.access_token_sealed",
  refreshToken: "c.refresh_token_sealed",
  tokenType: "c.token_type",
  grantedScopes: "c.granted_scopes",
  issuedAt: "c.issued_at",
  expiresAt: "c.expires_at",
  refreshTokenExpiresAt: "c.refresh_token_expires_at",
  authorizedAt: "c.authorized_at",
  authorizedClientId: "c.authorized_client_id",
  noRefreshTokenSince: "c.no_refresh_token_since",
  unreadableLifetime: "c.lifetime_unreadable",
  untried: "c.untried",
  keepAliveAt: "c.keep_alive_at",
  attemptId: "c.attempt_id::text",
  attemptStartedAt: "c.attempt_started_at",
  leaseUntil: "c.lease_until",
  attemptOutcome: "c.attempt_outcome",
  lastAttemptId: "c.last_attempt_id::text",
  attemptReplays: "c.attempt_replays",
  backoffUntil: "c.backoff_until",
  consecutiveFailures: "c.consecutive_failures",
  lastErrorCode: "c.last_error_code",
  lastErrorDetail: "c.last_error_detail",
  refusals: "c.refusals",
  probablyDeadSince: "c.probably_dead_since",
  retriedAt: "c.retried_at",
  inUse: "c.in_use",
  goneBackFrom: "c.gone_back_from",
  versionFloor: "c.version_floor",
  mac: "c.mac",
  now: "clock_timestamp()",
};

/** The columns of a TokenRow. `c`: its connection. */
export const tokenColumns = selectList(columns);

/** Postgres's largest integer. No row reaches it by itself. A row that somebody has set to it can store nothing any more. */
export const lastGeneration = 2_147_483_647;

/** The generation after this row's, and after all that were stored before a restore of its database. */
export function nextGeneration(row: { generation: number; goneBackFrom: number | null }): number {
  return Math.max(row.generation, row.goneBackFrom ?? 0) + 1;
}

/** Every type that a line of a connection's history can have. A closed set: the OpenAPI document lists it. */
export const eventTypes = [
  "created",
  "updated",
  "disabled",
  "enabled",
  "consent_link_created",
  "consent_denied",
  "consent_failed",
  "connected",
  "reconnected",
  "imported",
  "no_refresh_token", // the newest set has none; `kept`: the older one stays, and has not worked since; `reason`: another connection sends it
  "lifetime_unreadable", // the lifetime in an answer could not be read, so the definition's fallback counts; once for a grant
  "token_unusable", // an access token that no header can carry: it is stored and not handed out; once for a grant
  "account_found",
  "account_lookup_failed",
  "other_account_held",
  "id_token_unchecked",
  "id_token_refused",
  "other_sets_dropped",
  "set_dropped", // for the connection that lost its set; it does not name the other one
  "refreshed",
  "refresh_failed",
  "probably_dead", // the same refusal, which says nothing about the grant, again and again
  "needs_reauthorization", // a grant has ended: each of the three statements of store/grant-ends.ts that end one writes it
  "retried", // an operator has retried the refresh token of an ended grant
  "retry_failed",
  "old_secret_used", // the older secret of its client, since the newest is refused
  "answer_kept", // a late answer became a candidate
  "candidate_tried",
  "late_answer_stored",
  "came_along", // a further token, with a refresh of its connection
  "held_after_restore",
  "released_after_restore",
] as const;

export type EventType = (typeof eventTypes)[number];
