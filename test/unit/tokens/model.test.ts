import * as fc from "fast-check";
import { expect, it } from "vitest";
import { randomSchedule, runSchedule, type Schedule } from "../../support/simulation/run-schedule.ts";

const schedules = 150;
/** The same seeds in every run of the suite. The campaign takes others. */
const suiteSeed = 20_261_121;
const traceLines = 60;

/** Schedules by their seeds. One that fails is made shorter by leaving commands out. */
class Schedules extends fc.Arbitrary<Schedule> {
  generate(random: fc.Random): fc.Value<Schedule> {
    return new fc.Value(randomSchedule(random.nextInt(0, 2 ** 31 - 1)), undefined);
  }

  canShrinkWithoutContext(_value: unknown): _value is Schedule {
    return false;
  }

  shrink(schedule: Schedule): fc.Stream<fc.Value<Schedule>> {
    return fc.stream(shorter(schedule)).map((value) => new fc.Value(value, undefined));
  }
}

/** Without one half, then without one quarter, and in the end without one command. */
function* shorter({ commands, ...rest }: Schedule): Generator<Schedule> {
  for (let size = Math.ceil(commands.length / 2); size > 0; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < commands.length; from += size) {
      yield { ...rest, commands: commands.filter((_, index) => index < from || index >= from + size) };
    }
  }
}

/** The shortest schedule that was found to fail; null: none was. */
async function findFailing(isSound: (schedule: Schedule) => Promise<boolean>): Promise<Schedule | null> {
  const found = await fc.check(fc.asyncProperty(new Schedules(), isSound), { numRuns: schedules, seed: suiteSeed });
  return found.counterexample?.[0] ?? null;
}

/** How to repeat it, as it was and as short as it became. */
async function tell(schedule: Schedule): Promise<string> {
  const { violations, trace } = await runSchedule(schedule, { traced: true });
  return [
    ...violations,
    `to repeat it: npm run campaign -- --rows 29 --short --seed ${schedule.seed}`,
    `enough of its commands: ${JSON.stringify(schedule.commands)}`,
    ...trace.slice(-traceLines),
  ].join("\n");
}

it(`four replicas keep the protocol's invariants in ${schedules} random schedules`, async () => {
  const failing = await findFailing(async (schedule) => (await runSchedule(schedule)).violations.length === 0);
  if (failing !== null) expect.fail(await tell(failing));
});

it("a schedule that fails is told by the command that matters and the command line that repeats it", async () => {
  const failing = await findFailing(async ({ commands }) => !commands.some(({ kind }) => kind === "drain"));
  expect(failing?.commands).toEqual([expect.objectContaining({ kind: "drain" })]);
  expect(await tell(failing as Schedule)).toContain(`npm run campaign -- --rows 29 --short --seed ${failing?.seed}`);
});

it.each([3, 31, 314])("the schedule of seed %i gives the same trace whenever it is run", async (seed) => {
  const [one, other] = [
    await runSchedule(randomSchedule(seed), { traced: true }),
    await runSchedule(randomSchedule(seed), { traced: true }),
  ];
  expect(one.trace.length).toBeGreaterThan(10);
  expect(other.trace).toEqual(one.trace);
});

/** A replica gives version 2 to a caller and is cut off from Postgres before it can store it. */
const cutOff: Schedule = {
  ...randomSchedule(1_659_767_326),
  commands: [
    { kind: "trap", moment: "takePermit answered", blow: "cut", ms: 165_476 },
    { kind: "trap", moment: "done by provider", blow: "crash", ms: 1425 },
    { kind: "reconnect", replica: 8, connection: 53 },
    { kind: "pass", ms: 14_757 },
    { kind: "pass", ms: 4389 },
    { kind: "read", replica: 9, connection: 7, rejected: true },
    { kind: "read", replica: 47, connection: 50, rejected: true },
  ],
};

it("who had a version refused that one replica is still storing is handed no older one by another", async () => {
  const { violations, trace } = await runSchedule(cutOff, { traced: true });
  const seen = ["spooled to Redis", "serves c1 version 2"].map((text) => trace.some((line) => line.includes(text)));
  expect([violations, seen]).toEqual([[], [true, true]]);
});
