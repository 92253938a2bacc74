import { halfOf, keptForOthers, turnSeconds } from "../../../src/store/request-limits.ts";
import type { Admission, LimitedRequest, RequestLimits } from "../../../src/store/request-limits.ts";
import type { SimTables } from "./sim-tables.ts";
import type { Sync } from "./sync.ts";

/** A request that the provider has got by then, and whose it was; null: nobody's. */
type Seen = { at: number; client: string | null };
/** A client that has asked, and since when and until when it waits, where it does. */
type Asking = { client: string; asked: number; since: number | null; due: number | null };

/** A whole row of `request_limits`. Milliseconds since 1970, oldest first; of clients, those first that asked last. */
export type SimLimit = {
  seen: Seen[];
  running: number[];
  ttlSeconds: number;
  closedUntil: number | null;
  askedAt: number;
  waitSeconds: number;
  clients: Asking[];
};

const comeBackMs = 1000;
const keepUnusedMs = 24 * 3_600_000;
const rememberMs = 24 * 3_600_000;
const mostClients = 64;

/** store/request-limits.ts, in memory. */
export function limitStatements(tables: SimTables): Sync<RequestLimits> {
  return {
    admit(request): Admission {
      const { key, client, travelSeconds } = request;
      const now = tables.nowMs();
      const limit = asOf(now, request, tables.limits.get(key));
      const share = shareOf(now, request, { limit, registered: registeredBeside(tables, request) });
      const waitSeconds = Math.max(0, freeAt(now, request, { limit, share }) - now) / 1000;
      const clients = askingAfter(now, request, { limit, since: share.since, waitSeconds });
      const asked = { ...limit, askedAt: now, waitSeconds, clients };
      if (waitSeconds > 0) {
        tables.limits.set(key, asked);
        return { admitted: null, waitSeconds };
      }
      const seen =
        limit.ttlSeconds > 0 ? sorted([...limit.seen, { at: now + travelSeconds * 1000, client }]) : limit.seen;
      tables.limits.set(key, { ...asked, seen, running: [...limit.running, now] });
      return { admitted: { key, client, at: new Date(now), travelSeconds } };
    },

    closeAdmission({ key, client, at, travelSeconds }, { sent, closeSeconds }) {
      const limit = tables.limits.get(key);
      if (limit === undefined) return;
      const now = tables.nowMs();
      const closing = closeSeconds > 0 ? Math.round(now + closeSeconds * 1000) : null;
      const seen = at.getTime() + travelSeconds * 1000;
      const isIt = (one: Seen) => one.at === seen && one.client === client;
      tables.limits.set(key, {
        ...limit,
        running: replaceOne(limit.running, (time) => time === at.getTime(), []),
        seen: replaceOne(limit.seen, isIt, sent ? [{ at: Math.min(seen, now), client }] : []),
        closedUntil: closing === null ? limit.closedUntil : Math.max(limit.closedUntil ?? closing, closing),
      });
    },
  };
}

/** The part of the row that still counts. */
function asOf(now: number, request: LimitedRequest, row?: SimLimit): SimLimit {
  const { rules, travelSeconds, leaseSeconds } = request;
  const ttlSeconds = Math.max(row?.ttlSeconds ?? 0, rules.spacingMs / 1000, rules.maxPerWindow?.seconds ?? 0);
  const most = now + travelSeconds * 1000;
  const seen = sorted((row?.seen ?? []).map(({ at, client }) => ({ at: Math.min(at, most), client })));
  const running = (row?.running ?? []).map((time) => Math.min(time, now)).sort((one, other) => one - other);
  return {
    seen: seen.filter(({ at }) => at + ttlSeconds * 1000 > now),
    running: running.filter((time) => time + leaseSeconds * 1000 > now),
    ttlSeconds,
    closedUntil: row?.closedUntil ?? null,
    askedAt: now,
    waitSeconds: 0,
    clients: (row?.clients ?? [])
      .filter(({ asked }) => asked + Math.max(rememberMs, ttlSeconds * 1000) > now)
      .map(({ client, asked, since, due }) => ({ client, asked: Math.min(asked, now), since, due })),
  };
}

function registeredBeside({ rows }: SimTables, { provider, client }: LimitedRequest): string[] {
  const beside = [...rows.values()].filter((row) => row.provider === provider && row.status === "connected");
  return [...new Set(beside.flatMap(({ clientRef }) => clientRef ?? []))].filter((id) => id !== client);
}

type Turns = { number: number; untilMs: number };

/** What one client gets of the limits beside the others. */
type Share = {
  /** Requests of the window that it leaves to others: so many to each of these. */
  part: number;
  isBelow: boolean;
  leavesTo: readonly string[];
  /** Since when it waits. */
  since: number | null;
  /**
   * How many clients are let through before it, and until when at the latest. For the window: the clients that it leaves a part to are not
   * among them.
   */
  ahead: Turns;
  aheadInWindow: Turns;
};

