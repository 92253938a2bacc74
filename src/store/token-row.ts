import { Prisma as Sql } from "../generated/prisma/client.ts";

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

/** The columns of a TokenRow, for the end of a SELECT or a RETURNING. */
export const tokenColumns = Sql.sql`
  c.id::text AS id, c.name, c.provider, c.client_ref::text AS "clientRef", c.grant_type AS "grant", c.status, c.scopes,
  c.inputs, COALESCE((SELECT p.inputs FROM connections p WHERE p.id = c.parent_id), c.inputs)
    || COALESCE((SELECT k.inputs FROM clients k WHERE k.id = c.client_ref), '{}') AS "inputsInForce", c.labels, c.captured,
  c.redirect_uri AS "redirectUri", c.parent_id::text AS "parentId", c.chain, c.account, c.account_label AS "accountLabel", c.account_captured AS "accountCaptured",
  c.looked_up AS "lookedUp", c.lookup_failures AS "lookupFailures", c.lookup_failed_at AS "lookupFailedAt", c.credentials_sealed AS "credentials", c.credentials_revision AS "credentialsRevision",
  c.generation, c.authorization_seq AS "authorization", c.version, c.access_token_sealed AS "accessToken",
  c.refresh_token_sealed AS "refreshToken", c.token_type AS "tokenType", c.granted_scopes AS "grantedScopes",
  c.issued_at AS "issuedAt", c.expires_at AS "expiresAt", c.refresh_token_expires_at AS "refreshTokenExpiresAt",
  c.authorized_at AS "authorizedAt", c.authorized_client_id AS "authorizedClientId",
  c.no_refresh_token_since AS "noRefreshTokenSince", c.lifetime_unreadable AS "unreadableLifetime", c.untried, c.keep_alive_at AS "keepAliveAt", c.attempt_id::text AS "attemptId",
  c.attempt_started_at AS "attemptStartedAt", c.lease_until AS "leaseUntil", c.attempt_outcome AS "attemptOutcome",
  c.last_attempt_id::text AS "lastAttemptId", c.attempt_replays AS "attemptReplays", c.backoff_until AS "backoffUntil",
  c.consecutive_failures AS "consecutiveFailures", c.last_error_code AS "lastErrorCode",
  c.last_error_detail AS "lastErrorDetail", c.refusals, c.probably_dead_since AS "probablyDeadSince", c.retried_at AS "retriedAt", c.in_use AS "inUse", c.gone_back_from AS "goneBackFrom",
  c.version_floor AS "versionFloor", c.mac, clock_timestamp() AS now`;

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
