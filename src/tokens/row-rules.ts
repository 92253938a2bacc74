import { BrokerError, EgressRefusalError } from "../errors.ts";
import { rulesOfGrant, type TokenGrant } from "../grant-types.ts";
import type { ConnectionGrant, ProviderDefinition, RefreshRules } from "../providers/format/definition.ts";
import type { PermitRequest } from "../store/permits.ts";
import type { AbandonedRule } from "../store/row-sql.ts";
import type { TokenRow } from "../store/token-row.ts";
import { refreshTimes } from "../time.ts";
import type { SendPlan } from "./request.ts";

/** The settings that decide when a token may be sent again after an unknown outcome. */
export type ReuseRules = {
  reuse: "safe" | "grace" | "until_successor_used" | "dead" | "kills_family";
  graceSeconds: number;
};

/** `required`: a caller needs a new token. `ahead`: nobody does yet. */
export type Need = "required" | "ahead";

/** The need of the process that would take over, and since when it has had answers from Postgres without a gap. */
export type Recoverer = { need: Need; uninterruptedMs: number };

const promptReuse = new Set(["safe", "until_successor_used", "dead"]);

/** The takeover part of a permit request for the attempt in `row`; null: it must not be taken over. */
export function takeoverOf(row: TokenRow, given: ReuseRules, recoverer: Recoverer): PermitRequest["takeover"] {
  if (row.attemptId === null || recoverer.uninterruptedMs < refreshTimes.uninterruptedMs) return null;
  const rules = rulesFor(row, given);
  return {
    seenAttemptId: row.attemptId,
    quietSeconds: refreshTimes.quietSeconds,
    promptly: recoverer.need === "required" || promptReuse.has(rules.reuse),
    graceSeconds: rules.reuse === "grace" ? rules.graceSeconds : 0,
    graceQuietSeconds: refreshTimes.graceQuietSeconds,
  };
}

/** When the sweeper looks at an abandoned attempt: as soon as it may be taken over without a caller's need. */
export function abandonedRule(row: TokenRow, given: ReuseRules): AbandonedRule {
  const rules = rulesFor(row, given);
  const inGrace = rules.reuse === "grace" && rules.graceSeconds > refreshTimes.leaseSeconds * 2;
  return {
    promptly: promptReuse.has(rules.reuse) || inGrace,
    quietSeconds: inGrace ? refreshTimes.graceQuietSeconds : refreshTimes.quietSeconds,
  };
}

/** Whether the permit statement would let this recoverer take over now, by the Postgres time in `row`. */
export function mayTakeOver(row: TokenRow, rules: ReuseRules, recoverer: Recoverer): boolean {
  const isBackingOff = row.backoffUntil !== null && row.backoffUntil > row.now;
  if (isBackingOff || !statusAllowsRefresh(row)) return false;
  const takeover = takeoverOf(row, rules, recoverer);
  const abandonedMs = abandonedAtMs(row, rules);
  if (takeover === null || abandonedMs === null || abandonedMs > row.now.getTime()) return false;
  const runOut = row.expiresAt !== null && row.expiresAt <= row.now;
  return takeover.promptly || runOut || isInGrace(row, rulesFor(row, rules));
}

/** When the lease and quiet period of the row's attempt are over, in milliseconds by Postgres's clock; null: there is no attempt. */
export function abandonedAtMs(row: TokenRow, rules: ReuseRules): number | null {
  if (row.leaseUntil === null) return null;
  const quietSeconds = isInGrace(row, rulesFor(row, rules))
    ? refreshTimes.graceQuietSeconds
    : refreshTimes.quietSeconds;
  return row.leaseUntil.getTime() + quietSeconds * 1000;
}

/** Whether a replay would end while the provider still accepts the old token. */
function isInGrace(row: TokenRow, rules: ReuseRules): boolean {
  if (rules.reuse !== "grace" || row.attemptStartedAt === null) return false;
  const endsMs = row.attemptStartedAt.getTime() + rules.graceSeconds * 1000;
  return row.now.getTime() + refreshTimes.leaseSeconds * 1000 < endsMs;
}

/**
 * Whether to wait until every spool has answered before a refresh token is sent again. A spool in Redis may have the provider's answer, and
 * its token may be in use already. Do not wait where a second send costs nothing, or where waiting would use up the grace window.
 */
export function mustWaitForSpools(row: TokenRow, given: ReuseRules): boolean {
  const rules = rulesFor(row, given);
  return rules.reuse !== "safe" && !isInGrace(row, rules);
}

