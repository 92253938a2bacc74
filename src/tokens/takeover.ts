import type { TokenRow } from "../store/token-row.ts";
import type { PermitRequest } from "../store/permit-rows.ts";
import type { OrphanRule } from "../store/row-sql.ts";
import { budgets } from "./budgets.ts";
import { isRefreshable } from "./unavailable.ts";

/** What of a definition decides when a token whose last send has no known outcome may be sent again. */
export type ReuseRules = {
  reuse: "safe" | "grace" | "until_successor_used" | "dead" | "kills_family";
  graceSeconds: number;
};

/** `required`: a caller needs a new token. `ahead`: nobody does yet. */
export type Need = "required" | "ahead";

/** Who asks, and since when this process has had answers of Postgres without a gap. */
export type Recoverer = { need: Need; uninterruptedMs: number };

const promptReuse = new Set(["safe", "until_successor_used", "dead"]);

/** What the permit statement is told about taking over the attempt that stands in `row`; null: it must not be. */
export function takeoverOf(row: TokenRow, given: ReuseRules, recoverer: Recoverer): PermitRequest["takeover"] {
  if (row.attemptId === null || recoverer.uninterruptedMs < budgets.uninterruptedMs) return null;
  const rules = rulesFor(row, given);
  return {
    seenAttemptId: row.attemptId,
    quietSeconds: budgets.quietSeconds,
    promptly: recoverer.need === "required" || promptReuse.has(rules.reuse),
    graceSeconds: rules.reuse === "grace" ? rules.graceSeconds : 0,
    graceQuietSeconds: budgets.graceQuietSeconds,
  };
}

/** When the sweeper looks at an attempt that its owner leaves behind: as soon as it could be taken over without a caller's need. */
export function orphanRule(row: TokenRow, given: ReuseRules): OrphanRule {
  const rules = rulesFor(row, given);
  const inGrace = rules.reuse === "grace" && rules.graceSeconds > budgets.leaseSeconds * 2;
  return {
    promptly: promptReuse.has(rules.reuse) || inGrace,
    quietSeconds: inGrace ? budgets.graceQuietSeconds : budgets.quietSeconds,
  };
}

/** Whether the permit statement would let this recoverer take over now, by the Postgres time in `row`. */
export function mayTakeOver(row: TokenRow, rules: ReuseRules, recoverer: Recoverer): boolean {
  const isBackingOff = row.backoffUntil !== null && row.backoffUntil > row.now;
  if (isBackingOff || !isRefreshable(row)) return false;
  const takeover = takeoverOf(row, rules, recoverer);
  const abandonedMs = abandonedAtMs(row, rules);
  if (takeover === null || abandonedMs === null || abandonedMs > row.now.getTime()) return false;
  const runOut = row.expiresAt !== null && row.expiresAt <= row.now;
  return takeover.promptly || runOut || isInGrace(row, rulesFor(row, rules));
}

/** When the attempt in `row` is past its lease and quiet period, in milliseconds by Postgres's clock; null: none stands there. */
export function abandonedAtMs(row: TokenRow, rules: ReuseRules): number | null {
  if (row.leaseUntil === null) return null;
  const quietSeconds = isInGrace(row, rulesFor(row, rules)) ? budgets.graceQuietSeconds : budgets.quietSeconds;
  return row.leaseUntil.getTime() + quietSeconds * 1000;
}

/** A replay that would end within the window in which the provider still takes the old token (refresh-protocol). */
function isInGrace(row: TokenRow, rules: ReuseRules): boolean {
  if (rules.reuse !== "grace" || row.attemptStartedAt === null) return false;
  const endsMs = row.attemptStartedAt.getTime() + rules.graceSeconds * 1000;
  return row.now.getTime() + budgets.leaseSeconds * 1000 < endsMs;
}

/**
 * With Redis silent, an answer may wait there, and its successor may be in use already: nothing is sent again before that is
 * known, except what is free of cost, and what waiting would only bring closer to the end of its grace.
 */
export function mustHearSpools(row: TokenRow, given: ReuseRules): boolean {
  const rules = rulesFor(row, given);
  return rules.reuse !== "safe" && !isInGrace(row, rules);
}

/** A grant without a refresh token spends nothing, whatever its provider does with refresh tokens. */
function rulesFor(row: TokenRow, rules: ReuseRules): ReuseRules {
  return row.refreshToken === null ? { reuse: "safe", graceSeconds: 0 } : rules;
}
