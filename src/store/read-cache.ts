import { withDeadline, type Clock } from "../clock.ts";
import { DatabaseBusyError, isStorageUnavailable } from "../errors.ts";
import { storeTimes } from "../time.ts";

type Entry<Value> = {
  value: Value;
  bytes: number;
  checkedAtMs: number;
  expiredAtMs: number;
  retryAtMs: number;
  hasEnded?: true;
};

type Options<Value> = {
  /** Reads the current values in one query; keys without a value are left out. */
  load: (keys: string[]) => Promise<Map<string, Value>>;
  clock: Pick<Clock, "monotonicMs" | "sleep">;
  /** How long a value is handed out without asking again. */
  trustMs: number;
  /** How long a value is handed out after its last confirmation while the database is away. */
  outageMs: number;
  maxEntries: number;
  /** The limit in bytes, for values that may be large. Beyond it the oldest are dropped, but never the newest. */
  maxBytes?: number;
  bytesOf?: (value: Value) => number;
  /** False if `next` was read before the known value: answers may arrive out of order. */
  supersedes: (incoming: Value, current: Value) => boolean;
};

/** A cache of database values in this process. One query revalidates all values that are stale at the same moment. */
export type ReadCache<Value> = {
  /** @throws BrokerError storage_unavailable when it is unknown here and the database is gone. */
  read(key: string, options?: { bypass?: boolean }): Promise<Value | null>;
  /** The cached value, if it may be handed out without asking; null: none, or it must be confirmed first. */
  trusted(key: string): Value | null;
  /** The cached value, however old; null: none. */
  peek(key: string): Value | null;
  put(key: string, value: Value): void;
  /** The next read asks the database. */
  expire(key: string): void;
  /** True from a query that was not answered in time, or found the database away, until one is answered. */
  isSilent(): boolean;
  /** Drops the value, so that it is not handed out any more, even without the database. Later reads get a new query. */
  forget(key: string): void;
};

export function createReadCache<Value>(options: Options<Value>): ReadCache<Value> {
  const { clock, trustMs, outageMs, maxEntries, supersedes, maxBytes = Infinity, bytesOf = () => 0 } = options;
  const monotonicMs = () => clock.monotonicMs();
  const entries = new Map<string, Entry<Value>>();
  const loading = new Map<string, Promise<Value | null>>();
  let bytes = 0;
  const silence = createSilence(clock, async () => void (await load(lastKey)));
  let lastKey = "";
  const loadBatched = createBatcher(async (keys) => await silence.watch(options.load(keys)));

  const drop = (key: string): void => {
    const entry = entries.get(key);
    if (entry !== undefined) bytes -= entry.bytes;
    entries.delete(key);
  };

  const forgetOldest = (): void => {
    for (const key of entries.keys()) {
      const isTooMuch = entries.size > maxEntries || (bytes > maxBytes && entries.size > 1);
      if (!isTooMuch) return;
      drop(key);
    }
  };

  /** Stores the newer of the read and the cached value, and returns it. Trust begins when the query was asked. */
  const put = (key: string, incoming: Value, askedMs = monotonicMs()): Value => {
    const current = entries.get(key);
    const isNewer = current === undefined || supersedes(incoming, current.value);
    const isExpired = current !== undefined && askedMs < current.expiredAtMs;
    const fresh = () => ({
      value: incoming,
      bytes: bytesOf(incoming),
      checkedAtMs: askedMs,
      expiredAtMs: 0,
      retryAtMs: 0,
    });
    const entry = isNewer ? fresh() : current;
    if (current !== undefined && isExpired) entry.checkedAtMs = current.checkedAtMs;
    drop(key);
    entries.set(key, entry);
    bytes += entry.bytes;
    forgetOldest();
    return entry.value;
  };

  const load = async (key: string): Promise<Value | null> => {
    const askedMs = monotonicMs();
    const value = await loadBatched(key);
    if (value !== undefined) return put(key, value, askedMs);
    drop(key); // unknown keys are not cached, since anybody can make them up
    return null;
  };

  /** A reader that comes while the key is being read gets the same answer. */
  const loadShared = (key: string): Promise<Value | null> => {
    const current = loading.get(key);
    if (current !== undefined) return current;
    const started: Promise<Value | null> = load(key).finally(() => {
      if (loading.get(key) === started) loading.delete(key);
    });
    loading.set(key, started);
    return started;
  };

  /** Waits only a moment for the database if there is a cached value to hand out instead. */
  const revalidate = async (key: string, entry: Entry<Value>): Promise<Value | null> => {
    const mayOutlive = () => monotonicMs() - entry.checkedAtMs <= outageMs && entry.hasEnded !== true;
    lastKey = key;
    if (mayOutlive() && silence.isOn()) return entry.value;
    try {
      const loaded = loadShared(key).then((value) => ({ value }));
      const answer = mayOutlive() ? await silence.interrupts(loaded) : await loaded;
      if (answer !== null) return answer.value;
      return mayOutlive() ? entry.value : await loadShared(key);
    } catch (error) {
      if (isStorageUnavailable(error) && mayOutlive()) return entry.value;
      if (!(error instanceof DatabaseBusyError) || !mayOutlive()) throw error;
      // The database answers but cannot read this row. It is asked again a little later, and not by every reader.
      entry.retryAtMs = monotonicMs() + storeTimes.outageRetryMs;
      return entry.value;
    }
  };

  return {
    put: (key, value) => void put(key, value),
    trusted(key) {
      const entry = entries.get(key);
      return entry !== undefined && monotonicMs() - entry.checkedAtMs <= trustMs ? entry.value : null;
    },
    peek: (key) => entries.get(key)?.value ?? null,
    isSilent: () => silence.isOn(),
    expire(key) {
      const entry = entries.get(key);
      if (entry === undefined) return;
      entry.checkedAtMs = Math.min(entry.checkedAtMs, monotonicMs() - trustMs - 1);
      entry.expiredAtMs = monotonicMs();
    },
    forget(key) {
      const entry = entries.get(key);
      if (entry !== undefined) entry.hasEnded = true;
      drop(key);
      loading.delete(key);
    },
    async read(key, { bypass = false } = {}) {
      const entry = entries.get(key);
      if (bypass || entry === undefined) return await (bypass ? load(key) : loadShared(key));
      const ageMs = monotonicMs() - entry.checkedAtMs;
      if (ageMs <= trustMs || (monotonicMs() < entry.retryAtMs && ageMs <= outageMs)) return entry.value;
      return await revalidate(key, entry);
    },
  };
}

