import type { ReadCount } from "../store/audit.ts";
import { auditTimes } from "../time.ts";
import { type Actor, type Audit, clean } from "./entries.ts";

const countedActions = ["tokens.read", "keys.refused"] as const;

/** What is counted. `connection` null: unknown, or not allowed. */
export type Countable = {
  action: (typeof countedActions)[number];
  actor: Actor;
  connection: string | null;
  result: string;
};

type Count = Countable & { minuteMs: number; count: number; firstMs: number; lastMs: number };

/** From so many counts on they are kept more coarsely: no longer by the minute, and from twice as many on no longer by connection. */
const mostByMinute = 100_000;

/** Counts in memory, until they are written. */
export function createReadCounts(most = mostByMinute) {
  /** Of one minute. */
  let current = new Map<string, Count>();
  let minuteMs = -Infinity;
  let older: Count[] = [];
  let coarse = new Map<string, Count>();

  const putOlder = (count: Count): void => {
    if (older.length + current.size < most) older.push(count);
    else fold(count);
  };

  const fold = (count: Count): void => {
    const key = keyOf(count);
    const isKnown = coarse.has(key);
    const kept = isKnown || coarse.size < most ? count : { ...count, connection: null };
    addTo(coarse, isKnown ? key : keyOf(kept), kept);
  };

  /** Adds one. Returns where the next of its kind can be added in this minute; null: it was kept more coarsely. */
  const add = (counted: Countable, nowMs: number): Count | null => {
    const ofMs = nowMs - (nowMs % auditTimes.minuteMs);
    if (ofMs !== minuteMs) {
      for (const count of current.values()) putOlder(count);
      current = new Map();
      minuteMs = ofMs;
    }
    const key = keyOf(counted);
    const known = current.get(key);
    if (known !== undefined) {
      known.count += 1;
      known.lastMs = nowMs;
      return known;
    }
    const count = { ...counted, minuteMs, count: 1, firstMs: nowMs, lastMs: nowMs };
    if (older.length + current.size < most) {
      current.set(key, count);
      return count;
    }
    fold(count);
    return null;
  };

  return {
    add: (counted: Countable, nowMs: number): void => void add(counted, nowMs),

    /**
     * For what comes again and again: the same as `add`, without a search for the count. The count that it remembers is written by nobody else
     * once `current` is another map, which each minute and each `take` makes.
     */
    counter(counted: Countable): (nowMs: number) => void {
      let known: Count | null = null;
      let home: typeof current | null = null;
      return (nowMs) => {
        const passedMs = nowMs - minuteMs;
        if (known === null || home !== current || passedMs < 0 || passedMs >= auditTimes.minuteMs) {
          known = add(counted, nowMs);
          home = current;
        } else {
          known.count += 1;
          known.lastMs = nowMs;
        }
      };
    },

    /** Takes out up to `limit` counts. */
    take(limit: number): ReadCount[] {
      const all = [...older, ...coarse.values(), ...current.values()];
      older = all.splice(limit);
      coarse = new Map();
      current = new Map();
      return all.map(columnsOf);
    },

    size: () => older.length + coarse.size + current.size,
  };
}

const nobody: Actor = { kind: "key", id: null, name: null };

/** What requests call. It stands beside the counts, so that a read of a token goes through no other file. */
export function createCounters(
  counts: Pick<ReturnType<typeof createReadCounts>, "add" | "counter">,
  wallMs: () => number,
): Pick<Audit, "countRead" | "readCounter" | "countRefused"> {
  return {
    countRead: ({ actor, connection, result }) =>
      counts.add({ action: "tokens.read", actor, connection, result }, wallMs()),
    readCounter({ actor, connection, result }) {
      const count = counts.counter({ action: "tokens.read", actor, connection, result });
      return () => count(wallMs());
    },
    countRefused: () =>
      counts.add({ action: "keys.refused", actor: nobody, connection: null, result: "unauthenticated" }, wallMs()),
  };
}

/** Whether counts of the database are of an action that is counted. */
export function isCount({ action }: Pick<ReadCount, "action">): boolean {
  return countedActions.some((each) => each === action);
}

/** Adds up what is of the same minute, caller, connection and result. */
export function summed(counts: readonly ReadCount[]): ReadCount[] {
  const sums = new Map<string, ReadCount>();
  for (const given of counts) {
    const { minute, action, actorKind, actorId, actorName, connection, result } = given;
    const key = JSON.stringify([minute.getTime(), action, actorKind, actorId, actorName, connection, result]);
    const sum = sums.get(key);
    if (sum === undefined) sums.set(key, { ...given });
    else {
      sum.count += given.count;
      if (given.first < sum.first) sum.first = given.first;
      if (given.last > sum.last) sum.last = given.last;
    }
  }
  return [...sums.values()];
}

function keyOf({ action, actor, connection, result }: Countable): string {
  return `${action}\n${actor.kind}\n${actor.id ?? ""}\n${connection ?? ""}\n${result}`;
}

function addTo(counts: Map<string, Count>, key: string, given: Count): void {
  const known = counts.get(key);
  if (known === undefined) {
    counts.set(key, { ...given });
    return;
  }
  known.count += given.count;
  known.firstMs = Math.min(known.firstMs, given.firstMs);
  known.lastMs = Math.max(known.lastMs, given.lastMs);
}

function columnsOf({ action, actor, connection, result, minuteMs, count, firstMs, lastMs }: Count): ReadCount {
  return {
    minute: new Date(minuteMs),
    action,
    actorKind: actor.kind,
    actorId: clean(actor.id),
    actorName: clean(actor.name),
    connection: clean(connection),
    result,
    count,
    first: new Date(firstMs),
    last: new Date(lastMs),
  };
}
