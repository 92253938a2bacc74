import type { Clock } from "../clock.ts";

/** This process's clocks at one moment. */
type AskedAt = { wallMs: number; monotonicMs: number };

/** Postgres's clock, as far as this process can know it between two answers. All expiry is judged by it. */
export type DatabaseClock = {
  /** To be called before a question that Postgres's time comes back with. */
  ask(): AskedAt;
  /** To be told of that time. */
  observe(now: Date, asked: AskedAt): void;
  /** True before the first, and when this process's clocks disagree since the last: one was set, or the machine slept. */
  isDoubtful(): boolean;
  /** Milliseconds since 1970. Never late; early by at most the time that the last question took. */
  nowMs(): number;
};

const mostDriftMs = 1000;

/**
 * Keeps the last observed time and advances it by the larger of monotonic and wall time passed: a suspended machine stops
 * the first, somebody setting the clock back stops the second.
 */
export function createDatabaseClock(clock: Clock): DatabaseClock {
  let base = { databaseMs: clock.wallMs(), wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() };
  let isObserved = false;
  const passed = () => ({ wallMs: clock.wallMs() - base.wallMs, monotonicMs: clock.monotonicMs() - base.monotonicMs });
  return {
    isDoubtful() {
      const { wallMs, monotonicMs } = passed();
      return !isObserved || Math.abs(wallMs - monotonicMs) > mostDriftMs;
    },
    nowMs() {
      const { wallMs, monotonicMs } = passed();
      return base.databaseMs + Math.max(wallMs, monotonicMs);
    },
    ask: () => ({ wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() }),
    // As if it were the time at which it was asked for: an answer that comes late must not set the clock back.
    observe(now, asked) {
      isObserved = true;
      base = { databaseMs: now.getTime(), ...asked };
    },
  };
}
