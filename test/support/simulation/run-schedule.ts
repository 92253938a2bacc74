import { seededRandom } from "../seeded-random.ts";
import { applyCommand } from "./apply-command.ts";
import type { Command } from "./commands.ts";
import { checkDeeds } from "./deeds.ts";
import { People, type Subject } from "./people.ts";
import { machines, reuseKinds } from "./sim-catalog.ts";
import { Scheduler } from "./scheduler.ts";
import { randomCommands } from "./schedules.ts";
import { World } from "./world.ts";

export type Run = {
  seed: number;
  violations: readonly string[];
  /** What happened, line by line; empty unless it was asked for. */
  trace: readonly string[];
  events: number;
  sends: number;
  served: number;
  /** How often a token was sent again after an answer that W1, W2 or W3 had lost. */
  explained: Readonly<Record<string, number>>;
};

type Given = {
  seed: number;
  /** Random ones of the seed unless given. */
  commands?: readonly Command[];
  replicas?: number;
  traced?: boolean;
};

const commandCount = 30;

/** Runs one schedule to its end, lets everything heal, and checks the invariants on the way and at rest. */
export async function runSchedule({ seed, commands, replicas = 4, traced = false }: Given): Promise<Run> {
  const dice = new Scheduler(seededRandom(seed ^ 0x5eed));
  const subjects = randomSubjects(dice);
  const world = new World({ seed, replicas, traced });
  const people = new People(world);
  await begin({ world, people, subjects });
  for (const command of commands ?? randomCommands(dice, commandCount)) {
    if (command.kind !== "pass") applyCommand({ world, people, subjects }, command);
    await world.scheduler.pass(command.kind === "pass" ? command.ms : world.scheduler.magnitude(1, 2000));
  }
  await rest({ world, people, subjects });
  return {
    seed,
    violations: world.violations,
    trace: world.trace,
    events: world.scheduler.events,
    sends: world.provider.sends.length,
    served: people.reads.served,
    explained: world.watch.explained,
  };
}

type Stage = { world: World; people: People; subjects: readonly Subject[] };

function randomSubjects(dice: Scheduler): Subject[] {
  const count = 1 + Math.floor(dice.random() * 3);
  return Array.from({ length: count }, (_, index) => ({
    name: `c${index + 1}`,
    kind: dice.chance(0.08) ? machines : dice.chance(0.4) ? "kills_family" : dice.pick(reuseKinds),
    accessLifeSeconds: dice.pick([20, 60, 60, 300]),
  }));
}

/** Every connection has its first grant before anything goes wrong. */
async function begin({ world, people, subjects }: Stage): Promise<void> {
  for (const subject of subjects) people.found(subject);
  world.start();
  subjects.forEach((subject, index) => void people.reconnect(world.replica(index), subject));
  await world.scheduler.pass(2000);
}

const longestRestMs = 240_000;
const longestLeaseSeconds = 31;

/** Everything works again, and callers ask until each connection has come to rest, or has had time enough for it. */
export async function rest({ world, people, subjects }: Stage): Promise<void> {
  world.heal();
  // Longer than a lease, its quiet period, and the uninterrupted Postgres before a takeover.
  await world.scheduler.pass(20_000);
  const endMs = world.scheduler.nowMs + longestRestMs;
  const restless = new Set(subjects.map(({ name }) => name));
  while (restless.size > 0 && world.scheduler.nowMs < endMs) {
    for (const name of restless) void people.read(world.scheduler.pick(world.replicas), name, { rejected: true });
    await world.scheduler.pass(12_000);
    for (const name of restless) if (isAtRest(world, name)) restless.delete(name);
  }
  await world.scheduler.pass(5000);
  // The sweeper goes on, and what it has just begun comes to its end.
  for (let seconds = 0; isSending(world) && seconds < longestLeaseSeconds; seconds++) await world.scheduler.pass(1000);
  for (const row of world.database.tables.rows.values()) world.watch.atRest(row);
  checkDeeds(world, people);
  checkSpools(world);
}

function isSending({ database: { tables } }: World): boolean {
  return [...tables.rows.values()].some(({ leaseUntil }) => leaseUntil !== null && leaseUntil > tables.now);
}

function isAtRest(world: World, name: string): boolean {
  const row = world.database.tables.byName(name);
  if (row === undefined || row.status === "disabled" || row.status === "needs_reauthorization") return true;
  return row.status === "pending" || (row.attemptId === null && row.consecutiveFailures === 0);
}

function checkSpools(world: World): void {
  const folders = world.replicas.map(({ folder }) => folder.files.size).reduce((sum, size) => sum + size, 0);
  if (folders > 0) world.violation(`${folders} answers rest in folders`);
  if (world.redis.spool.size > 0) world.violation(`${world.redis.spool.size} answers rest in Redis`);
}
