import { withDeadline, type Clock } from "../clock.ts";
import type { Leases } from "../leases/lease.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenRows } from "../store/token-rows.ts";
import { budgets } from "./budgets.ts";

/**
 * How the wait for somebody else's refresh ended.
 * - `moved`: a newer generation is stored.
 * - `ended`: that attempt failed, or nothing may be refreshed any more; the row says why.
 * - `free`: nobody is sending; whoever needs a token may ask for the permit.
 */
export type WaitResult = { kind: "moved" | "ended" | "free"; row: TokenRow | null };

type WaitFor = {
  connectionId: string;
  generation: number;
  giveUpAtMs: number;
  /** The attempt that is known to be under way. */
  seenAttemptId: string | null;
  /** Whether an attempt that stands in the row may be taken over now. */
  mayTakeOver: (row: TokenRow) => boolean;
  /** Whether waiting for it has no sense any more. */
  isVain: (row: TokenRow) => boolean;
};

export type Waiting = { until(wait: WaitFor): Promise<WaitResult> };

/** Waits for other replicas' refreshes: woken by messages, and asking Postgres itself since messages may be lost. */
export function createWaiting({ rows, leases, clock }: { rows: TokenRows; leases: Leases; clock: Clock }): Waiting {
  const sleepers = new Map<string, Set<(attempt: string) => void>>();
  leases.listen(({ connection, generation, attempt, outcome }) => {
    if (outcome !== "started") for (const wake of sleepers.get(`${connection}:${generation}`) ?? []) wake(attempt);
  });

  const readShared = createSharedRead(rows);

  /** Sleeps until a message about the generation comes; resolves to the attempt that it was about. */
  const nap = async (key: string, ms: number): Promise<string | null> => {
    const wakers = sleepers.get(key) ?? new Set();
    sleepers.set(key, wakers);
    const { promise: message, resolve: wake } = Promise.withResolvers<string>();
    wakers.add(wake);
    const result = await withDeadline(message, ms, clock);
    wakers.delete(wake);
    if (wakers.size === 0) sleepers.delete(key);
    return result;
  };

  return {
    async until({ connectionId, generation, giveUpAtMs, seenAttemptId, mayTakeOver, isVain }) {
      let seen = seenAttemptId;
      let pollMs = budgets.pollFirstMs as number;
      const nobodyUntilMs = clock.monotonicMs() + budgets.nobodySendingMs;
      for (;;) {
        seen = (await nap(`${connectionId}:${generation}`, pollMs)) ?? seen;
        pollMs = Math.min(pollMs * 1.5, budgets.pollMaxMs);
        const row = await readShared(connectionId);
        if (row === null) return { kind: "ended", row };
        if (row.generation > generation) return { kind: "moved", row };
        if (row.attemptId === null) {
          if (seen !== null) return { kind: "ended", row };
          if (clock.monotonicMs() >= nobodyUntilMs) return { kind: "free", row };
        } else {
          seen = row.attemptId;
          if (mayTakeOver(row)) return { kind: "free", row };
          if (row.attemptOutcome === "unknown" || isVain(row)) return { kind: "ended", row };
        }
        if (clock.monotonicMs() >= giveUpAtMs) return { kind: "ended", row };
      }
    },
  };
}

/** Who asks while a query runs shares the next one: what waiting costs does not follow the number of waiters. */
function createSharedRead(rows: Pick<TokenRows, "readByIds">): (id: string) => Promise<TokenRow | null> {
  let running: Promise<unknown> = Promise.resolve();
  let next: { ids: Set<string>; found: Promise<Map<string, TokenRow>> } | null = null;
  const open = () => {
    const ids = new Set<string>();
    const found = running.then(async () => {
      next = null; // who comes from here on gets a query that starts later
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
