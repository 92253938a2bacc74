import { type Clock, withDeadline } from "../clock.ts";
import type { Leases, RefreshNews } from "../coordination/leases.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { refreshTimes } from "../time.ts";
import { rowForbidsRefresh } from "./row-rules.ts";

/**
 * How the wait for another replica's refresh ended.
 * - `moved`: a newer generation is stored.
 * - `ended`: that attempt failed, or the row may not be refreshed any more; the row says why.
 * - `free`: nobody is sending, so a caller that needs a token may ask for the permit. An attempt that was given back unsent has not failed.
 */
type WaitResult = { kind: "moved" | "ended" | "free"; row: TokenRow | null };

type WaitFor = {
  /** The row as it was last read, with the running attempt, if one is known. */
  row: Pick<TokenRow, "id" | "generation" | "attemptId" | "consecutiveFailures">;
  giveUpAtMs: number;
  /** Whether the row's attempt may be taken over now. */
  mayTakeOver: (row: TokenRow) => boolean;
  /** Whether waiting for the row's attempt leads nowhere, so that the caller should stop. */
  shouldStopWaiting: (row: TokenRow) => boolean;
};

export type Waiting = {
  until(wait: WaitFor): Promise<WaitResult>;
  /** For a process that shuts down: makes other replicas look at the row now, and waits for them. */
  forOthers(row: TokenRow, giveUpAtMs: number): Promise<WaitResult>;
};

/** Waits for other replicas' refreshes. Messages wake it, and it also asks Postgres, since messages may be lost. */
export function createWaiting({
  rows,
  leases,
  clock,
}: {
  rows: Pick<TokenStatements, "readByIds" | "hasten">;
  leases: Leases;
  clock: Clock;
}): Waiting {
  const sleepers = new Map<string, Set<(news: RefreshNews) => void>>();
  leases.listen((news) => {
    const { connection, generation, outcome } = news;
    if (outcome !== "started") for (const wake of sleepers.get(`${connection}:${generation}`) ?? []) wake(news);
  });

  const readShared = createSharedRead(rows);

  /** Sleeps until a message about the generation comes, and returns it; null after `ms`. */
  const nap = async (key: string, ms: number): Promise<RefreshNews | null> => {
    const wakers = sleepers.get(key) ?? new Set();
    sleepers.set(key, wakers);
    const { promise: message, resolve: wake } = Promise.withResolvers<RefreshNews>();
    wakers.add(wake);
    const result = await withDeadline(message, ms, clock);
    wakers.delete(wake);
    if (wakers.size === 0) sleepers.delete(key);
    return result;
  };

  const until: Waiting["until"] = async ({ row: known, giveUpAtMs, mayTakeOver, shouldStopWaiting }) => {
    const { id, generation } = known;
    let attempt = known.attemptId;
    let hasFailed = false;
    let failuresBefore = known.attemptId === null ? Infinity : known.consecutiveFailures;
    let pollMs = refreshTimes.pollFirstMs;
    let nobodyUntilMs = clock.monotonicMs() + refreshTimes.nobodySendingMs;
    for (;;) {
      const news = await nap(`${id}:${generation}`, pollMs);
      if (news !== null) {
        attempt = news.attempt;
        hasFailed = news.outcome === "failed";
      }
      pollMs = Math.min(pollMs * 1.5, refreshTimes.pollMaxMs);
      const row = await readShared(id);
      if (row === null) return { kind: "ended", row };
      if (row.generation > generation) return { kind: "moved", row };
      if (row.attemptId !== null) {
        hasFailed &&= row.attemptId === attempt;
        attempt = row.attemptId;
        failuresBefore = row.consecutiveFailures;
        if (mayTakeOver(row)) return { kind: "free", row };
        if (row.attemptOutcome === "unknown" || shouldStopWaiting(row)) return { kind: "ended", row };
      } else if (hasFailed || row.consecutiveFailures > failuresBefore || rowForbidsRefresh(row)) {
        return { kind: "ended", row };
      } else if (attempt !== null) {
        // The permit was given back and nothing was sent, or its process shuts down. Treat it as if there had been no attempt: its owner will most
        // likely ask again.
        attempt = null;
        failuresBefore = row.consecutiveFailures;
        nobodyUntilMs = clock.monotonicMs() + refreshTimes.nobodySendingMs;
      } else if (clock.monotonicMs() >= nobodyUntilMs) {
        return { kind: "free", row };
      }
      if (clock.monotonicMs() >= giveUpAtMs) return { kind: "ended", row };
    }
  };

  const hastened = new Set<string>();
  const hasten = async (row: TokenRow): Promise<void> => {
    const key = `${row.id}:${row.generation}`;
    if (hastened.has(key)) return;
    hastened.add(key);
    await rows.hasten(row);
  };

  return {
    until,

    async forOthers(row, giveUpAtMs) {
      await hasten(row);
      for (;;) {
        const end = await until({
          row: { ...row, attemptId: null },
          giveUpAtMs,
          mayTakeOver: () => false,
          shouldStopWaiting: () => false,
        });
        // Nobody has begun yet. The sweeper of another replica will.
        if (end.kind !== "free" || clock.monotonicMs() >= giveUpAtMs) return end;
      }
    },
  };
}

/** Waiters that ask while a query runs share the next one, so that the cost does not grow with the number of waiters. */
function createSharedRead(rows: Pick<TokenStatements, "readByIds">): (id: string) => Promise<TokenRow | null> {
  let running: Promise<unknown> = Promise.resolve();
  let next: { ids: Set<string>; found: Promise<Map<string, TokenRow>> } | null = null;
  const open = () => {
    const ids = new Set<string>();
    const found = running.then(async () => {
      next = null; // later callers get the next query
      const query = rows.readByIds([...ids]);
      running = query.catch(() => undefined);
      return new Map((await query).map((row) => [row.id, row]));
    });
    return { ids, found };
  };
  return async (id) => {
    next ??= open();
    next.ids.add(id);
    return (await next.found).get(id) ?? null;
  };
}
