import { setImmediate } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { createMemoryLeases, type RefreshNews } from "../../../src/coordination/leases.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import { createWaiting } from "../../../src/tokens/waiting.ts";
import { fakeClock } from "./fake-clock.ts";
import { attemptedRow, inSeconds, tokenRow } from "./token-row.ts";

const attemptId = attemptedRow(0).attemptId as string;
const running = attemptedRow(-20);
const free = tokenRow();
const moved = tokenRow({ generation: free.generation + 1 });
/** A row after an attempt that was refused. Its back-off may be over when somebody looks at the row. */
const refused = tokenRow({ consecutiveFailures: 1, lastErrorCode: "rate_limited", backoffUntil: free.now });

type Step = TokenRow | null;

/** Waits while Postgres returns these rows one after the other, and the last one again and again. */
function wait(
  steps: Step[],
  given: {
    seen?: string;
    flightMs?: number;
    mayTakeOver?: (row: TokenRow) => boolean;
    shouldStopWaiting?: (row: TokenRow) => boolean;
  } = {},
) {
  const clock = fakeClock();
  const leases = createMemoryLeases(clock);
  const asked: number[] = [];
  const start = clock.monotonicMs();
  const left = [...steps];
  const rows = {
    readByIds: async () => {
      asked.push(clock.monotonicMs() - start);
      const row = (left.length > 1 ? left.shift() : left[0]) ?? null;
      return row === null ? [] : [row];
    },
  } as unknown as TokenStatements;
  const waiting = createWaiting({ rows, leases, clock });
  const result = waiting.until({
    row: { ...free, attemptId: given.seen ?? null },
    giveUpAtMs: start + (given.flightMs ?? 60_000),
    mayTakeOver: given.mayTakeOver ?? (() => false),
    shouldStopWaiting: given.shouldStopWaiting ?? (() => false),
  });
  const news = (changes: Partial<RefreshNews>) =>
    leases.announce({
      connection: free.id,
      generation: free.generation,
      attempt: attemptId,
      outcome: "failed",
      ...changes,
    });
  return { result, asked, news, clock };
}

