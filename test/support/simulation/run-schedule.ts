import { seededRandom } from "../seeded-random.ts";
import { applyCommand } from "./apply-command.ts";
import type { Command } from "./commands.ts";
import { deedsDuringSends } from "./deeds.ts";
import type { Subject } from "./people.ts";
import { rest } from "./rest.ts";
import { machines, reuseKinds } from "./sim-catalog.ts";
import { Scheduler } from "./scheduler.ts";
import { raceCommands, randomCommands } from "./schedules.ts";
import { openStage } from "./stage.ts";

export type Run = {
  seed: number;
  violations: readonly string[];
  /** What happened, line by line; empty unless it was asked for. */
  trace: readonly string[];
  events: number;
  sends: number;
  served: number;
  /** How many times people did something while a refresh token was out. */
  races: number;
  /** How often a token was sent again after an answer that W1, W2 or W3 had lost. */
  explained: Readonly<Record<string, number>>;
};

export type Schedule = {
  seed: number;
  subjects: readonly Subject[];
  commands: readonly Command[];
  /** Between one command and the next. */
  longestGapMs: number;
};

const commandCount = 30;

/** Anything that may happen to replicas, at random. */
export function randomSchedule(seed: number): Schedule {
  const dice = new Scheduler(seededRandom(seed ^ 0x5eed));
  const subjects = Array.from({ length: 1 + Math.floor(dice.random() * 3) }, (_, index) => randomSubject(dice, index));
  return { seed, subjects, commands: randomCommands(dice, commandCount), longestGapMs: 2000 };
}

/** A refresh of one connection, and what people do to it meanwhile. */
export function raceSchedule(seed: number): Schedule {
  const dice = new Scheduler(seededRandom(seed ^ 0xace5));
  const subject = { name: "c1", kind: dice.pick(reuseKinds), accessLifeSeconds: 60 };
  return { seed, subjects: [subject], commands: raceCommands(dice), longestGapMs: 300 };
}

function randomSubject(dice: Scheduler, index: number): Subject {
  return {
    name: `c${index + 1}`,
    kind: dice.chance(0.08) ? machines : dice.chance(0.4) ? "kills_family" : dice.pick(reuseKinds),
    accessLifeSeconds: dice.pick([20, 60, 60, 300]),
  };
}

/** Runs a schedule to its end, lets everything heal, and checks the invariants on the way and at rest. */
export async function runSchedule(
  { seed, subjects, commands, longestGapMs }: Schedule,
  { replicas = 4, traced = false }: { replicas?: number; traced?: boolean } = {},
): Promise<Run> {
  const stage = await openStage({ seed, replicas, subjects, traced });
  const { world, people } = stage;
  for (const command of commands) {
    if (command.kind !== "pass") applyCommand(stage, command);
    await world.scheduler.pass(command.kind === "pass" ? command.ms : world.scheduler.magnitude(1, longestGapMs));
  }
  await rest(stage);
  return {
    seed,
    violations: world.violations,
    trace: world.trace,
    events: world.scheduler.events,
    sends: world.provider.sends.length,
    served: people.reads.served,
    races: deedsDuringSends(world, people),
    explained: world.watch.explained,
  };
}
