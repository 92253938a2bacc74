import { describe, expect, it } from "vitest";
import { playLimits, type LedgerLine } from "../../support/simulation/play-limits.ts";

/** The most requests that the provider got in any time so long, both ends included. */
function mostIn(windowMs: number, ledger: readonly LedgerLine[]): number {
  const times = ledger.map(({ gotMs }) => gotMs);
  return Math.max(0, ...times.map((from) => times.filter((at) => at >= from && at <= from + windowMs).length));
}

function isUnderWay({ writtenMs, answeredMs }: LedgerLine, atMs: number): boolean {
  return writtenMs <= atMs && atMs < (answeredMs ?? Infinity);
}

/** The most requests that were under way at the same moment. */
function mostAtATime(ledger: readonly LedgerLine[]): number {
  return Math.max(0, ...ledger.map(({ writtenMs }) => ledger.filter((line) => isUnderWay(line, writtenMs)).length));
}

/** Of those of each connection. */
function byConnection(ledger: readonly LedgerLine[]): LedgerLine[][] {
  const groups = Map.groupBy(ledger, ({ connection }) => connection);
  return [...groups.values()];
}

describe("four replicas", () => {
  it("with 120 connections of one host that bears 10 requests in 600 s never send it more, and use what it bears", async () => {
    const limits = { per: "token_host", max_per_window: "10 in 600 s" } as const;
    const run = await playLimits({ seed: 1, limits, connections: 120, minutes: 40 });
    expect(run.violations).toEqual([]);
    expect(mostIn(600_000, run.ledger)).toBe(10);
    expect(run.ledger.length).toBeGreaterThanOrEqual(30);
    // Each connection asks once in each window, and no more.
    expect(run.asked).toBeLessThan(6 * 120);
  });

  it.each([1, 2])(
    "that crash, freeze and lose what Postgres says keep the limit all the same, seed %i",
    async (seed) => {
      const limits = { max_per_window: "10 in 600 s" };
      const run = await playLimits({ seed, limits, connections: 30, minutes: 60, troubled: true });
      expect(run.violations).toEqual([]);
      expect(mostIn(600_000, run.ledger)).toBe(10);
      expect(run.ledger.length).toBeGreaterThan(30);
    },
  );

  it("keep requests apart, as the provider gets them", async () => {
    const run = await playLimits({ seed: 1, limits: { spacing_ms: 3000 }, connections: 30, minutes: 20 });
    expect([run.violations, mostIn(2999, run.ledger)]).toEqual([[], 1]);
    expect(run.ledger.length).toBeGreaterThan(60);
  });

  it("have no more requests at a time than the limit", async () => {
    const run = await playLimits({ seed: 1, limits: { concurrency: 2 }, connections: 100, minutes: 20 });
    expect([run.violations, mostAtATime(run.ledger)]).toEqual([[], 2]);
    expect(run.ledger.length).toBeGreaterThan(300);
  });

  it("keep a limit of each connection for each, whatever the others send", async () => {
    const limits = { per: "connection", max_per_window: "1 in 600 s" } as const;
    const run = await playLimits({ seed: 1, limits, connections: 20, minutes: 60 });
    const groups = byConnection(run.ledger);
    expect([run.violations, Math.max(...groups.map((group) => mostIn(600_000, group)))]).toEqual([[], 1]);
    expect([groups.length, Math.min(...groups.map(({ length }) => length))]).toEqual([
      20,
      expect.toSatisfy((least) => least >= 4),
    ]);
  });

  it("are silent together after one of them was told to go slower", async () => {
    let answered = 0;
    const fault = () => (++answered === 5 ? 429 : "none");
    const run = await playLimits({ seed: 1, limits: { cool_down_s: 900 }, connections: 20, minutes: 40, fault });
    const refusedMs = run.ledger[4]?.gotMs ?? 0;
    const next = run.ledger.find(({ writtenMs }) => writtenMs > refusedMs + 1000);
    expect(next?.writtenMs).toBeGreaterThan(refusedMs + 900_000);
    expect(next?.writtenMs).toBeLessThan(refusedMs + 1_100_000);
  });
});

/** Requests of the first client. */
function own(ledger: readonly LedgerLine[]): number {
  return ledger.filter(({ client }) => client === 0).length;
}

/** The longest time from one request of the first client to the next, in seconds. */
function longestGap(ledger: readonly LedgerLine[]): number {
  const times = ledger.filter(({ client }) => client === 0).map(({ gotMs }) => gotMs / 1000);
  const end = (ledger.at(-1)?.gotMs ?? 0) / 1000;
  return Math.max(...[0, ...times].map((at, index) => (times[index] ?? end) - at));
}

// Its tokens live for 300 s, so that it wants one about each 225 s.
describe("four replicas, for a client beside one that has its connections refreshed without end,", () => {
  it("send what it needs at once while it keeps to its part, and the greedy one gets all the rest", async () => {
    const limits = { max_per_window: "20 in 600 s" };
    const run = await playLimits({ seed: 1, limits, connections: 1, greedy: [30], minutes: 25 });
    expect([run.violations, run.refused, mostIn(600_000, run.ledger) <= 20]).toEqual([[], 0, true]);
    expect([
      own(run.ledger) > 4,
      mostIn(
        600_000,
        run.ledger.filter(({ client }) => client === 1),
      ),
    ]).toEqual([true, 15]);
  });

  it("do so beside two of the kind", async () => {
    const limits = { max_per_window: "24 in 600 s" };
    const run = await playLimits({ seed: 2, limits, connections: 1, greedy: [20, 20], minutes: 25 });
    expect([run.violations, run.refused, mostIn(600_000, run.ledger) <= 24]).toEqual([[], 0, true]);
    expect(own(run.ledger)).toBeGreaterThan(4);
  });

  it.each([
    { limits: { max_per_window: "1 in 60 s" }, one: 65 },
    { limits: { concurrency: 1, spacing_ms: 20_000 }, one: 25 },
  ])(
    "have it wait for one request of the other at most where its part is too small: $limits",
    async ({ limits, one }) => {
      const reads = { lowMs: 10_000, highMs: 30_000 };
      const run = await playLimits({ seed: 3, limits, connections: 1, greedy: [12], minutes: 30, reads });
      expect(run.violations).toEqual([]);
      // It begins at three quarters of its token's life, and waits for what is under way and for one request of the other. The
      // sweeper looks about each second.
      expect(longestGap(run.ledger)).toBeLessThanOrEqual(240 + 2 * one + 10);
      expect(run.ledger.length - own(run.ledger)).toBeGreaterThan(own(run.ledger));
    },
  );
});
