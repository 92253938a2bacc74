import { setImmediate } from "node:timers/promises";
import type { Clock } from "../../../src/clock.ts";

type Sleeper = { atMs: number; wake: () => void };

/** Time that stands still until a test lets it pass: sleepers wake in the order of their times, each after the other's work. */
export type ManualClock = Clock & { pass(ms: number): Promise<void>; sleeping(): number };

export function manualClock(): ManualClock {
  let nowMs = 1000;
  const sleepers = new Set<Sleeper>();
  const pass = async (ms: number): Promise<void> => {
    const endMs = nowMs + ms;
    for (;;) {
      await settle();
      const [next] = [...sleepers].sort((one, other) => one.atMs - other.atMs);
      if (next === undefined || next.atMs > endMs) break;
      nowMs = next.atMs;
      next.wake();
    }
    nowMs = endMs;
    await settle();
  };
  return {
    wallMs: () => Date.UTC(2026, 10, 20, 12) + nowMs,
    monotonicMs: () => nowMs,
    async sleep(ms, signal) {
      if (signal?.aborted) return;
      await new Promise<void>((resolve) => {
        const sleeper: Sleeper = {
          atMs: nowMs + ms,
          wake: () => {
            sleepers.delete(sleeper);
            resolve();
          },
        };
        sleepers.add(sleeper);
        signal?.addEventListener("abort", sleeper.wake, { once: true });
      });
    },
    pass,
    sleeping: () => sleepers.size,
  };
}

/** Lets everything run that waits for no time. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await setImmediate();
}
