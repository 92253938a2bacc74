import type { Clock } from "../clock.ts";
import type { Leases } from "../leases/lease.ts";
import { budgets } from "./budgets.ts";

/** Which refreshes the replicas have announced as under way. A hint: messages may be lost. */
export type PeerRefreshes = { isRunning(connectionId: string, generation: number): boolean };

const maxRemembered = 10_000;

/** @param onEnd called when a refresh of a generation has ended, well or badly: what is cached of it may be old */
export function watchPeerRefreshes(
  { leases, clock }: { leases: Leases; clock: Clock },
  onEnd: (connectionId: string, generation: number) => void,
): PeerRefreshes {
  const runningUntilMs = new Map<string, number>();
  leases.listen(({ connection, generation, outcome }) => {
    const key = `${connection}:${generation}`;
    if (outcome === "started") {
      // Longer than its permit no announced refresh counts as running, in case its end is never heard of.
      runningUntilMs.set(key, clock.monotonicMs() + budgets.leaseSeconds * 1000);
      if (runningUntilMs.size > maxRemembered) runningUntilMs.delete(runningUntilMs.keys().next().value as string);
    } else {
      runningUntilMs.delete(key);
      onEnd(connection, generation);
    }
  });
  return {
    isRunning: (connectionId, generation) =>
      (runningUntilMs.get(`${connectionId}:${generation}`) ?? 0) > clock.monotonicMs(),
  };
}
