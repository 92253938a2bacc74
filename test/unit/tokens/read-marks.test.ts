import { describe, expect, it } from "vitest";
import { createReads } from "../../../src/tokens/read.ts";

const row = (id: string, generation = 1, inUse = false) => ({ id, generation, inUse });

describe("reads", () => {
  it("are noted once for each generation", () => {
    const reads = createReads();
    for (let time = 0; time < 3; time++) reads.note(row("a"));
    reads.note(row("b"));
    expect(reads.take()).toEqual([
      { id: "a", generation: 1 },
      { id: "b", generation: 1 },
    ]);
    reads.note(row("a"));
    expect(reads.take()).toEqual([]);
    reads.note(row("a", 2));
    expect(reads.take()).toEqual([{ id: "a", generation: 2 }]);
  });

  it("that the row tells of already are not noted again", () => {
    const reads = createReads();
    reads.note(row("a", 1, true));
    expect(reads.take()).toEqual([]);
  });

  it("that could not be noted in the store come again, unless the same connection was read since", () => {
    const reads = createReads();
    for (const id of ["a", "b"]) reads.note(row(id));
    const taken = reads.take();
    reads.note(row("a", 2));
    reads.giveBack(taken);
    expect(reads.take()).toEqual([
      { id: "a", generation: 2 },
      { id: "b", generation: 1 },
    ]);
  });

  it("of more connections than can be remembered are noted again rather than kept for ever", () => {
    const reads = createReads();
    for (let number = 0; number <= 100_000; number++) reads.note(row(`c${number}`));
    expect(reads.take()).toHaveLength(100_001);
    reads.note(row("c100000"));
    expect(reads.take()).toEqual([]);
    reads.note(row("c0"));
    expect(reads.take()).toEqual([{ id: "c0", generation: 1 }]);
  });
});
