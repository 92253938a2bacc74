import { simulate } from "../support/simulation/simulate.ts";
import type { BatchResult } from "../support/simulation/tasks.ts";
import type { Given } from "./row.ts";

type Size = { count: number; threads: number };

const batchSize = 250;
const traceLines = 80;

/** Runs schedules of the seeds from `seed` on, in several threads; no batch is begun after one has failed. */
export async function runSchedules(
  kind: "random" | "race",
  { count, threads }: Size,
  { seed, log }: Given,
): Promise<BatchResult[]> {
  const firsts = Array.from({ length: Math.ceil(count / batchSize) }, (_, index) => index * batchSize);
  const results: BatchResult[] = [];
  const work = async () => {
    for (let first = firsts.shift(); first !== undefined; first = firsts.shift()) {
      if (results.some(({ failures }) => failures.length > 0)) return;
      const size = Math.min(batchSize, count - first);
      results.push(await simulate("runBatch", { kind, firstSeed: seed + first, count: size }));
      if (results.length % 8 === 0) log(`${results.length * batchSize} schedules`);
    }
  };
  await Promise.all(Array.from({ length: threads }, work));
  return results;
}

/** Of each schedule that failed what it broke, the command line that begins with it, and how it ended. */
export function failureNotes(row: number, results: readonly BatchResult[]): string[] {
  return results.flatMap(({ failures }) =>
    failures.flatMap(({ seed, violations, trace }) => [
      `seed ${seed}: ${violations.join("; ")}`,
      `by itself: npm run campaign -- --rows ${row} --short --seed ${seed}`,
      ...trace.slice(-traceLines),
    ]),
  );
}

export function sumOf(results: readonly BatchResult[], name: "runs" | "events" | "sends" | "served" | "races"): number {
  return results.reduce((sum, result) => sum + result[name], 0);
}

/** How many tokens were sent again after an answer that was lost, by the window that it was lost in. */
export function toldOf(...explained: Readonly<Record<string, number>>[]): string {
  const times = (window: string) => explained.reduce((sum, each) => sum + (each[window] ?? 0), 0);
  return ["W1", "W2", "W3"].map((window) => `${times(window)} in ${window}`).join(", ");
}
