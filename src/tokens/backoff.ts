import { budgets } from "./budgets.ts";

/** A longer Retry-After is not believed. */
export const longestRequestedSeconds = 3600;

/**
 * Seconds until the next try after the n-th failure in a row: exponential with full jitter, and never earlier than the
 * provider asked for (up to an hour).
 */
export function backoffSeconds(
  failuresBefore: number,
  retryAfterSeconds: number | undefined,
  random: () => number,
): number {
  const cap = Math.min(budgets.backoffBaseSeconds * 2 ** Math.min(failuresBefore, 30), budgets.backoffMaxSeconds);
  const requested = Math.min(retryAfterSeconds ?? 0, longestRequestedSeconds);
  return Math.max(random() * cap, requested);
}
