/** The clocks of this process. Passed in wherever time is read. */
export type Clock = {
  /** Milliseconds since 1970 by the machine's clock, which people and NTP may set. */
  wallMs: () => number;
  /** Milliseconds that never go back; stands still while the machine is suspended. */
  monotonicMs: () => number;
  /** Resolves after `ms`, or at once when `signal` aborts. */
  sleep: (ms: number, signal?: WakingSignal) => Promise<void>;
};

/** The part of an AbortSignal that ends a sleep. */
export type WakingSignal = {
  readonly aborted: boolean;
  addEventListener(event: "abort", wake: () => void, options?: { once: true }): void;
  removeEventListener(event: "abort", wake: () => void): void;
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
  const done = new SleepersSignal();
  try {
    return await Promise.race([work, clock.sleep(ms, done).then(() => null)]);
  } finally {
    done.abort();
  }
}

/** For one sleeper. Each caller that waits has one, and an AbortController with its events costs many times as much. */
class SleepersSignal implements WakingSignal {
  aborted = false;
  #wake = (): void => {};

  addEventListener(_event: "abort", wake: () => void): void {
    this.#wake = wake;
  }

  removeEventListener(): void {
    this.#wake = () => {};
  }

  abort(): void {
    this.aborted = true;
    this.#wake();
  }
}
