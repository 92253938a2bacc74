import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { keptForOthers, turnSeconds, type LimitRules } from "../../../src/store/request-limits.ts";
import { SimDatabase } from "../../support/simulation/sim-database.ts";

// The store in memory. test/contract/store-model.test.ts compares it with the SQL.

type Ask = { client: string; kind?: "refresh" | "first" | "person" };

/** One key, and the clients that share it. Its time is moved by hand. */
class Shared {
  nowMs = Date.UTC(2026, 10, 20, 12);
  readonly key = "token_host:login.example";
  readonly #database = new SimDatabase(() => this.nowMs);
  readonly #rules: LimitRules;

  constructor(rules: Partial<LimitRules>) {
    this.#rules = { concurrency: null, spacingMs: 0, maxPerWindow: null, ...rules };
  }

  get row() {
    return this.#database.tables.limits.get(this.key);
  }

  pass(seconds: number): this {
    this.nowMs += seconds * 1000;
    return this;
  }

  /** Asks, and is answered by the provider at once: 0, or the wait. */
  ask({ client, kind = "refresh" }: Ask, { answered = true } = {}): number {
    const times = { travelSeconds: 5, leaseSeconds: 30 };
    const request = { key: this.key, rules: this.#rules, client, provider: "own", kind, ...times };
    const admission = this.#database.limits.admit(request);
    if (admission.admitted === null) return admission.waitSeconds;
    if (answered) this.#database.limits.closeAdmission(admission.admitted, { sent: true, closeSeconds: 0 });
    return 0;
  }

  /** How many are let through, one after the other. */
  takes(client: string, kind: Ask["kind"] = "refresh"): number {
    for (let taken = 0; ; taken++) if (taken > 1000 || this.ask({ client, kind }) > 0) return taken;
  }

  /** Of each client, what it has in a window. */
  held(client: string): number {
    return this.row?.seen.filter((one) => one.client === client).length ?? 0;
  }
}

const window = (requests: number, seconds = 600) => ({ maxPerWindow: { requests, seconds } });

describe("a client that shares a limit", () => {
  it.each([1, 2, 3, 4, 8, 10, 100])(
    "has the whole of %i while it is alone, and again a day after the other",
    (requests) => {
      const shared = new Shared(window(requests));
      shared.ask({ client: "modest" });
      shared.pass(86_401);
      expect(shared.takes("greedy")).toBe(requests);
    },
  );

  it.each([
    { requests: 1, kept: 0 },
    { requests: 2, kept: 1 },
    { requests: 3, kept: 1 },
    { requests: 4, kept: 1 },
    { requests: 8, kept: 2 },
    { requests: 10, kept: 2 },
    { requests: 100, kept: 25 },
  ])("leaves $kept of $requests to another that has asked within a day", ({ requests, kept }) => {
    const shared = new Shared(window(requests));
    shared.ask({ client: "modest" });
    shared.pass(3600);
    expect([shared.takes("greedy"), shared.takes("modest")]).toEqual([requests - kept, kept]);
  });

  it("leaves nothing more to one that has had its part", () => {
    const shared = new Shared(window(8));
    expect([shared.takes("modest"), shared.takes("greedy")]).toEqual([8, 0]);
    shared.pass(601);
    expect([shared.ask({ client: "modest" }), shared.ask({ client: "modest" }), shared.takes("greedy")]).toEqual([
      0, 0, 6,
    ]);
  });

  it("shares what is kept in equal parts, and with more clients than parts each part is for who holds none", () => {
    const shared = new Shared(window(12));
    for (const client of ["a", "b", "greedy"]) shared.ask({ client });
    shared.pass(3600);
    expect([shared.takes("greedy"), shared.takes("a"), shared.takes("b")]).toEqual([10, 1, 1]);
    const crowded = new Shared(window(8));
    for (const client of ["a", "b", "c", "d", "greedy"]) crowded.ask({ client });
    crowded.pass(3600);
    expect([crowded.takes("greedy"), crowded.takes("a"), crowded.takes("b"), crowded.takes("c")]).toEqual([6, 1, 1, 0]);
  });

  it("keeps what has never worked to half, and that leaves the parts alone", () => {
    const shared = new Shared(window(8));
    shared.ask({ client: "modest" });
    shared.pass(3600);
    expect([shared.takes("greedy", "first"), shared.takes("greedy"), shared.takes("modest")]).toEqual([4, 2, 2]);
  });

  it.each([1, 2, 3, 4, 8, 10, 40])(
    "with codes that anybody may make up leaves a quarter of %i to its own renewals where it is alone",
    (requests) => {
      const shared = new Shared(window(requests));
      const kept = keptForOthers({ concurrency: null, spacingMs: 0, ...window(requests) });
      expect([shared.takes("crowded", "person"), shared.takes("crowded")]).toEqual([requests - kept, kept]);
    },
  );

  it("with such codes takes nothing of another's part, nor its turn, and its own before its renewals", () => {
    const shared = new Shared(window(8));
    shared.ask({ client: "modest" });
    shared.pass(3600);
    expect([shared.takes("crowded", "person"), shared.takes("modest")]).toEqual([6, 2]);
    shared.pass(601);
    expect([shared.takes("modest"), shared.takes("crowded", "person"), shared.takes("crowded")]).toEqual([6, 2, 0]);
    const single = new Shared(window(1, 60));
    single.ask({ client: "crowded", kind: "person" });
    expect([single.ask({ client: "modest" }), single.pass(1).ask({ client: "crowded", kind: "person" })]).toEqual([
      60, 59,
    ]);
    single.pass(59);
    expect([single.ask({ client: "crowded", kind: "person" }) > 0, single.ask({ client: "modest" })]).toEqual([
      true,
      0,
    ]);
  });

  it("is told when it will be let through, if nobody else comes: not before, and then it is", () => {
    const shared = new Shared(window(8));
    shared.ask({ client: "modest" });
    shared.pass(3600);
    for (let taken = 0; taken < 6; taken++) shared.pass(10).ask({ client: "greedy" });
    shared.pass(10).ask({ client: "modest" });
    const wait = shared.ask({ client: "greedy" });
    expect(wait).toBe(540);
    expect(shared.pass(wait - 1).ask({ client: "greedy" })).toBe(1);
    expect(shared.pass(1).ask({ client: "greedy" })).toBe(0);
  });

  it.each([
    { rules: window(1, 60), opens: 60 },
    { rules: { spacingMs: 3000 }, opens: 3 },
  ])("that has waited is let through before one that was let through meanwhile: $rules", ({ rules, opens }) => {
    const shared = new Shared(rules);
    const greedy = { client: "greedy" };
    shared.ask(greedy);
    expect([shared.ask({ client: "modest" }), shared.pass(1).ask(greedy) >= opens - 1]).toEqual([opens, true]);
    shared.pass(opens - 1);
    expect(shared.ask(greedy)).toBeGreaterThan(0);
    expect([shared.ask({ client: "first", kind: "first" }) > 0, shared.ask({ client: "modest" })]).toEqual([true, 0]);
    shared.pass(opens);
    expect([shared.ask({ client: "modest" }) > 0, shared.ask(greedy)]).toEqual([true, 0]);
  });

  it("takes turns for the requests at a time, too", () => {
    const shared = new Shared({ concurrency: 1 });
    shared.ask({ client: "greedy" }, { answered: false });
    expect(shared.pass(29).ask({ client: "modest" })).toBe(1);
    shared.pass(1); // its answer never came
    expect([shared.ask({ client: "greedy" }) > 0, shared.ask({ client: "modest" })]).toEqual([true, 0]);
  });

  it("keeps others waiting for no longer than one request takes when it does not come", () => {
    const shared = new Shared(window(1, 20));
    shared.ask({ client: "greedy" });
    shared.ask({ client: "gone" });
    shared.pass(20);
    expect(shared.ask({ client: "greedy" })).toBe(20);
    expect(shared.pass(20).ask({ client: "greedy" })).toBe(0);
  });

  it("is one of 64 that the row holds at most", () => {
    const shared = new Shared(window(5));
    for (let index = 0; index < 200; index++) shared.pass(1).ask({ client: `client-${index}` });
    expect([shared.row?.clients.length, shared.row?.clients[0]?.client]).toEqual([64, "client-199"]);
    expect(shared.row?.seen.length).toBeLessThanOrEqual(5);
  });
});

const clients = ["a", "b", "c"];
const asks = fc.array(
  fc.record({
    client: fc.constantFrom(...clients, "a", "a", "a"),
    passSeconds: fc.constantFrom(0, 0, 0, 0, 1, 5, 30, 61, 200, 600),
    kind: fc.constantFrom<NonNullable<Ask["kind"]>>("refresh", "refresh", "first", "person"),
  }),
  { minLength: 20, maxLength: 120 },
);

describe("whatever three clients ask, and when", () => {
  it("no more is let through than the window bears, and who holds less than its part is let through at once", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 24 }), asks, (requests, all) => {
        const rules = window(requests);
        const shared = new Shared(rules);
        for (const client of clients) shared.ask({ client });
        shared.pass(601); // now all clients are known, and no request counts any more
        const kept = keptForOthers({ concurrency: null, spacingMs: 0, ...rules });
        const part = Math.floor(kept / Math.min(2, kept));
        for (const { client, passSeconds, kind } of all) {
          shared.pass(passSeconds);
          shared.ask({ client, kind });
          const inWindow = shared.row?.seen.filter(({ at }) => at + 600_000 > shared.nowMs) ?? [];
          expect(inWindow.length).toBeLessThanOrEqual(requests);
          if (kept < 2) continue;
          // Each client that has had less than its part finds room for the rest of its part.
          const lacking = clients.map((one) =>
            Math.max(0, part - inWindow.filter((seen) => seen.client === one).length),
          );
          const lacks = lacking.reduce((sum, one) => sum + one, 0);
          expect(requests - inWindow.length).toBeGreaterThanOrEqual(lacks);
        }
      }),
    );
  });

  it("a client that comes when it is told waits for one request of each other one at most", () => {
    const spacings = fc.constantFrom<Partial<LimitRules>>(window(1, 10), window(1, 300), window(2, 60), {
      spacingMs: 3000,
    });
    fc.assert(
      fc.property(spacings, fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 60 }), (rules, noise) => {
        const shared = new Shared(rules);
        const one = turnSeconds({ concurrency: null, spacingMs: 0, maxPerWindow: null, ...rules });
        for (const client of clients) shared.ask({ client });
        for (const index of noise) shared.pass(index).ask({ client: clients[index % 2] ?? "a" });
        let passedOver = 0;
        for (let tries = 0; ; tries++) {
          // At the exact moment when client c comes, there may be room for more than one.
          const beside = ["a", "b"].filter((client) => shared.ask({ client }) === 0).length;
          const wait = shared.ask({ client: "c" });
          if (wait === 0) break;
          expect(tries).toBeLessThan(8);
          passedOver += tries === 0 ? 0 : beside;
          const endMs = shared.nowMs + wait * 1000;
          for (;;) {
            shared.pass(Math.min(Math.ceil(one / 7), (endMs - shared.nowMs) / 1000));
            if (shared.nowMs >= endMs) break;
            passedOver += ["a", "b"].filter((client) => shared.ask({ client }) === 0).length;
          }
        }
        expect(passedOver).toBeLessThanOrEqual(2);
      }),
    );
  });
});
