import { randomUUID } from "node:crypto";
import { BrokerError, DatabaseBusyError } from "../errors.ts";
import { createGate, type Gate } from "../gate.ts";
import type { Mark } from "../marks/marks.ts";
import type { TokenRow } from "../store/token-row.ts";
import { attempt } from "./attempt.ts";
import { firstPlan } from "./refresh-token.ts";
import { budgets } from "./budgets.ts";
import { openSendWindow, type Permit, type RefreshOutcome, type RefreshParts } from "./permit.ts";
import { leaveToOthers, type Sendable } from "./sending.ts";
import { mayTakeOver, mustHearSpools, orphanRule, takeoverOf, type Need } from "./takeover.ts";
import { isHeldBack, refreshableStatuses } from "./unavailable.ts";
import type { WaitResult } from "./waiting.ts";

export type Refresh = (row: TokenRow, need: Need) => Promise<RefreshOutcome>;

/** Who wants a refresh of which row, and until when it waits for others. */
type Flight = { row: TokenRow; need: Need; giveUpAtMs: number; startedOver: boolean };

/** There was no permit, or its time to send passed. `isBarred`: an attempt that stands there may not be taken over yet. */
type Retry = { retry: TokenRow | null; isBarred: boolean };

/** The refresh protocol: README.md has the states, this file and attempt.ts the order. One run per generation in a process. */
export function createRefresh(parts: RefreshParts): Refresh {
  const { rows, leases, waiting, sender, health, clock, recovery, isDraining } = parts;
  const permitGate = createGate(budgets.permitsAtOnce);
  const recoverer = ({ id }: TokenRow, need: Need) => ({ need, uninterruptedMs: health.uninterruptedMs(id) });

  /** Step 4. */
  const takePermit = async (flight: Flight, { definition }: Sendable, takesOver: boolean): Promise<Permit | null> => {
    const { row, need } = flight;
    const mayStillSend = openSendWindow(clock);
    const key = { connectionId: row.id, generation: row.generation, attemptId: randomUUID() };
    const takeover = takesOver ? takeoverOf(row, definition.refresh, recoverer(row, need)) : null;
    const request = {
      ...key,
      leaseSeconds: budgets.leaseSeconds,
      statuses: refreshableStatuses(row.grant),
      exclusive: definition.refresh.rotation !== "never",
      orphan: orphanRule(row, definition.refresh),
      takeover,
    };
    const permitted = await rows.takePermit(request).catch((error: unknown) => {
      if (error instanceof DatabaseBusyError) health.rowWasBusy(row.id);
      throw error;
    });
    // The row may be locked: who waits to store its answer is held up, too, and goes first when it is free again.
    if (permitted === null && takeover !== null) health.rowWasBusy(row.id);
    if (permitted === null) return null;
    const isReplay = permitted.attemptReplays > 0;
    return { row: permitted, key, isReplay, followsLoss: isReplay, isRetry: false, mayStillSend };
  };

  /** "After a crash": the answer to the attempt that stands in the row may wait in a spool. */
  const isCleared = async ({ row }: Flight, { definition }: Sendable): Promise<boolean> => {
    const cleared = await recovery.clear(row);
    return cleared === "clear" || (cleared === "silent" && !mustHearSpools(row, definition.refresh));
  };

  /** Step 10. */
  const waitForOthers = async ({ row, need, giveUpAtMs }: Flight): Promise<WaitResult> => {
    const { definition } = await sender.prepare(row);
    return await waiting.until({
      row,
      giveUpAtMs,
      mayTakeOver: (current) => mayTakeOver(current, definition.refresh, recoverer(current, need)),
      isVain: (current) => isVain(current, need),
    });
  };

  /** Steps 4 to 9 under a permit; the row as it stands when there is none to be had, or the time to send has passed. */
  const tryOnce = async (flight: Flight, sendable: Sendable): Promise<RefreshOutcome | Retry> => {
    const takesOver = mayTakeOver(flight.row, sendable.definition.refresh, recoverer(flight.row, flight.need));
    const isBarred = takesOver && !(await isCleared(flight, sendable));
    // failpoint: before permit
    const permit = isBarred ? null : await inTurn(permitGate, () => takePermit(flight, sendable, takesOver));
    // failpoint: permit taken
    const mayStartOver = !flight.startedOver;
    const outcome = permit === null ? null : await attempt(parts, permit, { sendable, mayStartOver });
    return outcome ?? { retry: await rows.readById(flight.row.id), isBarred };
  };

  /** Asks for the permit until it is given, or somebody else's refresh makes it needless. */
  const contend = async (flight: Flight): Promise<RefreshOutcome> => {
    if (isDraining()) return { kind: "left", row: flight.row };
    const sendable = await prepareOrNote(parts, flight.row);
    const plan = firstPlan(flight.row, sendable.definition);
    if (plan !== null) leaveToOthers(parts.vault, sendable, plan.grant);
    const outcome = await tryOnce(flight, sendable);
    if (!("retry" in outcome)) return outcome;
    const seen = outcome.retry;
    if (seen === null || seen.generation > flight.row.generation) return settled(seen, flight.row);
    if (seen.generation < flight.row.generation) return await meetOlder(flight, seen);
    const isTooLate = clock.monotonicMs() >= flight.giveUpAtMs;
    if (outcome.isBarred || isHeldBack(seen) || isTooLate) return settled(seen, flight.row);
    const isFree = seen.attemptId === null;
    const next = { ...flight, row: seen };
    if (isFree || mayTakeOver(seen, sendable.definition.refresh, recoverer(seen, flight.need))) {
      // Refused once more for what the row does not show, such as another connection's request with the same refresh token.
      if (flight.startedOver) await clock.sleep(budgets.pollFirstMs);
      return await contend({ ...next, startedOver: true });
    }
    // Of an attempt whose outcome nobody knows, or whose owner is gone, no news will come.
    return seen.attemptOutcome === "unknown" || isVain(seen, flight.need)
      ? settled(seen, flight.row)
      : await follow(next);
  };

  /** Waits for somebody else's refresh, and goes on itself if that one is given up. */
  const follow = async (flight: Flight): Promise<RefreshOutcome> => {
    const end = await waitForOthers(flight);
    const { row } = end;
    if (row === null) return settled(row, flight.row);
    if (row.generation < flight.row.generation) return await meetOlder(flight, row);
    return end.kind === "free" ? await contend({ ...flight, row }) : settled(row, flight.row);
  };

  /** The row is older than this process knows it: its answer is still to be stored, or the database has gone back in time. */
  const meetOlder = async (flight: Flight, row: TokenRow): Promise<RefreshOutcome> => {
    const { row: known, need, giveUpAtMs } = flight;
    const cleared = await recovery.clear(row);
    if (cleared === "clear") return await hold(parts, row, known);
    if (cleared === "silent" || need === "ahead") return settled(await rows.readById(row.id), known);
    // It has been handed out already, and whoever needs another one needs it stored first.
    const { row: stored } = await waiting.until({ row, giveUpAtMs, mayTakeOver: never, isVain: never });
    if (stored === null || stored.generation < known.generation) return settled(stored, known);
    return await contend({ ...flight, row: stored });
  };

  return async (row, need) => {
    const flight = { row, need, giveUpAtMs: clock.monotonicMs() + budgets.flightMs, startedOver: false };
    const lease = await leases.acquire(`refresh:${row.id}:${row.generation}`, budgets.leaseSeconds * 1000);
    try {
      // Where locks are silent, marks are too.
      const held = lease.state === "unavailable" ? null : await holdIfGoneBack(parts, row);
      if (held !== null) return held;
      if (lease.state !== "held") return await contend(flight);
      // The attempt in a cached row may be long over: whoever holds the lock is seen in Postgres.
      return await follow({ ...flight, row: { ...row, attemptId: null } });
    } finally {
      if (lease.state === "owned") lease.release();
    }
  };
}