/** Without a refresh token nothing is spent, whatever the provider does with refresh tokens. */
function rulesFor(row: TokenRow, rules: ReuseRules): ReuseRules {
  return row.refreshToken === null ? { reuse: "safe", graceSeconds: 0 } : rules;
}

/** The statuses in which a connection of this grant may be refreshed. */
export function refreshableStatuses(grant: string): ("pending" | "connected")[] {
  return rulesOfGrant(grant).needsPerson ? ["connected"] : ["connected", "pending"];
}

/** True if the row's status allows a refresh, and the row is not suspended. There may still be nothing to refresh with (`hasWayToRefresh`). */
export function statusAllowsRefresh({ grant, status, goneBackFrom }: StatusOfRow): boolean {
  return goneBackFrom === null && refreshableStatuses(grant).some((each) => each === status);
}

/** True if nobody may send a request now because of the row's status or back-off. */
export function rowForbidsRefresh(row: StatusOfRow & Pick<TokenRow, "backoffUntil" | "now">): boolean {
  return !statusAllowsRefresh(row) || (row.backoffUntil !== null && row.backoffUntil > row.now);
}

type StatusOfRow = Pick<TokenRow, "grant" | "status" | "goneBackFrom">;

/** Throttled requests, and the answers that close limits. */
export function isOfLimits(code: string | null): boolean {
  return code === "limit_reached" || code === "rate_limited" || code === "blocked";
}

/** Seconds for a Retry-After header after this failure: 1 to 60, or up to an hour if limits say so. */
export function retryAfter(code: string | null, seconds: number): number {
  const most = isOfLimits(code) ? refreshTimes.limitRetryAfterMaxSeconds : refreshTimes.retryAfterMaxSeconds;
  return Math.min(Math.max(Math.ceil(seconds), refreshTimes.retryAfterMinSeconds), most);
}

/** Why there is no usable token. It depends only on the row, so that every replica gives the same answer. */
export function explainUnavailable(row: TokenRow, times: { nowMs: number; abandonedAtMs: number | null }): BrokerError {
  const context = { connection: row.name };
  const because = becauseOf(row);
  const grant = rulesOfGrant(row.grant);
  if (row.status === "disabled") {
    return new BrokerError("connection_disabled", "This connection is disabled; enable it to get tokens.", context);
  }
  if (row.status === "needs_reauthorization") {
    return new BrokerError("needs_reauthorization", `${grant.reauthorizationAdvice}${because}`, context);
  }
  if (row.status === "pending" && grant.needsPerson) {
    return new BrokerError("authorization_pending", grant.pendingAdvice, context);
  }
  if (row.goneBackFrom !== null) {
    const detail =
      "The broker's database was restored from before this connection's newest token; an operator must run `freshet recover`.";
    return new BrokerError("storage_unavailable", detail, {
      ...context,
      retryAfterSeconds: refreshTimes.retryAfterMaxSeconds,
    });
  }
  if (row.lastErrorCode === "invalid_client") {
    return new BrokerError(
      "client_rejected",
      `The provider refuses this broker's client id or secret; correct the client.${because}`,
      context,
    );
  }
  if (row.lastErrorCode === "unreadable_secret") {
    const detail = `${row.lastErrorDetail ?? ""} Correct the client's secret or the credentials, or connect the account again.`;
    return new BrokerError("unreadable_secret", detail.trim(), context);
  }
  const inBackoff = (row.backoffUntil?.getTime() ?? 0) > times.nowMs;
  if (row.attemptOutcome === null && (row.attemptId !== null || (row.lastErrorCode === null && !inBackoff))) {
    const detail = "A refresh of this connection is under way; try again shortly.";
    return new BrokerError("refresh_in_progress", detail, {
      ...context,
      retryAfterSeconds: refreshTimes.retryAfterMinSeconds,
    });
  }
  const untilMs = Math.max(times.abandonedAtMs ?? 0, row.backoffUntil?.getTime() ?? 0);
  const retryAfterSeconds = retryAfter(row.lastErrorCode, (untilMs - times.nowMs) / 1000);
  if (row.lastErrorCode === "blocked_address") {
    return new EgressRefusalError(row.lastErrorDetail ?? "", { ...context, retryAfterSeconds });
  }
  const detail = `The provider gives no token right now.${because}`;
  return new BrokerError("provider_unavailable", detail, { ...context, retryAfterSeconds });
}

