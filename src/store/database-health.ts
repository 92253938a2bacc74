/** Since when Postgres has answered this process without a gap. */
export type DatabaseHealth = {
  answered(): void;
  lost(): void;
  /** How often it has been lost. */
  losses(): number;
  /** Milliseconds of uninterrupted answers up to now; 0 while it is lost. */
  uninterruptedMs(): number;
};

/** Whoever asked nothing for longer cannot tell whether Postgres was there. */
const longestSilenceMs = 10_000;

/** @param monotonicMs a clock that never goes back */
export function createDatabaseHealth(monotonicMs: () => number): DatabaseHealth {
  let losses = 0;
  let reachable: { sinceMs: number; lastMs: number } | null = null;
  return {
    answered() {
      const nowMs = monotonicMs();
      const isGap = reachable === null || nowMs - reachable.lastMs > longestSilenceMs;
      reachable = { sinceMs: isGap || reachable === null ? nowMs : reachable.sinceMs, lastMs: nowMs };
    },
    lost() {
      reachable = null;
      losses += 1;
    },
    losses: () => losses,
    uninterruptedMs: () => (reachable === null ? 0 : reachable.lastMs - reachable.sinceMs),
  };
}
