import type { Clock } from "../clock.ts";

/** Postgres's clock, as far as this process can know it between two answers. All expiry is judged by it. */
export type DatabaseClock = {
  /** To be told of Postgres's time whenever a row brings one along. */
  observe(now: Date): void;
  /** Milliseconds since 1970. Never early by more than the way of the answer. */
  nowMs(): number;
};

/**
 * Keeps the last observed time and advances it by the larger of monotonic and wall time passed: a suspended machine stops
 * the first, somebody setting the clock back stops the second.
 */
export function createDatabaseClock(clock: Clock): DatabaseClock {
  let base = { databaseMs: clock.wallMs(), wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() };
  const nowMs = () => base.databaseMs + Math.max(clock.wallMs() - base.wallMs, clock.monotonicMs() - base.monotonicMs);
  return {
    observe(now) {
      base = { databaseMs: now.getTime(), wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() };
    },
    nowMs,
  };
}
