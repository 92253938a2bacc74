import { keepReading } from "./callers.ts";
import { applyCommand } from "./apply-command.ts";
import { Scheduler } from "./scheduler.ts";
import { seededRandom } from "../seeded-random.ts";
import { randomCommands } from "./schedules.ts";
import type { SimLimits } from "./sim-catalog.ts";
import type { Subject } from "./people.ts";
import { openStage, type Stage } from "./stage.ts";

type Given = {
  seed: number;
  limits: SimLimits;
  connections: number;
  /** Further clients of the same provider, with so many connections each, all of which are refreshed as often as callers can order it. */
  greedy?: readonly number[];
  minutes: number;
  /** How often each of the first client's connections is read, at random between these. */
  reads?: { lowMs: number; highMs: number };
  /** Faults of every kind on the way. */
  troubled?: boolean;
  /** What the provider does with each request; undefined: what it is asked for. */
  fault?: () => 429 | "none";
};

/** A request in the provider's books; milliseconds from the start. */
export type LedgerLine = {
  /** By its first grant. */
  connection: number;
  /** 0: the first one; else which of the greedy ones, from 1. */
  client: number;
  writtenMs: number;
  /** When the provider did it; of one that was lost on its way, when it was written. */
  gotMs: number;
  /** When the answer was read; null: never. */
  answeredMs: number | null;
};

export type LimitedRun = {
  ledger: readonly LedgerLine[];
  violations: readonly string[];
  /** Statements about limits. */
  asked: number;
  /** Requests that were held back. */
  heldBack: number;
  served: number;
  /** Reads of the first client's connections that ended without a token. */
  refused: number;
};

const seldom = { lowMs: 60_000, highMs: 360_000 };
const orders = { lowMs: 5000, highMs: 20_000, rejected: true };
const replicas = 4;

/** Tokens of five minutes, callers at four replicas, and a provider with these limits. */
export async function playLimits(given: Given): Promise<LimitedRun> {
  const { seed, limits, connections, greedy = [], minutes, reads = seldom, troubled = false, fault } = given;
  const own = subjectsOf(0, connections);
  const others = greedy.flatMap((number, index) => subjectsOf(index + 1, number));
  const subjects = [...own, ...others];
  const stage = await openStage({ seed, replicas, subjects, limits, first: "import" });
  const { world, people } = stage;
  // They stand for connections that have worked for a while: what has just been imported would have half of the limits.
  for (const { name } of subjects) Object.assign(world.database.tables.byName(name) ?? {}, { untried: false });
  const counts = countCalls(stage);
  const startMs = world.scheduler.nowMs;
  if (fault !== undefined) world.provider.faultOf = fault;
  let refused = 0;
  const told = (isServed: boolean) => void (refused += isServed ? 0 : 1);
  const endReading = keepReading({ ...stage, subjects: own }, { ...reads, told });
  const endOrders = keepReading({ ...stage, subjects: others }, orders);
  if (troubled) await trouble(stage, { seed, endMs: startMs + minutes * 60_000 });
  else await world.scheduler.pass(minutes * 60_000);
  endReading();
  endOrders();
  const { violations } = world;
  return { ...counts, ledger: ledgerOf(stage, startMs), violations, served: people.reads.served, refused };
}

const clientId = (client: number) => `10000000-0000-4000-8000-00000000000${client + 1}`;

function subjectsOf(client: number, connections: number): Subject[] {
  return Array.from({ length: connections }, (_, index) => ({
    name: `${"cdefgh"[client]}${index + 1}`,
    kind: "kills_family",
    accessLifeSeconds: 300,
    client: clientId(client),
  }));
}

function countCalls({ world }: Stage): { asked: number; heldBack: number } {
  const counts = { asked: 0, heldBack: 0 };
  const { limits } = world.database;
  const { admit } = limits;
  limits.admit = (request) => {
    const admission = admit(request);
    counts.asked += 1;
    if (admission.admitted === null) counts.heldBack += 1;
    return admission;
  };
  return counts;
}

/** Replicas crash, freeze and drain. Postgres is slow or away, or its answers are lost. */
async function trouble(stage: Stage, { seed, endMs }: { seed: number; endMs: number }): Promise<void> {
  const { world } = stage;
  const dice = new Scheduler(seededRandom(seed ^ 0x11417));
  while (world.scheduler.nowMs < endMs) {
    for (const command of randomCommands(dice, 20)) {
      const isOfPeople = "connection" in command;
      if (command.kind !== "pass" && command.kind !== "provider" && !isOfPeople) applyCommand(stage, command);
      await world.scheduler.pass(Math.min(dice.magnitude(1000, 30_000), Math.max(0, endMs - world.scheduler.nowMs)));
    }
  }
  world.heal();
}

function ledgerOf({ world: { provider }, people, subjects }: Stage, startMs: number): LedgerLine[] {
  const names = new Map(people.deeds.map(({ family, name }) => [family?.id, name]));
  const clients = new Map(subjects.map(({ name, client }) => [name, client]));
  const clientOf = (family = 0) => Number(clients.get(names.get(family) ?? "")?.at(-1) ?? 1) - 1;
  const lines = provider.sends.map(({ token, beganMs, doneMs, read }) => ({
    connection: token?.family.id ?? 0,
    client: clientOf(token?.family.id),
    writtenMs: beganMs - startMs,
    gotMs: (doneMs ?? beganMs) - startMs,
    answeredMs: read === null ? null : read.atMs - startMs,
  }));
  return lines.sort((one, other) => one.gotMs - other.gotMs);
}
