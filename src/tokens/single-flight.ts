/** One run per key in this process: who comes while it runs shares its result. */
export type SingleFlight<Result> = {
  run(key: string, start: () => Promise<Result>): Promise<Result>;
  /** The run of this key, if there is one. */
  running(key: string): Promise<Result> | undefined;
  /** Resolves when nothing runs any more. */
  settled(): Promise<void>;
};

export function createSingleFlight<Result>(): SingleFlight<Result> {
  const flights = new Map<string, Promise<Result>>();
  return {
    run(key, start) {
      const current = flights.get(key);
      if (current !== undefined) return current;
      const flight = start().finally(() => flights.delete(key));
      flights.set(key, flight);
      return flight;
    },
    running: (key) => flights.get(key),
    async settled() {
      while (flights.size > 0) await Promise.allSettled(flights.values());
    },
  };
}
