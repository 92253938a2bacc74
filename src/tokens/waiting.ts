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
};

export type Waiting = { until(wait: WaitFor): Promise<WaitResult> };

/** Waits for other replicas' refreshes: woken by messages, and asking Postgres itself since messages may be lost. */
export function createWaiting({ rows, leases, clock }: { rows: TokenRows; leases: Leases; clock: Clock }): Waiting {
  const sleepers = new Map<string, Set<(attempt: string) => void>>();
  leases.listen(({ connection, attempt, outcome }) => {
    if (outcome !== "started") for (const wake of sleepers.get(connection) ?? []) wake(attempt);
  });

  /** Sleeps until a message about the connection comes; resolves to the attempt that it was about. */
  const nap = async (connectionId: string, ms: number): Promise<string | null> => {
    const wakers = sleepers.get(connectionId) ?? new Set();
    sleepers.set(connectionId, wakers);
    const { promise: message, resolve: wake } = Promise.withResolvers<string>();
    wakers.add(wake);
    const result = await withDeadline(message, ms, clock);
    wakers.delete(wake);
    if (wakers.size === 0) sleepers.delete(connectionId);
    return result;
  };

  return {
    async until({ connectionId, generation, giveUpAtMs, seenAttemptId, mayTakeOver }) {
      let seen = seenAttemptId;
      let pollMs = budgets.pollFirstMs as number;
      const nobodyUntilMs = clock.monotonicMs() + budgets.nobodySendingMs;
      for (;;) {
        seen = (await nap(connectionId, pollMs)) ?? seen;
        pollMs = Math.min(pollMs * 1.5, budgets.pollMaxMs);
        const row = await rows.readById(connectionId);
        if (row === null) return { kind: "ended", row };
        if (row.generation > generation) return { kind: "moved", row };
        if (row.attemptId === null) {
          if (seen !== null) return { kind: "ended", row };
          if (clock.monotonicMs() >= nobodyUntilMs) return { kind: "free", row };
        } else {
          seen = row.attemptId;
          if (mayTakeOver(row)) return { kind: "free", row };
          if (row.attemptOutcome === "unknown") return { kind: "ended", row };
        }
        if (clock.monotonicMs() >= giveUpAtMs) return { kind: "ended", row };
      }
    },
  };
}
