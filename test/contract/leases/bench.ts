import { randomUUID } from "node:crypto";
import type { Leases, RefreshNews } from "../../../src/coordination/leases.ts";
import { until } from "../../support/patience.ts";

/** The lock that was asked for. @throws if somebody else holds it */
export const lease = (result: Awaited<ReturnType<Leases["acquire"]>>) => {
  if (result.state === "owned") return result;
  throw new Error(`the lease is ${result.state}`);
};

export const newKey = () => `refresh:${randomUUID()}:1`;

export const newsOf = (changes: Partial<RefreshNews> = {}): RefreshNews => ({
  connection: randomUUID(),
  generation: 1,
  attempt: randomUUID(),
  outcome: "stored",
  ...changes,
});

/** The messages that a listener has received. */
export function hearing(leases: Leases) {
  const heard: RefreshNews[] = [];
  leases.listen((news) => void heard.push(news));
  return { heard };
}

/** Asks until the answer is yes. */
export async function eventually(check: () => Promise<boolean> | boolean): Promise<void> {
  await until("it is so", check);
}
