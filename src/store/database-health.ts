/** Since when Postgres has answered this process without a gap. */
export type DatabaseHealth = {
  answered(): void;
  /** @param error what a statement failed with */
  lost(error?: unknown): void;
  /** A statement on this row alone could not be carried out. */
  rowWasBusy(rowId: string): void;
  /** How often it has been lost. */
  losses(): number;
  /**
   * Milliseconds of uninterrupted answers up to now; 0 while it is lost. For a row: not counting the time before that row was last
   * found busy, since who waits to store its answer could not do so either.
   */
  uninterruptedMs(rowId?: string): number;
};

/** Whoever asked nothing for longer cannot tell whether Postgres was there. */
const longestSilenceMs = 10_000;
/** Of rows that were busy. Who asks is satisfied with less than this. */
const rememberedMs = 60_000;

/** @param monotonicMs a clock that never goes back */
export function createDatabaseHealth(monotonicMs: () => number): DatabaseHealth {
  let losses = 0;
  let reachable: { sinceMs: number; lastMs: number } | null = null;
  const busyAtMs = new Map<string, number>();
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
    rowWasBusy(rowId) {
      const nowMs = monotonicMs();
      busyAtMs.delete(rowId); // so that they stand in the order of their times
      busyAtMs.set(rowId, nowMs);
      for (const [id, atMs] of busyAtMs) {
        if (nowMs - atMs <= rememberedMs) break;
        busyAtMs.delete(id);
      }
    },
    losses: () => losses,
    uninterruptedMs(rowId) {
      if (reachable === null) return 0;
      const busyMs = rowId === undefined ? undefined : busyAtMs.get(rowId);
      return Math.max(0, reachable.lastMs - Math.max(reachable.sinceMs, busyMs ?? reachable.sinceMs));
    },
  };
}
