import type { Admitted, LimitedRequest, LimitRules, RequestLimits } from "../../../src/store/request-limits.ts";
import type { Scheduler } from "../../support/simulation/scheduler.ts";

export type LimitCall = {
  [Name in keyof RequestLimits]: { name: Name; given: Parameters<RequestLimits[Name]> };
}[keyof RequestLimits];

const keys = ["token_host:login.example", "client:1"];
const clients = ["greedy", "greedy", "greedy", "modest", "third"];
const rules: readonly LimitRules[] = [
  { concurrency: null, spacingMs: 0, maxPerWindow: { requests: 3, seconds: 600 } },
  { concurrency: null, spacingMs: 0, maxPerWindow: { requests: 1, seconds: 10 } },
  { concurrency: null, spacingMs: 0, maxPerWindow: { requests: 9, seconds: 600 } },
  { concurrency: 3, spacingMs: 0, maxPerWindow: { requests: 6, seconds: 120 } },
  { concurrency: 2, spacingMs: 0, maxPerWindow: null },
  { concurrency: null, spacingMs: 2500, maxPerWindow: null },
  { concurrency: 1, spacingMs: 500, maxPerWindow: { requests: 2, seconds: 60 } },
  { concurrency: null, spacingMs: 0, maxPerWindow: null },
];

/** Makes up requests that want to be sent, and what came of those that were admitted. */
export class ModelLimits {
  readonly #dice: Scheduler;
  readonly #admitted: Admitted[] = [];

  constructor(dice: Scheduler) {
    this.#dice = dice;
  }

  next(): LimitCall {
    const dice = this.#dice;
    if (this.#admitted.length > 0 && dice.chance(0.45)) {
      const admitted = dice.pick(this.#admitted);
      return {
        name: "closeAdmission",
        given: [admitted, { sent: dice.chance(0.7), closeSeconds: dice.pick([0, 0, 0, 1.25, 90]) }],
      };
    }
    return { name: "admit", given: [this.#request()] };
  }

  #request(): LimitedRequest {
    const dice = this.#dice;
    const kind = dice.pick(["refresh", "refresh", "refresh", "refresh", "first", "person"] as const);
    const given = { key: dice.pick(keys), rules: dice.pick(rules), client: dice.pick(clients), provider: null, kind };
    return { ...given, travelSeconds: 5, leaseSeconds: 30 };
  }

  learn(admitted: Admitted): void {
    this.#admitted.push(admitted);
    if (this.#admitted.length > 4) this.#admitted.shift();
  }
}
