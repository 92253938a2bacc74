import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HostileServer } from "../../integration/support/hostile-server.ts";
import { bases, fuzzCase, spellingsOf } from "../../support/answer-fuzz.ts";
import { FuzzReader } from "../../support/fuzz-reader.ts";

/** `npm run campaign -- --rows 40 --seed N` plays many more, against a broker as well. */
const first = 20_261_128;
const count = 500;

describe("an answer of a token endpoint that was made odd at random", () => {
  let server: HostileServer;
  let reader: FuzzReader;

  beforeAll(async () => {
    server = await HostileServer.start({ is: "", steps: () => reader.steps, outcome: { code: [] } });
    reader = new FuzzReader(server.url);
  });

  afterAll(async () => await server[Symbol.asyncDispose]());

  test("begins with one of forty honest ones, or more", () => {
    expect(bases.length).toBeGreaterThanOrEqual(40);
  });

  test("shows no token in any text, never ends a grant with a 2xx, and what must be kept is", async () => {
    const cases = Array.from({ length: count }, (_, index) => fuzzCase(first + index));
    const faults: string[] = [];
    for (const one of cases) faults.push(...(await reader.faultsOf(one)));
    expect(faults).toEqual([]);
    // Some answers must be kept, and some need not be.
    const kept = cases.filter(({ mustKeep }) => mustKeep).length;
    expect(kept).toBeGreaterThan(count / 4);
    expect(kept).toBeLessThan((count * 3) / 4);
  });

  test("is the same for the same seed, with tokens that no other has", () => {
    expect(fuzzCase(first)).toEqual(fuzzCase(first));
    const all = Array.from({ length: 50 }, (_, index) => spellingsOf(fuzzCase(first + index).tokens)[0]);
    expect(new Set(all).size).toBe(50);
  });
});
