import { setTimeout } from "node:timers/promises";
import type { Clock } from "../../../src/clock.ts";

/** Time that a test controls. Sleeping moves both clocks on and takes `realMs`; the test can move each clock. */
export type FakeClock = Clock & { wall: number; monotonic: number; advance(ms: number): void; slept: number[] };

export function fakeClock({ realMs = 0 } = {}): FakeClock {
  const clock: FakeClock = {
    wall: Date.UTC(2026, 10, 20, 12),
    monotonic: 1000,
    slept: [],
    wallMs: () => clock.wall,
    monotonicMs: () => clock.monotonic,
    advance(ms) {
      clock.wall += ms;
      clock.monotonic += ms;
    },
    async sleep(ms, signal) {
      await setTimeout(realMs);
      if (signal?.aborted) return;
      clock.slept.push(ms);
      clock.advance(ms);
    },
  };
  return clock;
}
