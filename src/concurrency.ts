import { processTimes } from "./time.ts";

/** Lets a number of callers in at once; the others wait for their turn, in order. */
export type Gate = {
  /** False if the turn did not come within `waitMs`; the caller has not entered then. */
  enter(waitMs?: number): Promise<boolean>;
  leave(): void;
};

export function createGate(places: number): Gate {
  const waiting: ((mayEnter: boolean) => void)[] = [];
  let free = places;
  return {
    async enter(waitMs) {
      if (free > 0) {
        free -= 1;
        return true;
      }
      const { promise, resolve } = Promise.withResolvers<boolean>();
      waiting.push(resolve);
      if (waitMs === undefined) return await promise;
      const timer = setTimeout(() => {
        const place = waiting.indexOf(resolve);
        if (place >= 0) waiting.splice(place, 1);
        resolve(false);
      }, waitMs);
      return await promise.finally(() => clearTimeout(timer));
    },
    leave() {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next(true);
    },
  };
}

export async function inTurn<Result>(gate: Gate, work: () => Promise<Result>): Promise<Result> {
  await gate.enter();
  try {
    return await work();
  } finally {
    gate.leave();
  }
}

/**
 * The result of `compute`, which runs once a second at most, however many callers ask. A caller within that second, or while it
 * runs, gets the same result, or the same error.
 */
export function shareAnswer<Answer>(
  compute: () => Promise<Answer>,
  clock: { monotonicMs(): number },
): () => Promise<Answer> {
  let shared: { answer: Promise<Answer>; isDone: boolean; startedMs: number } | null = null;
  return async () => {
    const isFresh =
      shared !== null && (!shared.isDone || clock.monotonicMs() - shared.startedMs < processTimes.sharedAnswerMs);
    if (shared === null || !isFresh) {
      const started = { answer: compute(), isDone: false, startedMs: clock.monotonicMs() };
      void started.answer.catch(() => null).then(() => (started.isDone = true));
      shared = started;
    }
    return await shared.answer;
  };
}

/**
 * Does `work` for each item, `atOnce` of them at a time. If one fails, `onError` gets the error and the others go on. Only an error for which
 * `isForAll` is true, such as a database that is away, ends the work.
 */
export async function eachAlone<Item>(
  items: readonly Item[],
  work: (item: Item) => Promise<unknown>,
  {
    onError,
    isForAll = () => false,
    atOnce = 1,
  }: { onError: (error: unknown) => void; isForAll?: (error: unknown) => boolean; atOnce?: number },
): Promise<void> {
  const waiting = items.toReversed();
  const takeTurns = async (): Promise<void> => {
    for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) {
      try {
        await work(item);
      } catch (error) {
        if (!isForAll(error)) {
          onError(error);
          continue;
        }
        waiting.length = 0;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, takeTurns));
}

/**
 * Does work of one kind for many at once: what is asked for while earlier work runs is done together, as soon as that has ended, or has taken
 * `patienceMs`. Each gets the results of all that was done with it.
 */
export function gatherWork<Item, Results>(
  work: (items: readonly Item[]) => Promise<Results>,
  { patienceMs }: { patienceMs: number },
): (item: Item) => Promise<Results> {
  let waiting: { item: Item; take: (results: Promise<Results>) => void }[] = [];
  let isRunning = false;
  const begin = (): void => {
    if (isRunning || waiting.length === 0) return;
    const group = waiting;
    waiting = [];
    isRunning = true;
    const results = work(group.map(({ item }) => item));
    for (const { take } of group) take(results);
    let isOver = false;
    const goOn = () => {
      if (isOver) return;
      isOver = true;
      clearTimeout(late);
      isRunning = false;
      begin();
    };
    const late = setTimeout(goOn, patienceMs);
    results.then(goOn, goOn);
  };
  return async (item) =>
    await new Promise<Results>((take) => {
      waiting.push({ item, take });
      // Whoever asks in the same turn is among the first.
      process.nextTick(begin);
    });
}

/** One run for each key in this process: a caller that comes while it runs gets its result. */
export type SingleFlight<Result> = {
  run(key: string, start: () => Promise<Result>): Promise<Result>;
  /** Whether there is a run of one of these keys. */
  isRunning(...keys: string[]): boolean;
  /** Resolves when nothing runs any more. */
  idle(): Promise<void>;
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
    isRunning: (...keys) => keys.some((key) => flights.has(key)),
    async idle() {
      while (flights.size > 0) await Promise.allSettled(flights.values());
    },
  };
}

/**
 * Reads for many callers at once. Each gets what was read after it asked: whoever comes while a read of the same key is under way shares the next
 * one with all others that came meanwhile.
 */
export function shareReads<Value>(read: (key: string) => Promise<Value>): (key: string) => Promise<Value> {
  const running = new Map<string, Promise<unknown>>();
  const next = new Map<string, Promise<Value>>();
  const begin = (key: string): Promise<Value> => {
    next.delete(key);
    const reading = read(key);
    const ended = reading.catch(() => null).then(() => void (running.get(key) === ended && running.delete(key)));
    running.set(key, ended);
    return reading;
  };
  return (key) => {
    const current = running.get(key);
    if (current === undefined) return begin(key);
    const waiting = next.get(key) ?? current.then(() => begin(key));
    next.set(key, waiting);
    return waiting;
  };
}
