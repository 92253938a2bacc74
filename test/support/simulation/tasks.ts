import { playAbsence } from "./play-absence.ts";
import { playHours } from "./play-hours.ts";
import { playOutage } from "./play-outage.ts";
import { raceSchedule, randomSchedule, runSchedule, type Run } from "./run-schedule.ts";

type Batch = { kind: keyof typeof kinds; firstSeed: number; count: number };

type Failure = { seed: number; violations: readonly string[]; trace: readonly string[] };

export type BatchResult = Pick<Run, "events" | "sends" | "served" | "races" | "explained"> & {
  runs: number;
  failures: readonly Failure[];
};

const kinds = { random: randomSchedule, race: raceSchedule };

/** Of every so many schedules one is run again, to see whether the same seed gives the same trace. */
const repeatedEvery = 50;

/** Runs schedules of consecutive seeds, until one fails. */
async function runBatch({ kind, firstSeed, count }: Batch): Promise<BatchResult> {
  const total = { runs: 0, events: 0, sends: 0, served: 0, races: 0 };
  const explained: Record<string, number> = {};
  for (let index = 0; index < count; index++) {
    const schedule = kinds[kind](firstSeed + index);
    const run = await runSchedule(schedule);
    total.runs += 1;
    for (const name of ["events", "sends", "served", "races"] as const) total[name] += run[name];
    for (const [why, times] of Object.entries(run.explained)) explained[why] = (explained[why] ?? 0) + times;
    const traced = run.violations.length > 0 || index % repeatedEvery === 0 ? await repeat(kind, schedule.seed) : null;
    const violations = [...run.violations, ...(traced?.differences ?? [])];
    if (violations.length === 0) continue;
    return { ...total, explained, failures: [{ seed: schedule.seed, violations, trace: traced?.trace ?? [] }] };
  }
  return { ...total, explained, failures: [] };
}

async function repeat(kind: Batch["kind"], seed: number): Promise<{ trace: readonly string[]; differences: string[] }> {
  const [one, other] = [
    await runSchedule(kinds[kind](seed), { traced: true }),
    await runSchedule(kinds[kind](seed), { traced: true }),
  ];
  const differs = one.events !== other.events || one.trace.join("\n") !== other.trace.join("\n");
  return { trace: one.trace, differences: differs ? ["the same seed gave another trace"] : [] };
}

/** What the simulator can be told to do in a thread of its own. */
export const tasks = { runBatch, playHours, playOutage, playAbsence };

export type Tasks = typeof tasks;
