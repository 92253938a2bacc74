import { keepReading } from "./callers.ts";
import { applyCommand } from "./apply-command.ts";
import { Scheduler } from "./scheduler.ts";
import { seededRandom } from "../seeded-random.ts";
import { randomCommands } from "./schedules.ts";
import type { SimLimits } from "./sim-catalog.ts";
import { openStage, type Stage } from "./stage.ts";

type Given = {
  seed: number;
  limits: SimLimits;
  connections: number;
  minutes: number;
  /** Faults of every kind on the way. */
  troubled?: boolean;
  /** What the provider does with each request; undefined: what it is asked for. */
  fault?: () => 429 | "none";
};

/** A request in the provider's books; milliseconds from the start. */
export type LedgerLine = {
  /** By its first grant. */
  connection: number;
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
};

const readEveryMs = { low: 60_000, high: 360_000 };
const replicas = 4;

/** Tokens of five minutes, which callers want from four replicas, and a provider that bears so much. */
export async function playLimits(given: Given): Promise<LimitedRun> {
  const { seed, limits, connections, minutes, troubled = false, fault } = given;
  const subjects = Array.from({ length: connections }, (_, index) => {
    return { name: `c${index + 1}`, kind: "kills_family", accessLifeSeconds: 300 } as const;
  });
  const stage = await openStage({ seed, replicas, subjects, limits, first: "import" });
  const { world, people } = stage;
  const counts = countCalls(stage);
  const startMs = world.scheduler.nowMs;
  if (fault !== undefined) world.provider.faultOf = fault;
  const endReading = keepReading(stage, readEveryMs.low, readEveryMs.high);
  if (troubled) await trouble(stage, { seed, endMs: startMs + minutes * 60_000 });
  else await world.scheduler.pass(minutes * 60_000);
  endReading();
  return { ...counts, ledger: ledgerOf(stage, startMs), violations: world.violations, served: people.reads.served };
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

/** Replicas crash, freeze and drain, and Postgres is slow, away, or loses what it says. */
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

function ledgerOf({ world: { provider } }: Stage, startMs: number): LedgerLine[] {
  const lines = provider.sends.map(({ token, beganMs, doneMs, read }) => ({
    connection: token?.family.id ?? 0,
    writtenMs: beganMs - startMs,
    gotMs: (doneMs ?? beganMs) - startMs,
    answeredMs: read === null ? null : read.atMs - startMs,
  }));
  return lines.sort((one, other) => one.gotMs - other.gotMs);
}
