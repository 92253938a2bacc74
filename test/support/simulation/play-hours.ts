import { seededRandom } from "../seeded-random.ts";
import { applyCommand } from "./apply-command.ts";
import { keepMending, keepReading } from "./callers.ts";
import type { Subject } from "./people.ts";
import { rest } from "./rest.ts";
import { reuseKinds } from "./sim-catalog.ts";
import { Scheduler } from "./scheduler.ts";
import { randomCommands } from "./schedules.ts";
import { openStage, type Stage } from "./stage.ts";

type Given = { seed: number; hours: number; connections: number };

export type HoursResult = {
  commands: number;
  refreshes: number;
  /** Refresh tokens that were used again, as the provider saw it. */
  detections: number;
  explained: Readonly<Record<string, number>>;
  violations: readonly string[];
  served: number;
  events: number;
};

const hourMs = 3_600_000;
const commandsAtOnce = 20;

/** Tokens of a minute, callers, and one fault after the other, for hours. */
export async function playHours({ seed, hours, connections }: Given): Promise<HoursResult> {
  const dice = new Scheduler(seededRandom(seed ^ 0x24));
  const subjects = Array.from({ length: connections }, (_, index) => subjectOf(dice, index));
  const stage = await openStage({ seed, replicas: 4, subjects });
  const { world, people } = stage;
  const endReading = keepReading(stage, { lowMs: 2000, highMs: 40_000 });
  const endMending = keepMending(stage, 120_000);
  const commands = await trouble(stage, { dice, endMs: world.scheduler.nowMs + hours * hourMs });
  endReading();
  endMending();
  await rest(stage);
  const { sends, grants } = world.provider;
  return {
    commands,
    refreshes: sends.filter(({ token, status }) => token !== null && status === 200).length,
    detections: grants.families.reduce((sum, { detections }) => sum + detections.length, 0),
    explained: world.watch.explained,
    violations: world.violations,
    served: people.reads.served,
    events: world.scheduler.events,
  };
}

/** Four in five providers are strict. */
function subjectOf(dice: Scheduler, index: number): Subject {
  const kind = dice.chance(0.8) ? "kills_family" : dice.pick(reuseKinds);
  return { name: `c${index + 1}`, kind, accessLifeSeconds: 60 };
}

async function trouble(stage: Stage, { dice, endMs }: { dice: Scheduler; endMs: number }): Promise<number> {
  const { scheduler } = stage.world;
  for (let count = 0; ;) {
    for (const command of randomCommands(dice, commandsAtOnce)) {
      if (scheduler.nowMs >= endMs) return count;
      if (command.kind !== "pass") applyCommand(stage, command);
      count += command.kind === "pass" ? 0 : 1;
      await scheduler.pass(Math.min(dice.magnitude(1000, 600_000), endMs - scheduler.nowMs));
    }
  }
}
