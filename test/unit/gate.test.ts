import { setImmediate } from "node:timers/promises";
import { expect, it } from "vitest";
import { createGate } from "../../src/concurrency.ts";

it("so many are let in at once, and the others in the order in which they came", async () => {
  const gate = createGate(2);
  const entered: number[] = [];
  const come = async (number: number) => {
    await gate.enter();
    entered.push(number);
  };
  const all = [1, 2, 3, 4].map(come);
  await setImmediate();
  expect(entered).toEqual([1, 2]);
  gate.leave();
  await setImmediate();
  expect(entered).toEqual([1, 2, 3]);
  gate.leave();
  await Promise.all(all);
  expect(entered).toEqual([1, 2, 3, 4]);
});

it("who does not get in before its patience ends has not taken a place", async () => {
  const gate = createGate(1);
  expect(await gate.enter(1)).toBe(true);
  expect(await gate.enter(1)).toBe(false);
  gate.leave();
  expect(await gate.enter(1)).toBe(true);
});
