import type { Row } from "../row.ts";
import { failureNotes, runSchedules, sumOf, toldOf } from "../simulated.ts";

const sizes = { full: { count: 10_000, threads: 2 }, short: { count: 150, threads: 1 } } as const;

export const row: Row = {
  number: 29,
  title: "10,000 seeded schedules × 4 simulated replicas",
  promised: "0 invariant violations",
  onlyFull: "test/unit/tokens/model plays 400 such schedules",
  async run(given) {
    const { count, threads } = sizes[given.scale];
    const results = await runSchedules("random", { count, threads }, given);
    const [runs, sends] = [sumOf(results, "runs"), sumOf(results, "sends")];
    const failed = results.flatMap(({ failures }) => failures);
    const explained = toldOf(...results.map((result) => result.explained));
    return {
      ok: failed.length === 0 && runs === count && sends > count,
      figure: `${failed.length} of ${runs} schedules with a violation; ${sends} requests in ${sumOf(results, "events")} steps, answers lost: ${explained}`,
      notes: failureNotes(29, results),
    };
  },
};
