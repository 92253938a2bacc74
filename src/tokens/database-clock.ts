import type { Clock } from "../clock.ts";

/** This process's clocks at one moment. */
type AskedAt = { wallMs: number; monotonicMs: number };

/** Postgres's clock, as far as this process can know it between two answers. All expiry is judged by it. */
export type DatabaseClock = {
  /** To be called before a question that Postgres's time comes back with. */
  ask(): AskedAt;
  /** To be told of that time. */
  observe(now: Date, asked: AskedAt): void;
  /** Milliseconds since 1970. Never late; early by at most the time that the last question took. */
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
    ask: () => ({ wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() }),
    // As if it were the time at which it was asked for: an answer that comes late must not set the clock back.
    observe(now, asked) {
      base = { databaseMs: now.getTime(), ...asked };
    },
    nowMs,
  };
}
