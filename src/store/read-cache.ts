import { withDeadline, type Clock } from "../clock.ts";
import { DatabaseBusyError, isStorageUnavailable } from "../errors.ts";
import { storeTimes } from "../time.ts";

/** There are very many, so times are whole milliseconds: those take no memory of their own. */
type Entry<Value> = {
  key: string;
  value: Value;
  /** When the query began that read or confirmed it. */
  checkedAtMs: number;
  /** When a reader last got it. */
  readAtMs: number;
  /** Whether a reader has got it since it last came to the end of the line that entries leave when there are too many. */
  wasRead: boolean;
  expiredAtMs: number;
  retryAtMs: number;
  hasEnded: boolean;
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
  /** Called for each value that is kept from now on, and for each that is kept no more, also if another one takes its place. */
  onKept?: (value: Value) => void;
  onDropped?: (value: Value) => void;
  /** False if `next` was read before the known value: answers may arrive out of order. */
  supersedes: (incoming: Value, current: Value) => boolean;
  /** How values are confirmed before their trust ends. Without it each is read again. */
  confirming?: Confirming<Value>;
};

type Confirming<Value> = {
  /** Whether `changed` can say it of this value. */
  isPossible: (value: Value) => boolean;
  /** Those of these values that are not as they were when they were read, by one query. */
  changed: (values: Value[]) => Promise<ReadonlySet<Value>>;
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
  /** Values are confirmed no more. */
  stop(): void;
};

/** An entry that was read since it last came to the end of the line goes there again. So many may do so before one is dropped. */
const mostSpared = 8;
/** For a time before all others. A number without an end would take memory of its own. */
const never = -(2 ** 30);

export function createReadCache<Value>(options: Options<Value>): ReadCache<Value> {
  const { clock, trustMs, outageMs, maxEntries, supersedes, maxBytes = Infinity } = options;
  const { bytesOf = () => 0, onKept = () => {}, onDropped = () => {} } = options;
  const monotonicMs = () => clock.monotonicMs();
  const entries = new Map<string, Entry<Value>>();
  const loading = new Map<string, Promise<Value | null>>();
  let bytes = 0;
  const silence = createSilence(clock, async () => void (await load(lastKey)));
  let lastKey = "";
  const confirmation = createConfirmation<Value>({
    ...options,
    isCurrent: (entry) => entries.get(entry.key) === entry,
    expire: (entry) => expire(entry),
  });
  const loadBatched = createBatcher({
    load: async (keys) => await silence.watch(options.load(keys)),
    outwait: async (query) => await silence.outwait(query),
  });

  const drop = (key: string): void => {
    const entry = entries.get(key);
    if (entry === undefined) return;
    bytes -= bytesOf(entry.value);
    entries.delete(key);
    onDropped(entry.value);
  };

  /** To the end of the line. */
  const queue = (entry: Entry<Value>): void => {
    entries.delete(entry.key);
    entries.set(entry.key, entry);
  };

  const forgetOldest = (): void => {
    let spared = 0;
    for (const [key, entry] of entries) {
      const isTooMuch = entries.size > maxEntries || (bytes > maxBytes && entries.size > 1);
      if (!isTooMuch) return;
      if (!entry.wasRead || spared === mostSpared) {
        drop(key);
        continue;
      }
      spared += 1;
      entry.wasRead = false;
      queue(entry);
    }
  };

  const expire = (entry: Entry<Value>): void => {
    entry.checkedAtMs = Math.min(entry.checkedAtMs, Math.floor(monotonicMs() - trustMs) - 1);
    entry.expiredAtMs = monotonicMs();
  };

  /** Stores the newer of the read and the cached value, and returns it. Trust begins when the query was asked. */
  const put = (key: string, incoming: Value, askedMs = monotonicMs()): Entry<Value> => {
    const current = entries.get(key);
    const isNewer = current === undefined || supersedes(incoming, current.value);
    const isExpired = current !== undefined && askedMs < current.expiredAtMs;
    if (!isNewer) {
      queue(current);
      return current;
    }
    const entry: Entry<Value> = {
      key,
      value: incoming,
      checkedAtMs: isExpired ? current.checkedAtMs : Math.floor(askedMs),
      readAtMs: current?.readAtMs ?? never,
      wasRead: false,
      expiredAtMs: 0,
      retryAtMs: 0,
      hasEnded: false,
    };
    drop(key);
    entries.set(key, entry);
    onKept(incoming);
    bytes += bytesOf(incoming);
    forgetOldest();
    if (!isExpired) confirmation.watch(entry);
    return entry;
  };

  /** For a reader. */
  const handOut = (entry: Entry<Value>): Value => {
    entry.readAtMs = Math.floor(monotonicMs());
    entry.wasRead = true;
    return entry.value;
  };

  const load = async (key: string): Promise<Value | null> => {
    const askedMs = monotonicMs();
    const value = await loadBatched(key);
    if (value !== undefined) {
      const entry = put(key, value, askedMs);
      entry.readAtMs = Math.floor(monotonicMs());
      return entry.value;
    }
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
    const mayOutlive = () => monotonicMs() - entry.checkedAtMs <= outageMs && !entry.hasEnded;
    lastKey = key;
    if (mayOutlive() && silence.isOn()) return handOut(entry);
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
      if (entry === undefined) return null;
      const nowMs = monotonicMs();
      if (nowMs - entry.checkedAtMs > trustMs) return null;
      entry.readAtMs = Math.floor(nowMs);
      entry.wasRead = true;
      return entry.value;
    },
    peek: (key) => entries.get(key)?.value ?? null,
    isSilent: () => silence.isOn(),
    expire(key) {
      const entry = entries.get(key);
      if (entry !== undefined) expire(entry);
    },
    stop: () => confirmation.stop(),
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
      if (ageMs <= trustMs || (monotonicMs() < entry.retryAtMs && ageMs <= outageMs)) return handOut(entry);
      return await revalidate(key, entry);
    },
  };
}

