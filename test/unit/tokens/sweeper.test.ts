import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { Failure } from "../../../src/providers/oauth/token-answer.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { RefreshOutcome } from "../../../src/tokens/refresh.ts";
import { createReads } from "../../../src/tokens/read.ts";
import { createSweeper, type SweeperParts } from "../../../src/tokens/sweeper.ts";
import { manualClock } from "./manual-clock.ts";
import { tokenRow } from "./token-row.ts";

type Refreshing = { row: TokenRow; finish: (failure?: Failure) => void };
type Claim = Parameters<SweeperParts["rows"]["claimDue"]>[0];

const failureOf = (given: Pick<Failure, "class" | "code"> & Partial<Failure>): Failure => ({
  detail: "scripted",
  ...given,
});
const busy = failureOf({ class: "refused_for_now", code: "provider_unavailable", status: 503 });
const dead = failureOf({ class: "refused_for_good", code: "invalid_grant", status: 400 });

/** A sweeper over rows in memory. A row is due until it is refreshed or postponed; its host is its provider's. */
class Stage {
  readonly clock = manualClock();
  readonly reads = createReads();
  readonly claims: Claim[] = [];
  readonly postponed: { id: string; seconds: number | null }[] = [];
  readonly marked: { id: string; generation: number }[][] = [];
  readonly errors: unknown[] = [];
  readonly running = new Map<string, Refreshing>();
  readonly begun: string[] = [];
  /** Ids of rows that somebody else has locked. */
  readonly locked = new Set<string>();
  tidied = 0;
  lapsed = 0;
  recovered = 0;
  due: TokenRow[] = [];
  isStoreAway = false;
  isFaulty = false;
  /** The process begins no refresh any more. */
  isDraining = false;
  recover = async (): Promise<void> => void this.recovered++;
  readonly sweeper;

  constructor({ random = () => 0.5 }: { random?: () => number } = {}) {
    this.sweeper = createSweeper({
      rows: {
        claimDue: async (claim) => this.#claim(claim),
        postpone: async ({ id }, seconds) => void this.postponed.push({ id, seconds }),
        markInUse: async (read) => {
          this.#ask();
          this.marked.push([...read]);
          return read.filter(({ id }) => this.locked.has(id));
        },
        tidy: async () => void this.tidied++,
      },
      reads: this.reads,
      refreshAhead: async (row) => await this.#refresh(row),
      tokenHost: async ({ provider }) => `${provider}.example`,
      pollDevices: async () => {},
      recover: async () => await this.recover(),
      lapseRetries: async () => void this.lapsed++,
      clock: this.clock,
      random,
      onError: (error) => void this.errors.push(error),
    });
  }

  #ask(): void {
    if (this.isStoreAway) throw new BrokerError("storage_unavailable", "gone");
  }

  #claim(claim: Claim): TokenRow[] {
    this.#ask();
    this.claims.push(claim);
    const free = this.due.filter(({ provider }) => !claim.busyProviders.includes(provider));
    const claimed = free.slice(0, claim.limit);
    this.due = this.due.filter((row) => !claimed.includes(row));
    return claimed;
  }

  async #refresh(row: TokenRow): Promise<RefreshOutcome> {
    if (this.isFaulty) throw new Error("a fault of ours");
    if (this.isDraining) return { kind: "left", row };
    this.begun.push(row.id);
    return await new Promise((resolve) => {
      const finish = (failure?: Failure) => {
        this.running.delete(row.id);
        resolve({ kind: failure === undefined ? "moved" : "failed", row, ...(failure && { failure }) });
      };
      this.running.set(row.id, { row, finish });
    });
  }

  add(provider: string, count: number, changes: Partial<TokenRow> = {}): void {
    for (let number = 0; number < count; number++) {
      this.due.push(tokenRow({ id: `${provider}-${this.due.length}-${number}`, provider, ...changes }));
    }
  }

  /** Those that run now come to an end. */
  finishAll(failure?: Failure): void {
    for (const { finish } of this.running.values()) finish(failure);
  }

  runningOf(provider: string): number {
    return [...this.running.values()].filter(({ row }) => row.provider === provider).length;
  }
}