const never = (): boolean => false;

/** Metadata that are away, or a definition that is gone, leave their reason in the row: no attempt will. */
async function prepareOrNote({ prepare, rows }: RefreshParts, row: TokenRow): Promise<Sendable> {
  try {
    return await prepare(row);
  } catch (error) {
    const isAway = error instanceof BrokerError && error.code === "provider_unavailable";
    if (isAway) await rows.noteUnprepared(row, error.message).catch(() => undefined);
    throw error;
  }
}

async function inTurn<Result>(gate: Gate, work: () => Promise<Result>): Promise<Result> {
  await gate.enter();
  try {
    return await work();
  } finally {
    gate.leave();
  }
}

/** A row behind its mark comes from a restored database: what it would send has most likely been spent. */
export async function holdIfGoneBack(parts: RefreshParts, row: TokenRow): Promise<RefreshOutcome | null> {
  const mark = await parts.marks.read(row.id);
  return mark === null || mark.generation <= row.generation ? null : await hold(parts, row, mark);
}

/** Stops all refreshing of a row that is behind what is known to have been stored. */
async function hold({ rows, observer }: RefreshParts, row: TokenRow, mark: Mark): Promise<RefreshOutcome> {
  const { generation, version } = mark;
  const [held] = await rows.holdGoneBack([{ connectionId: row.id, generation, version }]);
  if (held === undefined) return settled(await rows.readById(row.id), row);
  observer.heldAfterRestore(held);
  return { kind: "failed", row: held };
}

/** Whoever needs nothing yet does not wait for the end of a permit that nobody uses any more. */
function isVain({ leaseUntil, now }: TokenRow, need: Need): boolean {
  return need === "ahead" && leaseUntil !== null && leaseUntil <= now;
}

function settled(now: TokenRow | null, before: TokenRow): RefreshOutcome {
  return { kind: now !== null && now.generation > before.generation ? "moved" : "failed", row: now };
}
