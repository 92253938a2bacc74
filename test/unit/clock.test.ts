import { getEventListeners } from "node:events";
import { expect, it } from "vitest";
import { systemClock, withDeadline } from "../../src/clock.ts";
import { hangMs } from "../support/patience.ts";

it("a sleep that has ended leaves nothing behind on its signal", async () => {
  const { signal } = new AbortController();
  for (let count = 0; count < 5; count++) await systemClock.sleep(1, signal);
  expect(getEventListeners(signal, "abort")).toEqual([]);
});

it("a sleep ends at once when its signal aborts", async () => {
  const controller = new AbortController();
  const longMs = 2 * hangMs; // else it might end by itself
  const sleeping = systemClock.sleep(longMs, controller.signal);
  controller.abort();
  await sleeping;
  await systemClock.sleep(longMs, controller.signal);
});

it("work that comes in time is given, and late work is not waited for", async () => {
  expect(await withDeadline(Promise.resolve("done"), 60_000, systemClock)).toBe("done");
  expect(await withDeadline(new Promise(() => {}), 1, systemClock)).toBeNull();
});
