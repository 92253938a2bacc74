import { expect, it } from "vitest";
import { seededRandom } from "../../support/seeded-random.ts";
import { applyCommand } from "../../support/simulation/apply-command.ts";
import type { Moment } from "../../support/simulation/commands.ts";
import { reuseKinds } from "../../support/simulation/sim-catalog.ts";
import { Scheduler } from "../../support/simulation/scheduler.ts";
import { openStage } from "../../support/simulation/stage.ts";

const seeds = Array.from({ length: 60 }, (_, index) => 8100 + index);
const moments = [
  "about to send",
  "sent",
  "done by provider",
  "answer there",
  "commitRefresh asked",
  "commitRefresh done",
  "spool done",
] as const satisfies readonly Moment[];
const blows = ["crash", "freeze", "cut", "postgres", "redis", "lose"] as const;
const subject = { name: "c1", accessLifeSeconds: 60 };
/** Lease, quiet period, uninterrupted Postgres, and the pause between two retries. */
const longestMs = 120_000;

/** The provider ends a grant by mistake. Four replicas are asked for a retry again and again, and one fault strikes meanwhile. */
async function play(seed: number) {
  const dice = new Scheduler(seededRandom(seed ^ 0xe4d));
  const own = { ...subject, kind: dice.pick(reuseKinds) };
  const stage = await openStage({ seed, replicas: 4, subjects: [own] });
  const { world, people } = stage;
  const { scheduler, provider, database } = world;
  const row = () => database.tables.byName(own.name);
  provider.faultOf = () => "mistaken";
  await scheduler.pass(16_000);
  void people.read(world.replica(0), own.name, { rejected: true });
  await scheduler.pass(5000);
  expect(row()).toMatchObject({ status: "needs_reauthorization", attemptId: null });

  provider.faultOf = () =>
    dice.chance(0.3) ? dice.pick(["lost_answer", "lost_request", "stall", 429, "mistaken"]) : "none";
  applyCommand(stage, {
    kind: "trap",
    moment: dice.pick(moments),
    blow: dice.pick(blows),
    ms: dice.magnitude(500, 60_000),
  });
  for (let round = 0; round < 4; round++) {
    for (const replica of world.replicas) void people.retry(replica, own);
    await scheduler.pass(dice.magnitude(5000, longestMs));
  }
  world.heal();
  provider.faultOf = () => "none";
  await scheduler.pass(longestMs);
  const lapsed = row()?.attemptId;
  const token = [...provider.grants.tokens.values()].find(({ value }) => value === tokenOf(stage));
  const couldLive = token?.family.isLive === true && !token.isDead && token.rotatedMs === null;
  if (row()?.status === "needs_reauthorization") await settle(people.retry(world.replica(1), own), scheduler);
  return { lapsed, couldLive, status: row()?.status, violations: world.violations, sends: provider.sends.length };
}

function tokenOf({ world }: Awaited<ReturnType<typeof openStage>>): string | undefined {
  return [...world.holdings.holders.entries()].find(([, { leftMs }]) => leftMs === null)?.[0];
}

async function settle(work: Promise<unknown>, scheduler: Scheduler): Promise<void> {
  const state = { isOver: false };
  void work.finally(() => void (state.isOver = true));
  while (!state.isOver) await scheduler.pass(1000);
}

it(`retries of ended grants keep the protocol's invariants in ${seeds.length} schedules, and end as before or live on`, async () => {
  let revived = 0;
  for (const seed of seeds) {
    const { lapsed, couldLive, status, violations } = await play(seed);
    expect(violations, `seed ${seed}`).toEqual([]);
    expect(lapsed, `seed ${seed}: a permit is left`).toBeNull();
    if (couldLive) expect(status, `seed ${seed}`).toBe("connected");
    if (status === "connected") revived += 1;
  }
  expect(revived).toBeGreaterThan(seeds.length / 2);
});
