import { existsSync, readdirSync, readFileSync } from "node:fs";
import { setImmediate as turn } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { guards } from "../../campaign/guards.ts";
import { chooseRows } from "../../campaign/load-rows.ts";
import { failuresOf, linesOf, reportOf, tableOf } from "../../campaign/report.ts";
import type { Outcome, Plays, Row } from "../../campaign/row.ts";
import { runRows } from "../../campaign/run-rows.ts";
import { seededRandom } from "../../support/seeded-random.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const given = { seed: 5, scale: "short", log: () => {} } as const;
const good: Outcome = { ok: true, figure: "0 broke" };

type Made = { alone?: boolean; how?: Plays["how"] };

function rowOf(number: number, run: Row["run"], { alone = false, how }: Made = {}): Row {
  const plays = how === undefined ? {} : { plays: { how } };
  return { number, title: `case ${number}`, promised: "nothing breaks", alone, ...plays, run };
}

/** Notes for each row which other rows run beside it, when all that can start have started. */
class Watch {
  readonly #running = new Set<number>();
  readonly seen: Record<number, number[]> = {};

  row(number: number, made?: Made): Row {
    const run = async () => {
      this.#running.add(number);
      for (let turns = 0; turns < 20; turns++) await turn();
      this.seen[number] = [...this.#running].filter((other) => other !== number).toSorted((a, b) => a - b);
      for (let turns = 0; turns < 20; turns++) await turn();
      this.#running.delete(number);
      return good;
    };
    return rowOf(number, run, made);
  }
}

const draw = (seed: number) => Array.from({ length: 1000 }, seededRandom(seed));

it("rows are chosen by numbers and ranges; others are refused", () => {
  const rows = [1, 5, 6, 8, 9].map((number) => rowOf(number, async () => good));
  expect(chooseRows(rows, "9,5-8,6").map(({ number }) => number)).toEqual([5, 6, 8, 9]);
  expect(() => chooseRows(rows, "7")).toThrow("there is no such row");
  expect(() => chooseRows(rows, "a-b")).toThrow("numbers and ranges");
});

it("a row that must be alone has nothing beside it, and the others run together", async () => {
  const watch = new Watch();
  await runRows([watch.row(1), watch.row(2, { alone: true }), watch.row(3)], { ...given, parallel: 2 });
  expect(watch.seen).toEqual({ 1: [3], 2: [], 3: [1] });
});

it("in the short form rows that break what they have in common play in turn, beside all others", async () => {
  const watch = new Watch();
  const rows = [
    watch.row(1, { how: "beside" }),
    watch.row(2, { how: "in turn" }),
    watch.row(3, { how: "in turn" }),
    watch.row(4, { how: "beside" }),
  ];
  await runRows(rows, { ...given, parallel: 1 });
  expect(watch.seen).toEqual({ 1: [2, 4], 2: [1, 4], 3: [], 4: [1, 2] });
});

it("in the full form every row has its own, and as many play at once as were asked for", async () => {
  const watch = new Watch();
  const rows = [1, 2].map((number) => watch.row(number, { how: "in turn" }));
  await runRows(rows, { ...given, scale: "full", parallel: 2 });
  expect(watch.seen).toEqual({ 1: [2], 2: [1] });
});

it("a row that throws has failed, and the report says why and how to repeat it", async () => {
  const rows = [
    rowOf(11, async () => {
      throw new Error("the bench broke");
    }),
    rowOf(3, async () => good),
  ];
  const results = await runRows(rows, { ...given, parallel: 1 });
  const table = tableOf(results).split("\n");
  expect(table[2]).toBe("| 3 | case 3 | nothing breaks | 0 broke | yes | 0 |");
  expect(table[3]).toBe("| 11 | case 11 | nothing breaks | broke off: Error: the bench broke | **no** | 0 |");
  expect(linesOf(results).split("\n")).toEqual([
    "ok     row 3, case 3. Promised: nothing breaks. Came: 0 broke",
    "FAILED row 11, case 11. Promised: nothing breaks. Came: broke off: Error: the bench broke",
  ]);
  expect(JSON.parse(reportOf(results, given))).toMatchObject({
    seed: 5,
    scale: "short",
    rows: [
      { number: 3, ok: true },
      { number: 11, ok: false },
    ],
  });
  expect(failuresOf(results, given)).toContain("npm run campaign -- --rows 11 --seed 5 --short");
});

it("what is said to prove a row that the short form leaves out is there", () => {
  const folder = `${root}test/campaign/rows/`;
  const sources = readdirSync(folder).map((file) => readFileSync(folder + file, "utf8"));
  const reasons = sources.flatMap((source) => /onlyFull:\s*(["'].*)/.exec(source)?.[1] ?? []);
  const named = reasons.flatMap((reason) => reason.match(/test\/[\w/-]+/g) ?? []);
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => ![`${name}.ts`, `${name}.test.ts`].some((file) => existsSync(root + file)))).toEqual(
    [],
  );
});

it("the tests that are said to notice that a guard is gone are there", () => {
  const files = new Set(guards.flatMap(({ caughtBy }) => caughtBy.files));
  expect([...files].filter((file) => !existsSync(root + file))).toEqual([]);
});

it("the same seed gives the same numbers, and another seed gives others", () => {
  expect(draw(7)).toEqual(draw(7));
  expect(draw(7)).not.toEqual(draw(8));
  expect(draw(7).every((value) => value >= 0 && value < 1)).toBe(true);
  expect(new Set(draw(7)).size).toBe(1000);
});
