import type { Row } from "../row.ts";
import { failureNotes, runSchedules, sumOf } from "../simulated.ts";

const sizes = { full: { races: 1000, threads: 2 }, short: { races: 40, threads: 1 } } as const;

export const row: Row = {
  number: 28,
  title: "reconnect, delete, disable racing a refresh × 1,000",
  promised: "the newest human action always wins",
  async run(given) {
    const { races, threads } = sizes[given.scale];
    // In about every other schedule somebody does something while the token is out.
    const results = await runSchedules("race", { count: races * 3, threads }, given);
    const [runs, raced] = [sumOf(results, "runs"), sumOf(results, "races")];
    const failed = results.flatMap(({ failures }) => failures);
    return {
      ok: failed.length === 0 && raced >= races,
      figure: `${raced} deeds while a refresh token was out, in ${runs} schedules; ${failed.length} in which the newest did not win`,
      notes: failureNotes(28, results),
    };
  },
};
