import type { Mutation } from "../support/faults/mutations.ts";

/** What holds the protocol up, one by one: without any of them the suite must fail (row 30). */
export const guards: readonly Mutation[] = [
  {
    name: "send window",
    file: "src/tokens/permit.ts",
    find: "clock.monotonicMs() - monotonicMs < budgets.sendWindowMs &&",
    replace: "",
  },
];
