import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { readInputs, rowsOnPage, sizeOf, sizeRows } from "../../../scripts/sizing.ts";

const text = readFileSync(resolve(import.meta.dirname, "../../../docs/performance.md"), "utf8");

test("the sizes in docs/performance.md follow from the inputs there (node scripts/sizing.ts)", () => {
  expect(rowsOnPage(text)).toEqual(sizeRows(readInputs(text)));
});

test("an input that is missing on the page is named", () => {
  expect(() => readInputs(text.replace("| refreshes per core second", "| something else"))).toThrow(
    'no "refreshes per core second"',
  );
});

test("a size by hand", () => {
  const inputs = {
    "reads per core second": 10_000,
    "reads from Postgres per core second": 9000,
    "refreshes per core second": 100,
    "rows confirmed per core second": 100_000,
    "rows per confirming query": 1000,
    "seconds between confirmations": 2,
    "connections in memory": 20_000,
    "memory of a process": 100,
    "memory per connection": 1000,
    "disk per connection": 2000,
    "seconds between refreshes": 1000,
    "statements per refresh": 5,
    "statements per core second of Postgres": 500,
    "Redis commands per refresh": 10,
    "share of a core that is used": 0.5,
  };
  // 10,000 rows a second are confirmed by each replica, a tenth of its core. 50 refreshes a second take half a core, 12,000 reads from memory 1.2
  // and 18,000 from Postgres two.
  expect(sizeOf(inputs, { connections: 50_000, readsPerSecond: 30_000 })).toEqual({
    replicas: 10,
    megabytes: 120,
    refreshesPerSecond: 50,
    statementsPerSecond: 18_000 + 50 * 5 + 10 * 10,
    postgresCores: 74,
    diskGigabytes: 0.1,
    redisCommandsPerSecond: 500,
  });
  expect(sizeOf(inputs, { connections: 1, readsPerSecond: 1 }).replicas).toBe(2);
});