function started(options?: ConstructorParameters<typeof Stage>[0]): Stage {
  const stage = new Stage(options);
  stage.sweeper.start();
  return stage;
}

async function firstSweepMs(chance: number): Promise<number> {
  const stage = started({ random: () => chance });
  const startedMs = stage.clock.monotonicMs();
  while (stage.claims.length === 0) await stage.clock.pass(10);
  return stage.clock.monotonicMs() - startedMs;
}

describe("the sweeper", () => {
  it("refreshes what is due while an answer waits for its locked row, and looks after one such answer at a time", async () => {
    const stage = new Stage();
    let began = 0;
    stage.recover = async () => {
      began += 1;
      await new Promise(() => {});
    };
    stage.sweeper.start();
    stage.add("own", 3);
    await stage.clock.pass(10_000);
    expect([stage.begun.length, began]).toEqual([3, 1]);
  });

  it("notes a read token again whose row was locked, and the others once", async () => {
    const stage = started();
    const [locked, free] = [tokenRow({ id: "locked" }), tokenRow({ id: "free" })];
    stage.locked.add("locked");
    for (const row of [locked, free]) stage.reads.note(row);
    await stage.clock.pass(5000);
    stage.locked.clear();
    await stage.clock.pass(5000);
    const noted = stage.marked.flat().map(({ id }) => id);
    expect([noted.filter((id) => id === "free").length, noted.filter((id) => id === "locked").length > 1]).toEqual([
      1,
      true,
    ]);
    const before = stage.marked.length;
    await stage.clock.pass(5000);
    expect(stage.marked).toHaveLength(before);
  });

  it("refreshes what is due, with at most eight requests at one host at a time", async () => {
    const stage = started();
    stage.add("own", 20);
    let most = 0;
    for (let turn = 0; turn < 20; turn++) {
      await stage.clock.pass(1000);
      most = Math.max(most, stage.runningOf("own"));
      stage.finishAll();
    }
    expect([most, stage.begun.length, new Set(stage.begun).size]).toEqual([8, 20, 20]);
    expect([stage.postponed, stage.errors]).toEqual([[], []]);
  });

  it("begins the next at a host, and claims more for it, as soon as one has ended: no time passes between", async () => {
    const stage = started();
    stage.add("own", 200);
    await stage.clock.pass(1000);
    const since = stage.clock.monotonicMs();
    while (stage.begun.length < 200) {
      const before = stage.begun.length;
      stage.finishAll();
      await stage.clock.pass(0);
      expect(stage.begun.length).toBeGreaterThan(before);
    }
    expect([stage.clock.monotonicMs() - since, stage.due.length]).toEqual([0, 0]);
  });

  it("has at most 64 in hand, however many hosts there are, and claims no more than it can take", async () => {
    const stage = started();
    for (let provider = 0; provider < 20; provider++) stage.add(`p${provider}`, 8);
    await stage.clock.pass(15_000);
    expect([stage.running.size, stage.due.length]).toEqual([64, 160 - 64]);
    expect(Math.max(...stage.claims.map(({ limit }) => limit))).toBe(16);
    const asked = stage.claims.length;
    await stage.clock.pass(5000);
    expect(stage.claims).toHaveLength(asked);
    stage.finishAll();
    await stage.clock.pass(10_000);
    expect(stage.running.size).toBe(64);
  });

  it("looks again at once while more is due than it could claim, and each second when nothing is", async () => {
    const stage = started();
    for (let provider = 0; provider < 8; provider++) stage.add(`p${provider}`, 8);
    await stage.clock.pass(1000);
    expect(stage.running.size).toBe(64);
    stage.finishAll();
    await stage.clock.pass(1000);
    const claims = stage.claims.length;
    await stage.clock.pass(10_000);
    expect(stage.claims.length - claims).toBe(10);
  });

  it("claims none of a provider of which many wait, so that the others come to their turn", async () => {
    const stage = started();
    stage.add("slow", 40);
    stage.add("quick", 4);
    await stage.clock.pass(5000);
    expect([stage.runningOf("slow"), stage.runningOf("quick")]).toEqual([8, 4]);
    expect(stage.claims.at(-1)?.busyProviders).toEqual(["slow"]);
    expect(stage.due.filter(({ provider }) => provider === "slow").length).toBeGreaterThan(0);
  });

  it("leaves a host alone that is unavailable, for as long as it asks, and puts its connections back until then", async () => {
    const stage = started();
    stage.add("own", 1);
    await stage.clock.pass(1000);
    stage.finishAll({ ...busy, retryAfterSeconds: 120 });
    stage.add("own", 10);
    stage.add("other", 1);
    await stage.clock.pass(60_000);
    expect([stage.runningOf("own"), stage.runningOf("other"), stage.postponed.length]).toEqual([0, 1, 10]);
    // After the wait is over, spread over the same time once more.
    for (const { seconds } of stage.postponed) expect(seconds).toBeGreaterThanOrEqual(119);
    for (const { seconds } of stage.postponed) expect(seconds).toBeLessThanOrEqual(240);
  });

  it("spreads over the wait what a closed host has kept waiting", async () => {
    let turn = 0;
    const stage = started({ random: () => (turn++ % 10) / 10 });
    stage.add("own", 1);
    await stage.clock.pass(2000);
    stage.finishAll({ ...busy, retryAfterSeconds: 100 });
    stage.add("own", 16);
    await stage.clock.pass(5000);
    const waits = stage.postponed.map(({ seconds }) => seconds ?? 0);
    expect(waits).toHaveLength(16);
    expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(30);
  });

  it("asks a host with one request after trouble, and with many once that has come back well", async () => {
    const stage = started();
    stage.add("own", 1);
    await stage.clock.pass(1000);
    stage.finishAll(busy);
    await stage.clock.pass(2000);
    stage.add("own", 8);
    await stage.clock.pass(3000);
    expect(stage.runningOf("own")).toBe(1);
    stage.finishAll();
    await stage.clock.pass(1000);
    expect(stage.runningOf("own")).toBe(7);
  });

  it.each<[string, Failure]>([
    ["429", failureOf({ class: "refused_for_now", code: "rate_limited", status: 429 })],
    ["500", failureOf({ class: "unknown", code: "outcome_unknown", status: 500 })],
    ["no connection", failureOf({ class: "not_sent", code: "connect_failed" })],
  ])("takes %s as trouble of the host", async (_is, failure) => {
    const stage = started({ random: () => 0.9 });
    stage.add("own", 1);
    await stage.clock.pass(2000);
    stage.finishAll({ ...failure, retryAfterSeconds: 30 });
    stage.add("own", 2);
    await stage.clock.pass(5000);
    expect([stage.running.size, stage.postponed.length]).toEqual([0, 2]);
  });

  it.each<[string, Failure]>([
    ["the end of a grant", dead],
    ["a refused client", failureOf({ class: "client_rejected", code: "invalid_client", status: 401 })],
    ["the limit of one connection", failureOf({ class: "not_sent", code: "limit_reached", isOfClient: false })],
    ["a 400 for one connection", failureOf({ class: "refused_for_now", code: "provider_unavailable", status: 400 })],
  ])("does not take %s as trouble of the host", async (_is, failure) => {
    const stage = started();
    stage.add("own", 1);
    await stage.clock.pass(1000);
    stage.finishAll(failure);
    stage.add("own", 8);
    await stage.clock.pass(3000);
    expect(stage.runningOf("own")).toBe(8);
  });

  it("leaves the client alone that the limits hold back, and no other one at the same host", async () => {
    const stage = started({ random: () => 0.9 });
    stage.add("own", 1, { clientRef: "greedy" });
    await stage.clock.pass(2000);
    stage.finishAll(failureOf({ class: "not_sent", code: "limit_reached", isOfClient: true, retryAfterSeconds: 30 }));
    stage.add("own", 2, { clientRef: "greedy" });
    stage.add("own", 8, { clientRef: "modest" });
    await stage.clock.pass(5000);
    expect([stage.runningOf("own"), stage.postponed.length]).toEqual([8, 2]);
    expect(new Set([...stage.running.values()].map(({ row }) => row.clientRef))).toEqual(new Set(["modest"]));
  });

  it("gives a connection back that waited half a claim for its turn: another replica may have it", async () => {
    const stage = started();
    stage.add("own", 9);
    await stage.clock.pass(20_000);
    expect([stage.running.size, stage.postponed]).toEqual([8, []]);
    await stage.clock.pass(20_000);
    expect(stage.postponed).toHaveLength(1);
  });

  it("looks no more after a connection that only a person can help", async () => {
    const stage = started();
    stage.add("own", 1, { refreshToken: null });
    await stage.clock.pass(2000);
    expect([stage.postponed, stage.begun]).toEqual([[{ id: expect.any(String) as string, seconds: null }], []]);
  });

  it("notes once which tokens are read, and again after the store was away", async () => {
    const stage = started();
    stage.isStoreAway = true;
    stage.reads.note({ id: "a", generation: 1, inUse: false });
    await stage.clock.pass(5000);
    expect([stage.marked, stage.errors]).toEqual([[], []]);
    stage.isStoreAway = false;
    await stage.clock.pass(5000);
    expect(stage.marked).toEqual([[{ id: "a", generation: 1 }]]);
  });

  it("recovers before it sweeps, and sweeps although that fails", async () => {
    const stage = new Stage();
    const order: string[] = [];
    stage.recover = async () => {
      order.push(`recover, ${stage.claims.length} claims`);
      throw new Error("as scripted");
    };
    stage.sweeper.start();
    stage.add("own", 1);
    await stage.clock.pass(1000);
    expect([order[0], stage.begun.length]).toEqual(["recover, 0 claims", 1]);
    expect(stage.errors.length).toBeGreaterThan(0);
  });

  it("goes on after a fault, and reports it; an outage of the store is nobody's fault", async () => {
    const stage = started();
    stage.isStoreAway = true;
    await stage.clock.pass(10_000);
    expect(stage.errors).toEqual([]);
    stage.isStoreAway = false;
    stage.add("own", 1);
    await stage.clock.pass(2000);
    expect(stage.begun).toHaveLength(1);
  });

  it("opens its gate again after a refresh that failed by itself", async () => {
    const stage = started();
    stage.isFaulty = true;
    stage.add("own", 8);
    await stage.clock.pass(3000);
    expect(stage.errors).toHaveLength(8);
    stage.isFaulty = false;
    stage.add("own", 8);
    await stage.clock.pass(3000);
    expect(stage.runningOf("own")).toBe(8);
  });

  it("tidies once an hour", async () => {
    const stage = started();
    await stage.clock.pass(3_590_000);
    expect(stage.tidied).toBe(1);
    await stage.clock.pass(20_000);
    expect(stage.tidied).toBe(2);
  });

  it("of replicas that start together begins at a time of its own within a second", async () => {
    expect(await firstSweepMs(0)).toBeLessThanOrEqual(10);
    expect(await firstSweepMs(0.9)).toBeGreaterThanOrEqual(900);
  });

  it("claims nothing once it is stopped, puts back what has not begun, and lets go on what has", async () => {
    const stage = started();
    stage.add("own", 10);
    await stage.clock.pass(1000);
    expect(stage.running.size).toBe(8);
    stage.sweeper.stop();
    stage.add("own", 5);
    const claims = stage.claims.length;
    await stage.clock.pass(10_000);
    expect([stage.claims.length, stage.running.size, stage.postponed.length]).toEqual([claims, 8, 2]);
    stage.finishAll();
    await stage.clock.pass(60_000);
    expect([stage.begun.length, stage.clock.sleeping()]).toEqual([8, 0]);
  });

  it("gives back at once what it has claimed and the process does not begin any more, so that another replica need not wait", async () => {
    const stage = started();
    stage.isDraining = true;
    stage.add("own", 3);
    await stage.clock.pass(1000);
    expect([stage.begun, stage.postponed.map(({ seconds }) => seconds)]).toEqual([[], [0, 0, 0]]);
  });
});
