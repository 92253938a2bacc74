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
  /** With those of its client over them; of a further token its connection's. */
  inputsInForce: Record<string, string>;
  labels: Record<string, string>;
  captured: Record<string, string>;
  /** The redirect URI that its grant was got with; null: none, or nobody has noted it. */
  redirectUri: string | null;
  /** The connection whose consent gave this further token; null: this is a connection itself. */
  parentId: string | null;
  /** Which further token of its parent this is. */
  chain: string | null;
  /** Who the provider says it is; null: nobody asked, or it did not say. */
  account: string | null;
  /** The same for people to read, where the provider says it. */
  accountLabel: string | null;
  /** What lookups of the account gave for later templates. */
  accountCaptured: Record<string, string>;
  /** The authorization under which the account was looked up; null: not yet. */
  lookedUp: number | null;
  /** How often the lookups have failed, and when last. What is older than the grant says nothing of it. */
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
  /** The grant's own first day. */
  authorizedAt: Date | null;
  /** The client id that the grant was given to; null: not known. */
  authorizedClientId: string | null;
  /** Since when a refresh token is lacking that is needed, or one is kept that has not worked since; null: neither. */
  noRefreshTokenSince: Date | null;
  /** The newest answer stated a life that could not be read: what the definition falls back to counts. */
  unreadableLifetime: boolean;
  /** A person handed its set or its credentials over, and no refresh has succeeded since: nobody knows whether it will ever work. */
  untried: boolean;
  /** When it is refreshed whoever reads it, so that the refresh token or the grant does not end unused; null: they do not end. */
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
  /** Since when those are taken for the end of the grant; null: they are not. */
  probablyDeadSince: Date | null;
  /** When the refresh token was last tried after the grant had ended, because somebody asked for it; null: never. */
  retriedAt: Date | null;
  /** The sweeper has been told that its access token is read. */
  inUse: boolean;
  /** The generation that was stored before the database went back in time; null: it did not. */
  goneBackFrom: number | null;
  versionFloor: number;
  /** Proof that this broker wrote what people set of it; see proven-rows.ts. */
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

/** Postgres's largest integer. No row gets there by itself, and one that somebody has put there can store nothing any more. */
export const lastGeneration = 2_147_483_647;

/** The generation after this row's, and after all that were stored before its database went back in time. */
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
  "no_refresh_token", // of the newest set; `kept`: the one from before stays, and has not worked since; `reason`: another connection sends it
  "lifetime_unreadable", // an answer stated a life that could not be read: what the definition falls back to counts; once a grant
  "token_unusable", // an access token that no header can carry: it is stored and not handed out; once a grant
  "account_found",
  "account_lookup_failed",
  "other_account_held",
  "id_token_unchecked",
  "id_token_refused",
  "other_sets_dropped",
  "set_dropped", // the other side of it, which is not told whose connection it was
  "refreshed",
  "refresh_failed",
  "probably_dead", // the same refusal, which says nothing about the grant, again and again
  "needs_reauthorization",
  "retried", // its refresh token, after it had ended, because somebody asked for it
  "retry_failed",
  "old_secret_used", // of its client, since the newest is refused
  "answer_kept", // a late answer, to be tried before the grant ends
  "candidate_tried",
  "late_answer_stored",
  "came_along", // a further token, with a refresh of its connection
  "held_after_restore",
  "released_after_restore",
] as const;

export type EventType = (typeof eventTypes)[number];
