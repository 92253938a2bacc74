import type { ReadCounts } from "../store/audit.ts";
import { auditTimes } from "../time.ts";
import { type Actor, type Audit, clean } from "./entries.ts";

const countedActions = ["tokens.read", "keys.refused"] as const;

/** What is counted by connection. */
export type Kind = { action: (typeof countedActions)[number]; actor: Actor; result: string };

/** Of one connection. Times are milliseconds since the minute began. */
type Count = { count: number; firstMs: number; lastMs: number };

/** The counts of one kind and one minute. The connection null: unknown, or not allowed. */
type Group = Kind & { minuteMs: number; byConnection: Map<string | null, Count> };

/** From so many counts on they are kept more coarsely: no longer by the minute, and from twice as many on no longer by connection. */
const mostByMinute = 100_000;

/** Counts in memory, until they are written. */
export function createReadCounts(most = mostByMinute) {
  /** Of one minute, by kind. */
  let current = new Map<string, Group>();
  let minuteMs = -Infinity;
  let older: Group[] = [];
  let coarse = new Map<string, Group>();
  /** How many counts there are by the minute. */
  let size = 0;

  const beginMinute = (ofMs: number): void => {
    for (const group of current.values()) {
      if (size <= most) older.push(group);
      else {
        for (const [connection, count] of group.byConnection) fold(group, connection, count);
        size -= group.byConnection.size;
      }
    }
    current = new Map();
    minuteMs = ofMs;
  };

  const groupAt = (kind: Kind, nowMs: number): Group => {
    const ofMs = nowMs - (nowMs % auditTimes.minuteMs);
    if (ofMs !== minuteMs) beginMinute(ofMs);
    return groupIn(current, kind, minuteMs);
  };

  const fold = (from: Group, connection: string | null, { count, firstMs, lastMs }: Count): void => {
    const group = groupIn(coarse, from, from.minuteMs);
    const isKept = group.byConnection.has(connection) || sizeOf(coarse.values()) < most;
    const laterMs = from.minuteMs - group.minuteMs;
    const moved = { count, firstMs: firstMs + laterMs, lastMs: lastMs + laterMs };
    addTo(group, isKept ? connection : null, moved);
  };

  const countIn = (group: Group, connection: string | null, nowMs: number): void => {
    const passedMs = nowMs - group.minuteMs;
    const known = group.byConnection.get(connection);
    if (known !== undefined) {
      known.count += 1;
      known.lastMs = passedMs;
      return;
    }
    const count = { count: 1, firstMs: passedMs, lastMs: passedMs };
    if (size >= most) return fold(group, connection, count);
    group.byConnection.set(connection, count);
    size += 1;
  };

  return {
    add: (kind: Kind, connection: string | null, nowMs: number): void =>
      countIn(groupAt(kind, nowMs), connection, nowMs),

    /** For a kind that comes again and again: the same as `add`, without a search for its counts. */
    counter(kind: Kind): (connection: string | null, nowMs: number) => void {
      let group: Group | null = null;
      let home: typeof current | null = null;
      return (connection, nowMs) => {
        const passedMs = nowMs - minuteMs;
        // Each minute and each `take` makes another map: what is in the one before is counted no more.
        if (group === null || home !== current || passedMs < 0 || passedMs >= auditTimes.minuteMs) {
          group = groupAt(kind, nowMs);
          home = current;
        }
        countIn(group, connection, nowMs);
      };
    },

    /** Takes out up to `limit` counts. */
    take(limit: number): ReadCounts[] {
      older.push(...coarse.values(), ...current.values());
      coarse = new Map();
      current = new Map();
      const taken: ReadCounts[] = [];
      let room = limit;
      for (const group of older) {
        if (room === 0) break;
        const part = takeFrom(group, room);
        room -= part.counts.length;
        taken.push(part);
      }
      older = older.filter(({ byConnection }) => byConnection.size > 0);
      size = sizeOf(older);
      return taken;
    },

    size: () => size + sizeOf(coarse.values()),
  };
}

function sizeOf(groups: Iterable<Group>): number {
  let size = 0;
  for (const { byConnection } of groups) size += byConnection.size;
  return size;
}

function groupIn(groups: Map<string, Group>, { action, actor, result }: Kind, minuteMs: number): Group {
  const key = `${action}\n${actor.kind}\n${actor.id ?? ""}\n${result}`;
  const known = groups.get(key);
  if (known !== undefined) return known;
  const group: Group = { action, actor, result, minuteMs, byConnection: new Map() };
  groups.set(key, group);
  return group;
}

function addTo({ byConnection }: Group, connection: string | null, given: Count): void {
  const known = byConnection.get(connection);
  if (known === undefined) {
    byConnection.set(connection, given);
    return;
  }
  known.count += given.count;
  known.firstMs = Math.min(known.firstMs, given.firstMs);
  known.lastMs = Math.max(known.lastMs, given.lastMs);
}

function takeFrom({ action, actor, result, minuteMs, byConnection }: Group, limit: number): ReadCounts {
  const taken: ReadCounts = {
    minute: new Date(minuteMs),
    action,
    actorKind: actor.kind,
    actorId: clean(actor.id),
    actorName: clean(actor.name),
    result,
    connections: [],
    counts: [],
    firstMs: [],
    lastMs: [],
  };
  for (const [connection, { count, firstMs, lastMs }] of byConnection) {
    if (taken.counts.length === limit) break;
    taken.connections.push(clean(connection));
    taken.counts.push(count);
    taken.firstMs.push(firstMs);
    taken.lastMs.push(lastMs);
    byConnection.delete(connection);
  }
  return taken;
}

const nobody: Actor = { kind: "key", id: null, name: null };
const refused: Kind = { action: "keys.refused", actor: nobody, result: "unauthenticated" };

/** What requests call. It stands beside the counts, so that a read of a token goes through no other file. */
export function createCounters(
  counts: Pick<ReturnType<typeof createReadCounts>, "add" | "counter">,
  wallMs: () => number,
): Pick<Audit, "countRead" | "readCounter" | "countRefused"> {
  return {
    countRead: ({ actor, connection, result }) =>
      counts.add({ action: "tokens.read", actor, result }, connection, wallMs()),
    readCounter({ actor, result }) {
      const count = counts.counter({ action: "tokens.read", actor, result });
      return (connection) => count(connection, wallMs());
    },
    countRefused: () => counts.add(refused, null, wallMs()),
  };
}

/** Whether counts of the database are of an action that is counted. */
export function isCount({ action }: Pick<ReadCounts, "action">): boolean {
  return countedActions.some((each) => each === action);
}

/** Adds up what is of the same minute, caller, connection and result. */
export function summed(counts: readonly ReadCounts[]): ReadCounts[] {
  const groups = new Map<string, Group>();
  for (const { minute, action, actorKind, actorId, actorName, result, connections, ...columns } of counts) {
    const actor = { kind: actorKind, id: actorId, name: actorName } as Actor;
    const kind = { action, actor, result } as Kind;
    const key = JSON.stringify([minute, action, actor, result]);
    const group = groups.get(key) ?? { ...kind, minuteMs: minute.getTime(), byConnection: new Map() };
    groups.set(key, group);
    for (const [index, connection] of connections.entries()) {
      const [count = 0, firstMs = 0, lastMs = 0] = [
        columns.counts[index],
        columns.firstMs[index],
        columns.lastMs[index],
      ];
      addTo(group, connection, { count, firstMs, lastMs });
    }
  }
  return [...groups.values()].map((group) => takeFrom(group, Infinity));
}