/**
 * Whether the database leaves this cache's queries unanswered. The reader that notices it has to wait; later readers do not wait, until a query
 * is answered again. `ask` tries that beside the readers.
 */
function createSilence(clock: Pick<Clock, "monotonicMs" | "sleep">, ask: () => Promise<void>) {
  const waiting = new Set<() => void>();
  let isOn = false;
  let isAsking = false;
  let readMs = 0;
  /** When it was last tried. */
  let knownMs = 0;
  const askOn = async (): Promise<void> => {
    if (isAsking) return;
    isAsking = true;
    while (isOn) {
      await clock.sleep(storeTimes.outageRetryMs);
      if (clock.monotonicMs() - readMs > storeTimes.lonelyMs) isOn = false;
      if (isOn) await withDeadline(ask().catch(ignore), storeTimes.silentPatienceMs, clock);
      knownMs = clock.monotonicMs();
    }
    isAsking = false;
  };
  const begin = (): void => {
    if (isOn) return;
    isOn = true;
    readMs = knownMs = clock.monotonicMs();
    for (const wake of waiting) wake();
    void askOn();
  };
  return {
    isOn(): boolean {
      readMs = clock.monotonicMs();
      // The process was suspended: what was true before says nothing about now, so the next reader waits for an answer.
      if (readMs - knownMs > 2 * (storeTimes.outageRetryMs + storeTimes.silentPatienceMs)) isOn = false;
      return isOn;
    },
    async watch<Answer>(question: Promise<Answer>): Promise<Answer> {
      const answered = question.then(isAnswered, isAnswered);
      void withDeadline(answered, storeTimes.readPatienceMs, clock).then((inTime) => inTime ?? begin());
      try {
        const answer = await question;
        isOn = false;
        return answer;
      } catch (error) {
        if (isStorageUnavailable(error)) begin();
        else if (!(error instanceof DatabaseBusyError)) isOn = false; // an error is an answer, too
        throw error;
      }
    },
    /** Null if the database falls silent before `work` is done. */
    async interrupts<Answer>(work: Promise<Answer>): Promise<Answer | null> {
      const { promise: silence, resolve } = Promise.withResolvers<null>();
      const wake = () => resolve(null);
      waiting.add(wake);
      try {
        return await Promise.race([work, silence]);
      } finally {
        waiting.delete(wake);
      }
    },
  };
}

const isAnswered = () => true;
const ignore = () => undefined;

/** Collects the keys that are asked for in one turn of the event loop into one query. */
function createBatcher<Value>(load: (keys: string[]) => Promise<Map<string, Value>>) {
  let batch: { keys: Set<string>; result: Promise<Map<string, Value>> } | null = null;
  return async (key: string): Promise<Value | undefined> => {
    batch ??= openBatch();
    batch.keys.add(key);
    return (await batch.result).get(key);
  };

  function openBatch() {
    const keys = new Set<string>();
    const result = new Promise<void>((resolve) => void setImmediate(resolve)).then(async () => {
      batch = null; // later readers get the next query
      return await load([...keys]);
    });
    return { keys, result };
  }
}
