import { expect, it } from "vitest";
import { createDatabaseHealth } from "../../../src/store/database.ts";

function watching() {
  let nowMs = 1000;
  const health = createDatabaseHealth(() => nowMs);
  const answerAfter = (ms: number) => {
    nowMs += ms;
    health.answered();
    return health.uninterruptedMs();
  };
  return { health, answerAfter };
}

it("counts from the first answer to the last, and nothing before there was one", () => {
  const { health, answerAfter } = watching();
  expect(health.uninterruptedMs()).toBe(0);
  expect([answerAfter(0), answerAfter(5000), answerAfter(4999), answerAfter(1)]).toEqual([0, 5000, 9999, 10_000]);
});

it("starts again after a loss", () => {
  const { health, answerAfter } = watching();
  answerAfter(0);
  answerAfter(10_000);
  health.lost();
  expect(health.uninterruptedMs()).toBe(0);
  expect([answerAfter(5000), answerAfter(100)]).toEqual([0, 100]);
});

it("starts again after a silence: who asked nothing cannot tell whether the database was there", () => {
  const { answerAfter } = watching();
  expect([answerAfter(0), answerAfter(10_000), answerAfter(10_001), answerAfter(1)]).toEqual([0, 10_000, 0, 1]);
});

it("starts again for a row alone that was busy: who waits to store its answer was held up, too", () => {
  const { health, answerAfter } = watching();
  answerAfter(0);
  answerAfter(8000);
  health.rowWasBusy("locked");
  expect([answerAfter(3000), health.uninterruptedMs("locked"), health.uninterruptedMs("other")]).toEqual([
    11_000, 3000, 11_000,
  ]);
  health.rowWasBusy("locked");
  expect(health.uninterruptedMs("locked")).toBe(0);
  for (let at = 0; at < 10; at++) answerAfter(10_000);
  health.rowWasBusy("other"); // this forgets rows that were busy long ago
  expect(health.uninterruptedMs("locked")).toBe(111_000);
  health.lost();
  expect(health.uninterruptedMs("locked")).toBe(0);
});
