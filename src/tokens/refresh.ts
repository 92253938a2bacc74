import { randomUUID } from "node:crypto";
import type { TokenRow } from "../store/token-row.ts";
import { attempt } from "./attempt.ts";
import { budgets } from "./budgets.ts";
import { openSendWindow, type Permit, type RefreshOutcome, type RefreshParts } from "./permit.ts";
import type { Sendable } from "./sending.ts";
import { mayTakeOver, takeoverOf, type Need } from "./takeover.ts";
import { isRefreshable, refreshableStatuses } from "./unavailable.ts";
import type { WaitResult } from "./waiting.ts";

export type Refresh = (row: TokenRow, need: Need) => Promise<RefreshOutcome>;

/** Who wants a refresh of which row, and until when it waits for others. */
type Flight = { row: TokenRow; need: Need; giveUpAtMs: number; startedOver: boolean };

/** The refresh protocol: README.md has the states, this file and attempt.ts the order. One run per generation in a process. */
export function createRefresh(parts: RefreshParts): Refresh {
  const { rows, leases, waiting, sender, health, clock } = parts;
  const recoverer = (need: Need) => ({ need, uninterruptedMs: health.uninterruptedMs() });

  /** Step 4. */
  const takePermit = async ({ row, need }: Flight, { definition }: Sendable): Promise<Permit | null> => {
    const mayStillSend = openSendWindow(clock);
    const key = { connectionId: row.id, generation: row.generation, attemptId: randomUUID() };
    const permitted = await rows.takePermit({
      ...key,
      leaseSeconds: budgets.leaseSeconds,
      statuses: refreshableStatuses(row.grant),
      takeover: takeoverOf(row, definition.refresh, recoverer(need)),
    });
    return permitted === null ? null : { row: permitted, key, isReplay: isTakenOver(permitted), mayStillSend };
  };

  /** Step 10. */
  const waitForOthers = async ({ row, need, giveUpAtMs }: Flight): Promise<WaitResult> => {
    const { definition } = await sender.prepare(row);
    return await waiting.until({
      connectionId: row.id,
      generation: row.generation,
      giveUpAtMs,
      seenAttemptId: row.attemptId,
      mayTakeOver: (current) => mayTakeOver(current, definition.refresh, recoverer(need)),
      isVain: (current) => isVain(current, need),
    });
  };

  /** Steps 4 to 9 under a permit; the row as it stands when there is none to be had, or the time to send has passed. */
  const tryOnce = async (flight: Flight, sendable: Sendable): Promise<RefreshOutcome | { retry: TokenRow | null }> => {
    const permit = await takePermit(flight, sendable);
    const mayStartOver = !flight.startedOver;
    const outcome = permit === null ? null : await attempt(parts, permit, { sendable, mayStartOver });
    return outcome ?? { retry: await rows.readById(flight.row.id) };
  };

  /** Asks for the permit until it is given, or somebody else's refresh makes it needless. */
  const contend = async (flight: Flight): Promise<RefreshOutcome> => {
    const sendable = await sender.prepare(flight.row);
    const outcome = await tryOnce(flight, sendable);
    if (!("retry" in outcome)) return outcome;
    const seen = outcome.retry;
    if (seen === null || seen.generation > flight.row.generation) return settled(seen, flight.row);
    if (isHeldBack(seen) || clock.monotonicMs() >= flight.giveUpAtMs) return settled(seen, flight.row);
    const isFree = seen.attemptId === null;
    const next = { ...flight, row: seen, startedOver: flight.startedOver || isFree };
    if (isFree || mayTakeOver(seen, sendable.definition.refresh, recoverer(flight.need))) return await contend(next);
    // Of an attempt whose outcome nobody knows, or whose owner is gone, no news will come.
    return seen.attemptOutcome === "unknown" || isVain(seen, flight.need)
      ? settled(seen, flight.row)
      : await follow(next);
  };

  /** Waits for somebody else's refresh, and goes on itself if that one is given up. */
  const follow = async (flight: Flight): Promise<RefreshOutcome> => {
    const end = await waitForOthers(flight);
    if (end.kind === "free" && end.row !== null) return await contend({ ...flight, row: end.row });
    return settled(end.row, flight.row);
  };

  return async (row, need) => {
    const flight = { row, need, giveUpAtMs: clock.monotonicMs() + budgets.flightMs, startedOver: false };
    const lease = await leases.acquire(`refresh:${row.id}:${row.generation}`, budgets.leaseSeconds * 1000);
    try {
      if (lease.state !== "held") return await contend(flight);
      // The attempt in a cached row may be long over: whoever holds the lock is seen in Postgres.
      return await follow({ ...flight, row: { ...row, attemptId: null } });
    } finally {
      if (lease.state === "owned") lease.release();
    }
  };
}

/** A permit on a free row dates from now; one that was taken over keeps its first date, at least a lease ago. */
function isTakenOver({ attemptStartedAt, now }: TokenRow): boolean {
  return attemptStartedAt !== null && now.getTime() - attemptStartedAt.getTime() > budgets.sendWindowMs;
}

/** Whoever needs nothing yet does not wait for the end of a permit that nobody uses any more. */
function isVain({ leaseUntil, now }: TokenRow, need: Need): boolean {
  return need === "ahead" && leaseUntil !== null && leaseUntil <= now;
}

function settled(now: TokenRow | null, before: TokenRow): RefreshOutcome {
  return { kind: now !== null && now.generation > before.generation ? "moved" : "failed", row: now };
}

/** True when the row itself says why no request may be sent now, whoever asks. */
function isHeldBack(row: TokenRow): boolean {
  return !isRefreshable(row) || (row.backoffUntil !== null && row.backoffUntil > row.now);
}