describe("waiting for somebody else's refresh", () => {
  it("ends when a newer generation is stored", async () => {
    const { result, asked } = wait([running, running, moved]);
    expect(await result).toEqual({ kind: "moved", row: moved });
    expect(asked).toHaveLength(3);
  });

  it("asks Postgres by itself, since messages may be lost: after 100 ms, then ever more rarely, up to 500 ms", async () => {
    const { result, asked } = wait([...Array.from({ length: 8 }, () => running), moved]);
    await result;
    const pauses = asked.map((at, index) => at - (asked[index - 1] ?? 0));
    expect(pauses).toEqual([100, 150, 225, 337.5, 500, 500, 500, 500, 500]);
  });

  it("a message wakes it at once", async () => {
    const { result, asked, news } = wait([moved]);
    news({ outcome: "stored" });
    await result;
    expect(asked).toEqual([0]);
  });

  it("a message about another connection does not, nor one that a refresh has started", async () => {
    const { result, asked, news } = wait([moved]);
    news({ connection: "another", outcome: "stored" });
    news({ outcome: "started" });
    await result;
    expect(asked).toEqual([100]);
  });

  it("a waiter whose attempt failed answers at once and starts none", async () => {
    const { result, asked } = wait([running, refused]);
    expect(await result).toEqual({ kind: "ended", row: refused });
    expect(asked).toHaveLength(2);
  });

  it("an attempt that is given back unsent does not end the wait: its owner may ask anew, and so may another", async () => {
    const again = { ...running, attemptId: "5d0f7a0e-3f8e-4a55-9a55-93a3f0a3d1f1" };
    expect(await wait([running, free, again, moved]).result).toEqual({ kind: "moved", row: moved });
    expect(await wait([running, free, again, refused]).result).toEqual({ kind: "ended", row: refused });
    // If no other attempt follows, it is as if no attempt had been seen.
    const { result, asked } = wait([running, free]);
    expect(await result).toEqual({ kind: "free", row: free });
    expect(asked.at(-1)).toBeGreaterThanOrEqual(1000);
    expect(await wait([free], { seen: attemptId }).result).toEqual({ kind: "free", row: free });
  });

  it("an attempt that was refused before says nothing of the one that is given back", async () => {
    const before = { ...running, consecutiveFailures: 1 };
    expect(await wait([before, refused, moved]).result).toEqual({ kind: "moved", row: moved });
    const { result, news } = wait([{ ...before, attemptId: "5d0f7a0e-3f8e-4a55-9a55-93a3f0a3d1f1" }, refused, moved]);
    news({ outcome: "failed" });
    expect(await result).toEqual({ kind: "moved", row: moved });
  });

  it("a back-off ends it, and so does a row that nobody may refresh any more", async () => {
    const backingOff = tokenRow({ backoffUntil: inSeconds(5) });
    expect(await wait([running, backingOff]).result).toEqual({ kind: "ended", row: backingOff });
    for (const status of ["needs_reauthorization", "disabled"] as const) {
      const over = tokenRow({ status });
      expect(await wait([running, over]).result).toEqual({ kind: "ended", row: over });
    }
  });

  it("the same where only the message told of the attempt", async () => {
    const { result, news } = wait([free]);
    news({});
    expect(await result).toEqual({ kind: "ended", row: free });
  });

  it("the same where the attempt was known before", async () => {
    const { result, asked } = wait([refused], { seen: attemptId });
    expect(await result).toEqual({ kind: "ended", row: refused });
    expect(asked).toEqual([100]);
  });

  it("an attempt whose outcome nobody knows ends it too", async () => {
    const unknown = { ...running, attemptOutcome: "unknown" };
    const { result, asked } = wait([running, unknown]);
    expect(await result).toEqual({ kind: "ended", row: unknown });
    expect(asked).toHaveLength(2);
  });

  it("an attempt for which waiting has no sense any more ends it as well, unless it may be taken over", async () => {
    const given = { shouldStopWaiting: (row: TokenRow) => row === running };
    expect(await wait([running, moved], given).result).toEqual({ kind: "ended", row: running });
    const takeover = { ...given, mayTakeOver: () => true };
    expect(await wait([running], takeover).result).toEqual({ kind: "free", row: running });
  });

  it("a message about another generation does not wake it", async () => {
    const { result, asked, news } = wait([moved]);
    news({ generation: free.generation - 1, outcome: "stored" });
    await result;
    expect(asked).toEqual([100]);
  });

  it("who finds nobody sending for a second may ask for the permit itself, and not before", async () => {
    const { result, asked } = wait([free]);
    expect(await result).toEqual({ kind: "free", row: free });
    expect(asked.at(-1)).toBeGreaterThanOrEqual(1000);
    expect(asked.at(-2)).toBeLessThan(1000);
  });

  it("an attempt that may be taken over ends it as well, an unknown outcome included", async () => {
    const abandoned = attemptedRow(11, { attemptOutcome: "unknown" });
    const { result, asked } = wait([running, abandoned], { mayTakeOver: (row) => row === abandoned });
    expect(await result).toEqual({ kind: "free", row: abandoned });
    expect(asked).toHaveLength(2);
  });

  it("a deleted connection ends it", async () => {
    expect(await wait([running, null]).result).toEqual({ kind: "ended", row: null });
  });

  it("nobody waits for ever: at the end of its time it gives up", async () => {
    const { result, asked } = wait([running], { flightMs: 5000 });
    expect(await result).toEqual({ kind: "ended", row: running });
    expect(asked.at(-1)).toBeGreaterThanOrEqual(5000);
    expect(asked.at(-2)).toBeLessThan(5000);
  });

  it("a process that may begin nothing has others come to the row, once, and waits for what they do", async () => {
    const clock = fakeClock();
    const start = clock.monotonicMs();
    const table = { row: free, hastened: 0 };
    const rows = {
      readByIds: async () => [table.row],
      hasten: async () => void table.hastened++,
    } as unknown as TokenStatements;
    const waiting = createWaiting({ rows, leases: createMemoryLeases(clock), clock });
    const waits = [waiting.forOthers(free, start + 10_000), waiting.forOthers(free, start + 10_000)];
    while (clock.monotonicMs() < start + 5000) await setImmediate();
    table.row = moved;
    expect(await Promise.all(waits)).toEqual(waits.map(() => ({ kind: "moved", row: moved })));
    expect(table.hastened).toBe(1);
    table.row = free;
    const end = await waiting.forOthers({ ...free }, clock.monotonicMs() + 3000);
    expect(end.kind).not.toBe("moved");
  });
});
