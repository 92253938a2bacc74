/** Since when Postgres has answered this process without a gap. */
export type DatabaseHealth = {
  answered(): void;
  lost(): void;
  /** Milliseconds of uninterrupted answers up to now; 0 while it is lost. */
  uninterruptedMs(): number;
};

/** @param monotonicMs a clock that never goes back */
export function createDatabaseHealth(monotonicMs: () => number): DatabaseHealth {
  let reachableSince: number | null = null;
  return {
    answered() {
      reachableSince ??= monotonicMs();
    },
    lost() {
      reachableSince = null;
    },
    uninterruptedMs: () => (reachableSince === null ? 0 : monotonicMs() - reachableSince),
  };
}
