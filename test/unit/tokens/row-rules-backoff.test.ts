import * as fc from "fast-check";
import { expect, it } from "vitest";
import { backoffSeconds } from "../../../src/tokens/row-rules.ts";

const longest = () => 1;
const never = () => 0;

it("the longest pause doubles with every failure, up to five minutes", () => {
  const pauses = [0, 1, 2, 3, 8, 9, 1000].map((failures) => backoffSeconds(failures, undefined, longest));
  expect(pauses).toEqual([1, 2, 4, 8, 256, 300, 300]);
});

it("the whole pause is jittered, so that connections that failed together do not come back together", () => {
  expect(backoffSeconds(5, undefined, never)).toBe(0);
  expect(backoffSeconds(5, undefined, () => 0.5)).toBe(16);
});

it("the provider is never asked earlier than it said, up to an hour", () => {
  expect(backoffSeconds(0, 120, never)).toBe(120);
  expect(backoffSeconds(0, 86_400, never)).toBe(3600);
  expect(backoffSeconds(9, 5, longest)).toBe(300);
});

it("whatever a provider asks for, the pause is a number between nothing and an hour", () => {
  const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const property = fc.property(
    fc.nat(),
    fc.option(fc.integer(), { nil: undefined }),
    random,
    (failures, asked, jitter) => {
      const pause = backoffSeconds(failures, asked, () => jitter);
      expect(pause).toBeGreaterThanOrEqual(Math.max(0, Math.min(asked ?? 0, 3600)));
      expect(pause).toBeLessThanOrEqual(3600);
    },
  );
  fc.assert(property);
});
