import { isStorageUnavailable } from "../errors.ts";

type Entry<Value> = { value: Value; checkedAtMs: number; retryAtMs: number };

type Options<Value> = {
  /** Reads the current values in one query; keys without a value are left out. */
  load: (keys: string[]) => Promise<Map<string, Value>>;
  monotonicMs: () => number;
  /** How long a value is handed out without asking again. */
  trustMs: number;
  /** How long a value outlives its last confirmation while the database is gone. */
  outageMs: number;
  maxEntries: number;
  /** False for an answer that was read before what is already known: answers may overtake each other. */
  supersedes: (incoming: Value, current: Value) => boolean;
};

/** Values of the database, kept in this process. Stale ones of one moment are revalidated by one query. */
export type ReadCache<Value> = {
  /** @throws BrokerError storage_unavailable when it is unknown here and the database is gone. */
  read(key: string, options?: { bypass?: boolean }): Promise<Value | null>;
  /** What is known here, however old; null: nothing. */
  peek(key: string): Value | null;
  put(key: string, value: Value): void;
  /** The next read asks the database. */
  expire(key: string): void;
};

const outageRetryMs = 1000;

export function createReadCache<Value>(options: Options<Value>): ReadCache<Value> {
  const { monotonicMs, trustMs, outageMs, maxEntries, supersedes } = options;
  const entries = new Map<string, Entry<Value>>();
  const loading = new Map<string, Promise<Value | null>>();
  const loadBatched = createBatcher(options.load);

  /** Keeps the newer of what comes and what is known, and returns it. */
  const put = (key: string, incoming: Value): Value => {
    const current = entries.get(key)?.value;
    const value = current === undefined || supersedes(incoming, current) ? incoming : current;
    entries.delete(key);
    entries.set(key, { value, checkedAtMs: monotonicMs(), retryAtMs: 0 });
    if (entries.size > maxEntries) entries.delete(entries.keys().next().value as string);
    return value;
  };

  const load = async (key: string): Promise<Value | null> => {
    const value = await loadBatched(key);
    if (value !== undefined) return put(key, value);
    entries.delete(key); // and what is unknown is not kept: anybody can invent it
    return null;
  };

  /** Who comes while the key is being read shares the answer. */
  const loadShared = (key: string): Promise<Value | null> => {
    const current = loading.get(key);
    if (current !== undefined) return current;
    const started = load(key).finally(() => loading.delete(key));
    loading.set(key, started);
    return started;
  };

  const outlive = (entry: Entry<Value> | undefined, error: unknown): Value => {
    const isOutage = isStorageUnavailable(error);
    if (!isOutage || entry === undefined || monotonicMs() - entry.checkedAtMs > outageMs) throw error;
    entry.retryAtMs = monotonicMs() + outageRetryMs;
    return entry.value;
  };

  return {
    put,
    peek: (key) => entries.get(key)?.value ?? null,
    expire(key) {
      const entry = entries.get(key);
      if (entry !== undefined) entry.checkedAtMs = Math.min(entry.checkedAtMs, monotonicMs() - trustMs - 1);
    },
    async read(key, { bypass = false } = {}) {
      const entry = entries.get(key);
      if (bypass) return await load(key);
      if (entry !== undefined) {
        const now = monotonicMs();
        if (now - entry.checkedAtMs <= trustMs) return entry.value;
        if (now < entry.retryAtMs && now - entry.checkedAtMs <= outageMs) return entry.value;
      }
      try {
        return await loadShared(key);
      } catch (error) {
        return outlive(entry, error);
      }
    },
  };
}

/** Gathers the keys asked for in one turn of the event loop into one query. */
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
      batch = null; // who comes from here on gets a query that starts later
      return await load([...keys]);
    });
    return { keys, result };
  }
}
