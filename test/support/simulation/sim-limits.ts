import type { LimitedRequest, RequestLimits } from "../../../src/store/request-limits.ts";
import type { SimTables } from "./sim-tables.ts";
import type { Sync } from "./sync.ts";

/** A whole row of `request_limits`. Milliseconds since 1970, oldest first. */
export type SimLimit = {
  seenBy: number[];
  running: number[];
  keepSeconds: number;
  closedUntil: number | null;
  askedAt: number;
  waitSeconds: number;
};

const comeBackMs = 1000;
const keepUnusedMs = 24 * 3_600_000;

/** store/request-limits.ts, in memory. */
export function limitStatements(tables: SimTables): Sync<RequestLimits> {
  return {
    admit(request) {
      const { key, travelSeconds } = request;
      const now = tables.nowMs();
      const limit = asOf(now, request, tables.limits.get(key));
      const waitSeconds = request.isNote ? 0 : Math.max(0, freeAt(now, request, limit) - now) / 1000;
      const asked = { ...limit, askedAt: now, waitSeconds };
      if (waitSeconds > 0) {
        tables.limits.set(key, asked);
        return { admitted: null, waitSeconds };
      }
      const seenBy = limit.keepSeconds > 0 ? [...limit.seenBy, now + travelSeconds * 1000] : limit.seenBy;
      tables.limits.set(key, { ...asked, seenBy, running: [...limit.running, now] });
      return { admitted: { key, at: new Date(now), travelSeconds } };
    },

    settle({ key, at, travelSeconds }, { sent, closeSeconds }) {
      const limit = tables.limits.get(key);
      if (limit === undefined) return;
      const now = tables.nowMs();
      const closing = closeSeconds > 0 ? Math.round(now + closeSeconds * 1000) : null;
      const seen = at.getTime() + travelSeconds * 1000;
      tables.limits.set(key, {
        ...limit,
        running: replaceOne(limit.running, at.getTime(), []),
        seenBy: replaceOne(limit.seenBy, seen, sent ? [Math.min(seen, now)] : []),
        closedUntil: closing === null ? limit.closedUntil : Math.max(limit.closedUntil ?? closing, closing),
      });
    },
  };
}

/** What of the row counts still. */
function asOf(now: number, request: LimitedRequest, row?: SimLimit): SimLimit {
  const { rules, travelSeconds, leaseSeconds } = request;
  const keepSeconds = Math.max(row?.keepSeconds ?? 0, rules.spacingMs / 1000, rules.maxPerWindow?.seconds ?? 0);
  const seenBy = atMost(row?.seenBy ?? [], now + travelSeconds * 1000);
  const running = atMost(row?.running ?? [], now);
  return {
    seenBy: seenBy.filter((time) => time + keepSeconds * 1000 > now),
    running: running.filter((time) => time + leaseSeconds * 1000 > now),
    keepSeconds,
    closedUntil: row?.closedUntil ?? null,
    askedAt: now,
    waitSeconds: 0,
  };
}

function atMost(times: readonly number[], most: number): number[] {
  return times.map((time) => Math.min(time, most)).sort((one, other) => one - other);
}

function freeAt(now: number, { rules, leaseSeconds }: LimitedRequest, limit: SimLimit): number {
  const { concurrency, spacingMs, maxPerWindow } = rules;
  const spaced = spacingMs > 0 ? (limit.seenBy.at(-1) ?? -Infinity) + spacingMs : -Infinity;
  const oldest = maxPerWindow === null ? undefined : limit.seenBy.at(-maxPerWindow.requests);
  const windowed = oldest === undefined ? -Infinity : oldest + (maxPerWindow?.seconds ?? 0) * 1000;
  const leaving = concurrency === null ? undefined : limit.running.at(-concurrency);
  const left = leaving === undefined ? -Infinity : Math.min(leaving + leaseSeconds * 1000, now + comeBackMs);
  return Math.max(limit.closedUntil ?? -Infinity, spaced, windowed, left);
}

function replaceOne(times: readonly number[], time: number, by: readonly number[]): number[] {
  const index = times.indexOf(time);
  return index < 0 ? [...times] : [...times.slice(0, index), ...by, ...times.slice(index + 1)];
}

/** Those that nobody has used for long go. */
export function tidyLimits(tables: SimTables): void {
  for (const [key, { askedAt, keepSeconds, closedUntil }] of tables.limits) {
    const unusedMs = askedAt + Math.max(keepUnusedMs, keepSeconds * 1000);
    if (Math.max(unusedMs, closedUntil ?? 0) < tables.nowMs() - 60_000) tables.limits.delete(key);
  }
}