/** Codes of failures that the broker itself has found, so their text is not a provider's answer. */
const foundHere = new Set([
  "blocked_address",
  "connect_failed",
  "limit_reached",
  "send_window_passed",
  "unreadable_secret",
  "unusable_token",
]);

function becauseOf({ lastErrorCode, lastErrorDetail }: TokenRow): string {
  if (lastErrorDetail === null) return "";
  return foundHere.has(lastErrorCode ?? "")
    ? ` ${capitalised(lastErrorDetail)}`
    : ` The provider's answer: ${lastErrorDetail}`;
}

function capitalised(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}

type Holding = Pick<TokenRow, "grant" | "credentials"> & { refreshToken: unknown };

/** The request by which a connection gets its next token; null: only a person can give it one. */
export function firstPlan(row: Holding, definition: Pick<ProviderDefinition, "refreshes">): SendPlan | null {
  const isSent = row.refreshToken !== null && !isUselessTo(definition, row.grant);
  return isSent ? { grant: "refresh_token", secretIndex: 0 } : anewPlan(row);
}

/** The request for a new set without a refresh token; null: that needs a person. */
export function anewPlan({ grant, credentials }: Pick<Holding, "grant" | "credentials">): SendPlan | null {
  const { needsPerson, needsCredentials } = rulesOfGrant(grant);
  if (needsPerson || (needsCredentials && credentials === null)) return null;
  return { grant: grant as TokenGrant, secretIndex: 0 };
}

/** Whether a connection has something to get its next token with, without a person: a refresh token, or what its grant type sends. */
export function hasWayToRefresh(row: Holding): boolean {
  return row.refreshToken !== null || anewPlan(row) !== null;
}

/**
 * Whether a refresh token is of no use: a new set needs no refresh token, and the definition has no request to send one with. RFC 6749,
 * section 4.4.3, wants none in an answer to client credentials, but some servers send one.
 */
export function isUselessTo({ refreshes }: Pick<ProviderDefinition, "refreshes">, grant: string): boolean {
  return !rulesOfGrant(grant).needsPerson && refreshes[grant as ConnectionGrant] === undefined;
}

/** What decides whether a connection can still be refreshed after a set that brought no refresh token. */
export type RefreshTokenBase = Pick<TokenRow, "grant" | "credentials" | "noRefreshTokenSince"> & {
  /** The refresh token from before that stays; null: none. */
  refreshToken: string | null;
  rotation: RefreshRules["rotation"];
};

/**
 * After a set that brought no refresh token: since when the connection has no working one. Null: it has one, or needs none. If the
 * definition says that every answer brings a new one, the one that was sent has most likely been spent.
 */
export function refreshTokenMissingSince(
  base: RefreshTokenBase,
  { sentAt, expiresAt }: { sentAt: Date; expiresAt: Date | null },
) {
  if (expiresAt === null) return null;
  const { refreshToken } = base;
  const isLacking = refreshToken === null ? anewPlan(base) === null : base.rotation === "always";
  return isLacking ? (base.noRefreshTokenSince ?? sentAt) : null;
}

/**
 * Whether the newest set brought no refresh token, and its access token expires. If there is an older refresh token (see
 * `endsWithItsToken`), it may still work. Introspection may show later that the access token does not expire.
 */
export function mayEndWithItsToken({
  noRefreshTokenSince,
  expiresAt,
}: Pick<TokenRow, "noRefreshTokenSince" | "expiresAt">): boolean {
  return noRefreshTokenSince !== null && expiresAt !== null;
}

/** The same, and there is no older refresh token left to try: the connection ends with its access token. */
export function endsWithItsToken(row: Pick<TokenRow, "noRefreshTokenSince" | "expiresAt" | "refreshToken">): boolean {
  return row.refreshToken === null && mayEndWithItsToken(row);
}

type Explained = Pick<TokenRow, "grant" | "scopes" | "grantedScopes"> & { hasRefreshToken: boolean };

/** The text for people about a missing refresh token: what it means, and what they can do. */
export function explainNoRefreshToken({ grant, scopes, grantedScopes, hasRefreshToken }: Explained): string {
  if (hasRefreshToken) {
    return "The provider's newest answer held no refresh token. The one from before is kept and sent next; if the provider refuses it, this connection ends with its access token and must be connected again.";
  }
  const ends = "There is no refresh token: this connection ends with its access token.";
  if (grant === "import") return `${ends} Import a token set that holds one.`;
  const wasRefused = scopes.includes("offline_access") && !grantedScopes.includes("offline_access");
  const scope = wasRefused
    ? "The scope offline_access, which asks for one, was not granted."
    : "Some providers give one only for a scope, often offline_access: add it to the connection's scopes.";
  return `${ends} ${scope} Some give one only with the first consent: remove this application's access in the account's settings at the provider. Then connect it again.`;
}

