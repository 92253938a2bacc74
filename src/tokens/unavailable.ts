import { BrokerError, EgressRefusalError } from "../errors.ts";
import type { TokenRow } from "../store/token-row.ts";
import { budgets } from "./budgets.ts";

/** Grants that get tokens without a person. */
const unattendedGrants = new Set(["client_credentials", "password", "token_exchange"]);

export function isUnattended(grant: string): boolean {
  return unattendedGrants.has(grant);
}

/** The statuses in which a connection of this grant may be refreshed. */
export function refreshableStatuses(grant: string): ("pending" | "connected")[] {
  return isUnattended(grant) ? ["connected", "pending"] : ["connected"];
}

export function isRefreshable({ grant, status, goneBackFrom }: Refreshable): boolean {
  return goneBackFrom === null && refreshableStatuses(grant).some((each) => each === status);
}

/** True when the row itself says why no request may be sent now, whoever asks. */
export function isHeldBack(row: Refreshable & Pick<TokenRow, "backoffUntil" | "now">): boolean {
  return !isRefreshable(row) || (row.backoffUntil !== null && row.backoffUntil > row.now);
}

type Refreshable = Pick<TokenRow, "grant" | "status" | "goneBackFrom">;

/** What `limits` hold back, and the answers that close them. */
export function isOfLimits(code: string | null): boolean {
  return code === "limit_reached" || code === "rate_limited" || code === "blocked";
}

/** Seconds for a Retry-After header, after this failure: from 1 to 60, or to an hour where limits say so. */
export function retryAfter(code: string | null, seconds: number): number {
  const most = isOfLimits(code) ? budgets.limitRetryAfterMaxSeconds : budgets.retryAfterMaxSeconds;
  return Math.min(Math.max(Math.ceil(seconds), budgets.retryAfterMinSeconds), most);
}

/** Why there is no usable token, told from the row alone: every replica gives the same answer. */
export function explainUnavailable(row: TokenRow, times: { nowMs: number; abandonedAtMs: number | null }): BrokerError {
  const context = { connection: row.name };
  const because = becauseOf(row);
  if (row.status === "disabled") {
    return new BrokerError("connection_disabled", "This connection is disabled; enable it to get tokens.", context);
  }
  if (row.status === "needs_reauthorization") {
    return new BrokerError("needs_reauthorization", `${reauthorizationAdvice(row)}${because}`, context);
  }
  if (row.status === "pending" && !isUnattended(row.grant)) {
    return new BrokerError("authorization_pending", pendingAdvice(row.grant), context);
  }
  if (row.goneBackFrom !== null) {
    const detail =
      "The broker's database was restored from before this connection's newest token; an operator must run `freshet recover`.";
    return new BrokerError("storage_unavailable", detail, {
      ...context,
      retryAfterSeconds: budgets.retryAfterMaxSeconds,
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
    return new BrokerError("refresh_in_progress", detail, { ...context, retryAfterSeconds: 1 });
  }
  const untilMs = Math.max(times.abandonedAtMs ?? 0, row.backoffUntil?.getTime() ?? 0);
  const retryAfterSeconds = retryAfter(row.lastErrorCode, (untilMs - times.nowMs) / 1000);
  if (row.lastErrorCode === "blocked_address") {
    return new EgressRefusalError(row.lastErrorDetail ?? "", { ...context, retryAfterSeconds });
  }
  const detail = `The provider gives no token right now.${because}`;
  return new BrokerError("provider_unavailable", detail, { ...context, retryAfterSeconds });
}

/** What of these codes is told has been found out here: no provider has answered so. */
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

function reauthorizationAdvice(row: TokenRow): string {
  if (row.grant === "client_credentials") return "The provider ended this grant; correct the client at the provider.";
  if (row.grant === "password") return "The provider refuses the stored credentials; send new ones with PATCH.";
  if (row.grant === "token_exchange") return "The provider gives no further token any more; connect the account again.";
  if (row.grant === "import") return "The grant has ended; import a new token set.";
  return "The grant has ended; a person must connect the account again through a new consent link.";
}

function pendingAdvice(grant: string): string {
  return grant === "import"
    ? "No token set has been imported yet."
    : "Nobody has connected the account yet; send a person a consent link.";
}
