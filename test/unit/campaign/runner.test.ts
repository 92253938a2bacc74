import { setImmediate } from "node:timers/promises";
import { expect, it } from "vitest";
import { chooseRows } from "../../campaign/load-rows.ts";
import { failuresOf, tableOf } from "../../campaign/report.ts";
import type { Outcome, Row } from "../../campaign/row.ts";
import { startRows } from "../../campaign/run-rows.ts";
import { seededRandom } from "../../support/seeded-random.ts";

const given = { seed: 5, scale: "short", log: () => {} } as const;

function rowOf(number: number, run: Row["run"], alone = false): Row {
  return { number, title: `case ${number}`, promised: "nothing breaks", alone, run };
}

const draw = (seed: number) => Array.from({ length: 1000 }, seededRandom(seed));
const good: Outcome = { ok: true, figure: "0 broke" };

it("rows are chosen by numbers and ranges; others are refused", () => {
  const rows = [1, 5, 6, 8, 9].map((number) => rowOf(number, async () => good));
  expect(chooseRows(rows, "9,5-8,6").map(({ number }) => number)).toEqual([5, 6, 8, 9]);
  expect(() => chooseRows(rows, "7")).toThrow("there is no such row");
  expect(() => chooseRows(rows, "a-b")).toThrow("numbers and ranges");
});

it("a row that must be alone has nothing beside it, and the others run together", async () => {
  const running = new Set<number>();
  const seen: Record<number, number[]> = {};
  const together = Promise.withResolvers<void>();
  const rows = [1, 2, 3].map((number) =>
    rowOf(
      number,
      async () => {
        running.add(number);
        if (running.size === 2) together.resolve();
        await (number === 2 ? setImmediate() : together.promise);
        seen[number] = [...running].sort((one, other) => one - other);
        await setImmediate();
        running.delete(number);
        return good;
      },
      number === 2,
    ),
  );
  await Promise.all(startRows(rows, { ...given, parallel: 2 }).values());
  expect(seen).toEqual({ 1: [1, 3], 2: [2], 3: [1, 3] });
});

it("a row that throws has failed, and the report says why and how to repeat it", async () => {
  const rows = [
    rowOf(3, async () => good),
    rowOf(11, async () => {
      throw new Error("the bench broke");
    }),
  ];
  const results = await Promise.all(startRows(rows, { ...given, parallel: 1 }).values());
  const table = tableOf(results).split("\n");
  expect(table[2]).toBe("| 3 | case 3 | nothing breaks | 0 broke | yes | 0 |");
  expect(table[3]).toBe("| 11 | case 11 | nothing breaks | broke off: Error: the bench broke | **no** | 0 |");
  expect(failuresOf(results, given)).toContain("npm run campaign -- --rows 11 --seed 5 --short");
});

it("the same seed gives the same numbers, and another seed gives others", () => {
  expect(draw(7)).toEqual(draw(7));
  expect(draw(7)).not.toEqual(draw(8));
  expect(draw(7).every((value) => value >= 0 && value < 1)).toBe(true);
  expect(new Set(draw(7)).size).toBe(1000);
});