/** How many equal refusals that say nothing about the grant make it probably dead. */
export const refusalsBeforeDead = 5;

/**
 * Seconds until the next try after the n-th failure in a row: exponential with full jitter, and never earlier than the
 * provider asked for (up to an hour).
 */
export function backoffSeconds(
  failuresBefore: number,
  retryAfterSeconds: number | undefined,
  random: () => number,
): number {
  const cap = Math.min(
    refreshTimes.backoffBaseSeconds * 2 ** Math.min(failuresBefore, 30),
    refreshTimes.backoffMaxSeconds,
  );
  const requested = Math.min(retryAfterSeconds ?? 0, refreshTimes.longestRequestedSeconds);
  return Math.max(random() * cap, requested);
}

/** The ends before which a set is refreshed, by Postgres's clock. */
export type EndTimes = {
  issuedAt: Date;
  /** Null: the access token does not expire. */
  expiresAt: Date | null;
  /** As the provider stated it; null: it did not. */
  refreshTokenExpiresAt: Date | null;
  authorizedAt: Date | null;
};

type Rules = Pick<RefreshRules, "aheadFraction" | "minAgeSeconds" | "idleLifeSeconds" | "absoluteLifeSeconds">;

/** When the sweeper refreshes a set. */
export type Schedule = {
  /** Before the access token expires, if somebody reads it; null: it does not expire. */
  refreshDueAt: Date | null;
  /** Before the refresh token or the grant ends, even if nobody reads the token; null: neither ends. */
  keepAliveAt: Date | null;
};

const jitterFraction = 0.05;
const marginFraction = 0.1;

/** Pure: the same ends, rules and random numbers give the same schedule. */
export function scheduleRefresh(ends: EndTimes, rules: Rules, random: () => number): Schedule {
  const issuedMs = ends.issuedAt.getTime();
  const earliestMs = issuedMs + rules.minAgeSeconds * 1000;
  const at = (ms: number) => new Date(Math.max(ms, earliestMs));
  const aheadMs = aheadOfAccessEnd(ends, rules, random);
  const keepMs = keepAliveTerms(ends, rules)
    .map((term) => beforeEnd(term, random))
    // A time that has passed already caused this refresh. Scheduling it again would make the row due for ever.
    .filter((ms) => ms > issuedMs);
  return {
    refreshDueAt: aheadMs === null ? null : at(aheadMs),
    keepAliveAt: keepMs.length === 0 ? null : at(Math.min(...keepMs)),
  };
}

function aheadOfAccessEnd({ issuedAt, expiresAt }: EndTimes, { aheadFraction }: Rules, random: () => number) {
  if (expiresAt === null) return null;
  const lifeMs = Math.max(expiresAt.getTime() - issuedAt.getTime(), 0);
  const jitter = (2 * random() - 1) * jitterFraction;
  return issuedAt.getTime() + lifeMs * Math.max(0, 1 - aheadFraction + jitter);
}

type Term = { fromMs: number; endMs: number };

function keepAliveTerms(ends: EndTimes, { idleLifeSeconds, absoluteLifeSeconds }: Rules): Term[] {
  const { issuedAt, refreshTokenExpiresAt, authorizedAt } = ends;
  const issuedMs = issuedAt.getTime();
  const firstMs = authorizedAt?.getTime() ?? issuedMs;
  const terms: Term[] = [];
  if (idleLifeSeconds !== null) terms.push({ fromMs: issuedMs, endMs: issuedMs + idleLifeSeconds * 1000 });
  if (absoluteLifeSeconds !== null) terms.push({ fromMs: firstMs, endMs: firstMs + absoluteLifeSeconds * 1000 });
  if (refreshTokenExpiresAt !== null) terms.push({ fromMs: issuedMs, endMs: refreshTokenExpiresAt.getTime() });
  return terms;
}

/** A tenth of the life before its end, at most a day, with jitter so that connections made together are not refreshed together. */
function beforeEnd({ fromMs, endMs }: Term, random: () => number): number {
  const marginMs = Math.min((endMs - fromMs) * marginFraction, refreshTimes.keepAliveMarginMs);
  return endMs - marginMs * (1 + random());
}
