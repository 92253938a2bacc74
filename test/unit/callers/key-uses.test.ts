import { expect, test } from "vitest";
import { createKeyUses } from "../../../src/callers/key-uses.ts";
import { callerTimes } from "../../../src/time.ts";
import { manualClock } from "../tokens/manual-clock.ts";

/** A database that is away while `isGone`, and Postgres's clock an hour ahead of the machine's. */
function serve() {
  const clock = manualClock();
  const hourMs = 3_600_000;
  const state = { isGone: false, used: new Map<string, number>(), written: [] as Record<string, number>[] };
  const uses = createKeyUses({
    keys: {
      takeUses() {
        const taken = state.used;
        state.used = new Map();
        return taken;
      },
    },
    table: {
      async noteUses(rows) {
        if (state.isGone) throw new Error("the database is away");
        state.written.push(Object.fromEntries([...rows].map(([id, at]) => [id, at.getTime()])));
      },
    },
    clock,
    nowMs: () => clock.wallMs() + hourMs,
  });
  /** The key is used now. By Postgres's clock it is this time. */
  const use = (id: string): number => {
    state.used.set(id, clock.wallMs());
    return clock.wallMs() + hourMs;
  };
  return { clock, state, uses, use };
}

test("the last use of each key is written once a minute, all in one statement, by Postgres's clock", async () => {
  const { clock, state, uses, use } = serve();
  uses.start();
  use("a");
  await clock.pass(1000);
  const [a, b] = [use("a"), use("b")];
  expect(state.written).toEqual([]);
  await clock.pass(callerTimes.keyUseMs);
  expect(state.written).toEqual([{ a, b }]);
  await clock.pass(5 * callerTimes.keyUseMs);
  expect(state.written).toHaveLength(1);
});

test("what could not be written is written later, and what is left at the end then", async () => {
  const { clock, state, uses, use } = serve();
  uses.start();
  state.isGone = true;
  const a = use("a");
  use("b");
  await clock.pass(callerTimes.keyUseMs);
  const later = use("b");
  state.isGone = false;
  await uses.stop();
  expect(state.written).toEqual([{ a, b: later }]);
  await uses.stop();
  expect(state.written).toHaveLength(1);
});