function shareOf(
  now: number,
  request: LimitedRequest,
  { limit, registered }: { limit: SimLimit; registered: readonly string[] },
): Share {
  const { client, rules, kind, travelSeconds } = request;
  const windowMs = (rules.maxPerWindow?.seconds ?? 0) * 1000;
  const turnMs = turnSeconds(rules) * 1000;
  const heldBy = (one: string) => limit.seen.filter((seen) => seen.client === one && seen.at + windowMs > now).length;
  const kept = keptForOthers(rules);
  const known = limit.clients.map((one) => one.client).filter((one) => one !== client);
  const others = [...new Set([...known, ...(kept > 0 ? registered : [])])]
    .map((one) => ({ client: one, held: heldBy(one) }))
    .sort((one, other) => one.held - other.held || compare(one.client, other.client));
  const number = Math.min(others.length, kept);
  const part = number === 0 ? 0 : Math.floor(kept / number);
  const isKnown = kind !== "first";
  const isBelow = isKnown && heldBy(client) < part;
  const own = limit.clients.find((one) => one.client === client);
  const since = isKnown && (own?.due ?? -Infinity) + turnMs > now ? (own?.since ?? null) : null;
  const leavesTo = isKnown && !isBelow ? others.slice(0, number).map((one) => one.client) : [];
  const ahead = limit.clients.filter((one) => {
    if (one.client === client || one.since === null || one.due === null) return false;
    if (one.due > now + comeBackMs + travelSeconds * 1000 || one.due + turnMs <= now) return false;
    const isOtherBelow = heldBy(one.client) < part;
    if (isOtherBelow !== isBelow) return isOtherBelow;
    return since === null || one.since < since || (one.since === since && one.client < client);
  });
  const aheadInWindow = ahead.filter((one) => heldBy(one.client) >= part || !leavesTo.includes(one.client));
  const turnsOf = (all: typeof ahead) => ({
    number: all.length,
    untilMs: Math.max(...all.map(({ due }) => (due ?? 0) + turnMs)),
  });
  return { part, isBelow, leavesTo, since, ahead: turnsOf(ahead), aheadInWindow: turnsOf(aheadInWindow) };
}

function freeAt(
  now: number,
  { rules, kind, leaseSeconds }: LimitedRequest,
  { limit, share }: { limit: SimLimit; share: Share },
): number {
  const { concurrency, maxPerWindow } = kind === "first" ? halfOf(rules) : rules;
  const windowMs = (maxPerWindow?.seconds ?? 0) * 1000;
  const partsOf = new Map(share.leavesTo.map((client) => [client, share.part]));
  const counted = limit.seen
    .toReversed()
    .filter(({ client }) => {
      const left = partsOf.get(client ?? "") ?? 0;
      if (left > 0) partsOf.set(client ?? "", left - 1);
      return left === 0;
    })
    .map(({ at }) => at);
  const leftByPeople = kind === "person" && !share.isBelow ? keptForOthers(rules) : 0;
  const most = (maxPerWindow?.requests ?? Infinity) - Math.max(share.leavesTo.length * share.part, leftByPeople);
  const oldest = counted[most - 1];
  const inWindow = counted.filter((at) => at + windowMs > now).length;
  const places = Math.min(rules.spacingMs > 0 ? 1 : Infinity, (concurrency ?? Infinity) - limit.running.length);
  const spaced = rules.spacingMs > 0 ? (limit.seen.at(-1)?.at ?? -Infinity) + rules.spacingMs : -Infinity;
  const leaving = concurrency === null ? undefined : limit.running.at(-concurrency);
  const left = leaving === undefined ? -Infinity : Math.min(leaving + leaseSeconds * 1000, now + comeBackMs);
  const windowed = oldest === undefined ? -Infinity : oldest + windowMs;
  const { ahead, aheadInWindow } = share;
  const next = counted[most - aheadInWindow.number - 1];
  const nextAt = next === undefined ? Infinity : next + windowMs;
  const turnInWindow =
    aheadInWindow.number > 0 && aheadInWindow.number >= most - inWindow
      ? Math.min(aheadInWindow.untilMs, nextAt)
      : -Infinity;
  const turn = ahead.number > 0 && ahead.number >= places ? ahead.untilMs : -Infinity;
  return Math.max(limit.closedUntil ?? -Infinity, spaced, windowed, left, turn, turnInWindow);
}

/** Who has asked by now, whoever asked last first. */
function askingAfter(
  now: number,
  { client, kind }: LimitedRequest,
  { limit, since, waitSeconds }: { limit: SimLimit; since: number | null; waitSeconds: number },
): Asking[] {
  if (kind === "first") return limit.clients;
  const waits = waitSeconds > 0 ? { since: since ?? now, due: Math.round(now + waitSeconds * 1000) } : none;
  const others = limit.clients.filter((one) => one.client !== client);
  return [{ client, asked: now, ...waits }, ...others]
    .sort((one, other) => other.asked - one.asked || compare(one.client, other.client))
    .slice(0, mostClients);
}

const none = { since: null, due: null };

function sorted(seen: readonly Seen[]): Seen[] {
  return [...seen].sort((one, other) => one.at - other.at || compare(one.client ?? "", other.client ?? ""));
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

function replaceOne<One>(all: readonly One[], isIt: (one: One) => boolean, by: readonly One[]): One[] {
  const index = all.findIndex(isIt);
  return index < 0 ? [...all] : [...all.slice(0, index), ...by, ...all.slice(index + 1)];
}

/** Those that nobody has used for long go. */
export function tidyLimits(tables: SimTables): void {
  for (const [key, { askedAt, ttlSeconds, closedUntil }] of tables.limits) {
    const unusedMs = askedAt + Math.max(keepUnusedMs, ttlSeconds * 1000);
    if (Math.max(unusedMs, closedUntil ?? 0) < tables.nowMs() - 60_000) tables.limits.delete(key);
  }
}
