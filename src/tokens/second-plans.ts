import type { TokenRow } from "../store/token-row.ts";
import type { Sendable, SendPlan } from "./sending.ts";

/** Second ways to a token that the limits held back, each to be taken at once by the next attempt of its connection. */
export type SecondPlans = {
  keep(sendable: Sendable, plan: SendPlan): void;
  /** Null: there is none, or what it rests on has changed. It is given once. */
  take(sendable: Sendable): SendPlan | null;
};

/**
 * A limit of one request at a time, or far between, may never let the second request of an attempt through: without this,
 * each attempt would begin with the one that is refused. In memory: a replica that does not know it, finds it out.
 */
export function createSecondPlans(): SecondPlans {
  const plans = new Map<string, { plan: SendPlan; restsOn: string }>();
  return {
    keep(sendable, plan) {
      plans.set(sendable.row.id, { plan, restsOn: stateOf(sendable) });
    },
    take(sendable) {
      const kept = plans.get(sendable.row.id);
      plans.delete(sendable.row.id);
      return kept?.restsOn === stateOf(sendable) ? kept.plan : null;
    },
  };
}

/** What decides which ways there are, and which of them are refused. */
function stateOf({ row, client }: { row: TokenRow; client: Sendable["client"] }): string {
  const { generation, authorization, credentialsRevision } = row;
  return [
    generation,
    authorization,
    credentialsRevision,
    client?.secretRevision,
    client?.previousSecret !== null,
  ].join();
}