/**
 * Confirms the entries that readers get, before their trust ends: one query asks which of thousands have changed. One that has is read again by
 * its next reader, and so is everything that was read before a query failed: the database that answers next may be another one.
 */
function createConfirmation<Value>({
  clock,
  confirming,
  isCurrent,
  expire,
}: Pick<Options<Value>, "clock" | "confirming"> & {
  isCurrent: (entry: Entry<Value>) => boolean;
  expire: (entry: Entry<Value>) => void;
}) {
  type Group = { dueMs: number; entries: Entry<Value>[] };
  /** Those that were read or confirmed at about the same time, the oldest first. */
  const groups: Group[] = [];
  const stopped = new AbortController();
  const nowMs = () => clock.monotonicMs();
  let isRunning = false;

  const watch = (entry: Entry<Value>): void => {
    if (confirming?.isPossible(entry.value) !== true || stopped.signal.aborted) return;
    const dueMs = entry.checkedAtMs + storeTimes.confirmAfterMs;
    const last = groups.at(-1);
    if (last !== undefined && dueMs < last.dueMs + storeTimes.confirmTogetherMs) last.entries.push(entry);
    else groups.push({ dueMs, entries: [entry] });
    if (!isRunning) void run(confirming);
  };

  const run = async ({ changed }: Confirming<Value>): Promise<void> => {
    isRunning = true;
    for (let next = groups[0]; next !== undefined && !stopped.signal.aborted; next = groups[0]) {
      if (next.dueMs > nowMs()) await clock.sleep(next.dueMs - nowMs(), stopped.signal);
      const entries = takeDue();
      const isAnswered = entries.length === 0 || (await confirm(entries, changed));
      if (!isAnswered) groups.length = 0;
    }
    isRunning = false;
  };

  /** Takes as many as one query confirms, of those that are due and in use. */
  const takeDue = (): Entry<Value>[] => {
    const due: Entry<Value>[] = [];
    const untilMs = nowMs() + storeTimes.confirmTogetherMs;
    for (let [next] = groups; next !== undefined && next.dueMs <= untilMs; [next] = groups) {
      const taken = next.entries.splice(0, mostConfirmed - due.length);
      due.push(...taken.filter((entry) => isCurrent(entry) && nowMs() - entry.readAtMs <= storeTimes.inUseMs));
      if (next.entries.length > 0) break;
      groups.shift();
    }
    return due;
  };

  /** False: there was no answer. */
  const confirm = async (entries: Entry<Value>[], changed: Confirming<Value>["changed"]): Promise<boolean> => {
    const askedMs = nowMs();
    const answer = await changed(entries.map(({ value }) => value)).catch(() => null);
    if (answer === null) return false;
    // What was expired, replaced or dropped meanwhile stays so.
    const asked = entries.filter((entry) => isCurrent(entry) && askedMs >= entry.expiredAtMs);
    for (const entry of asked) {
      if (answer.has(entry.value)) expire(entry);
      else entry.checkedAtMs = Math.floor(askedMs);
    }
    const confirmed = asked.filter((entry) => !answer.has(entry.value));
    if (confirmed.length > 0) groups.push({ dueMs: askedMs + storeTimes.confirmAfterMs, entries: confirmed });
    return true;
  };

  return { watch, stop: () => stopped.abort(null) };
}

/** How many one query confirms. */
const mostConfirmed = 2000;

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
    /** Waits until a query is answered, or the database has fallen silent: then it may be this query alone that hangs. */
    async outwait(query: Promise<unknown>): Promise<void> {
      if (!isOn) await this.interrupts(query.then(isAnswered, isAnswered));
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

/**
 * Collects the keys that are asked for in one turn of the event loop into one query. Who asks for a key that a query is reading needs a later
 * answer: all that do so wait for that query and share the next, so that a crowd costs few queries.
 */
function createBatcher<Value>({
  load,
  outwait,
}: {
  load: (keys: string[]) => Promise<Map<string, Value>>;
  outwait: (query: Promise<unknown>) => Promise<void>;
}) {
  let batch: { keys: Set<string>; result: Promise<Map<string, Value>> } | null = null;
  const underWay = new Map<string, Promise<unknown>>();
  return async (key: string): Promise<Value | undefined> => {
    const current = underWay.get(key);
    if (current !== undefined) await outwait(current);
    batch ??= openBatch();
    batch.keys.add(key);
    return (await batch.result).get(key);
  };

  function openBatch() {
    const keys = new Set<string>();
    const result = new Promise<void>((resolve) => void setImmediate(resolve)).then(async () => {
      batch = null; // later readers get the next query
      const query = load([...keys]);
      for (const key of keys) underWay.set(key, query);
      try {
        return await query;
      } finally {
        for (const key of keys) if (underWay.get(key) === query) underWay.delete(key);
      }
    });
    return { keys, result };
  }
}
