import { randomUUID } from "node:crypto";
import type { Leases, RefreshNews } from "../../../src/leases/lease.ts";

/** The lock that was asked for, which must be ours. */
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

/** What a listener has heard, and a wait for a number of it. */
export function hearing(leases: Leases) {
  const heard: RefreshNews[] = [];
  const waiting = new Set<{ count: number; resolve: () => void }>();
  leases.listen((news) => {
    heard.push(news);
    for (const each of waiting) if (heard.length >= each.count) each.resolve();
  });
  const until = async (count: number) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    waiting.add({ count, resolve });
    if (heard.length < count) await promise;
  };
  return { heard, until };
}

/** Asks until it is so. */
export async function eventually(check: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await check())) await new Promise((resolve) => void setTimeout(resolve, 10));
}
