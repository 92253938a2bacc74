/** The clocks of this process. Passed in wherever time is read. */
export type Clock = {
  /** Milliseconds since 1970 by the machine's clock, which people and NTP may set. */
  wallMs: () => number;
  /** Milliseconds that never go back; stands still while the machine is suspended. */
  monotonicMs: () => number;
  /** Resolves after `ms`, or at once when `signal` aborts. */
  sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
};

export const systemClock: Clock = {
  wallMs: Date.now,
  monotonicMs: performance.now.bind(performance),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", wake);
        resolve();
      }, ms);
      const wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (signal?.aborted) wake();
      else signal?.addEventListener("abort", wake, { once: true });
    }),
};

/** The promise's value, or null if it takes longer than `ms`. The work itself goes on. */
export async function withDeadline<T>(work: Promise<T>, ms: number, clock: Pick<Clock, "sleep">): Promise<T | null> {
  const done = new AbortController();
  try {
    return await Promise.race([work, clock.sleep(ms, done.signal).then(() => null)]);
  } finally {
    done.abort(null); // without a reason of its own each abort would make an error, with a stack
  }
}
