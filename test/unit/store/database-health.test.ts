import { expect, it } from "vitest";
import { createDatabaseHealth } from "../../../src/store/database-health.ts";

it("counts from the first answer since the last loss, and is nothing while the database is lost", () => {
  let nowMs = 0;
  const health = createDatabaseHealth(() => nowMs);
  expect(health.uninterruptedMs()).toBe(0);
  health.answered();
  nowMs = 9999;
  health.answered();
  expect(health.uninterruptedMs()).toBe(9999);
  health.lost();
  nowMs = 20_000;
  expect(health.uninterruptedMs()).toBe(0);
  health.answered();
  nowMs = 20_100;
  expect(health.uninterruptedMs()).toBe(100);
});
