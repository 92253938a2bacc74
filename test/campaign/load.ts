import { setTimeout as sleep } from "node:timers/promises";

/** One read of a load. */
export type Sample = { startedMs: number; tookMs: number; status: number };

export type Load = {
  readonly samples: readonly Sample[];
  /** No further reads; resolves when all are answered. */
  stop(): Promise<void>;
};

function inSeconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

/** The reads that got no token: when, in seconds from the first, how long they took, and their status; 0 for none. */
export function refusalsIn({ samples }: Load): string[] {
  const beganMs = samples[0]?.startedMs ?? 0;
  return samples
    .filter(({ status }) => status !== 200)
    .slice(0, 10)
    .map(
      ({ startedMs, tookMs, status }) =>
        `read at ${inSeconds(startedMs - beganMs)} s: ${status} after ${inSeconds(tookMs)} s`,
    );
}

/**
 * Reads at a fixed rate, whether earlier reads are answered or not. So a stall shows in every read that meets it. `read` gives the status;
 * one that throws counts as 0.
 */
export function startLoad(perSecond: number, read: (index: number) => Promise<number>): Load {
  const samples: Sample[] = [];
  const running = new Set<Promise<void>>();
  const state = { isOn: true };
  const sample = async (index: number) => {
    const startedMs = performance.now();
    const status = await read(index).catch(() => 0);
    samples.push({ startedMs, tookMs: performance.now() - startedMs, status });
  };
  const run = async () => {
    const beganMs = performance.now();
    for (let index = 0; state.isOn;) {
      const due = Math.floor(((performance.now() - beganMs) / 1000) * perSecond);
      for (; index < due; index++) {
        const one = sample(index).finally(() => running.delete(one));
        running.add(one);
      }
      await sleep(2);
    }
    await Promise.all(running);
  };
  const ended = run();
  return {
    samples,
    async stop() {
      state.isOn = false;
      await ended;
    },
  };
}
