import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { UnreadableSecretError } from "../../../src/errors.ts";
import type { RefreshRules } from "../../../src/providers/format/definition.ts";
import { callerTimes } from "../../../src/time.ts";
import type { KnownConnection } from "../../../src/tokens/cache.ts";
import { freshUntilMs, isLive, judge, type Lifetime, type RefreshTiming, type Wish } from "../../../src/tokens/read.ts";
import { inSeconds, now, tokenRow } from "./token-row.ts";

const plain: RefreshTiming = { aheadFraction: 0.25, minAgeSeconds: 0 };
const wish = (minTtlSeconds: number): Wish => ({ minTtlSeconds, rejected: false });
const rejected: Wish = { minTtlSeconds: 0, rejected: true };
const hour: Lifetime = { issuedAtMs: 0, expiresAtMs: 3_600_000 };
const never: Lifetime = { issuedAtMs: 0, expiresAtMs: null };
const short: Lifetime = { issuedAtMs: 0, expiresAtMs: 20_000 };
const tooLong = ["min_ttl_exceeds_lifetime"];
const young = ["recently_refreshed"];

type Case = {
  is: string;
  lifetime?: Lifetime;
  wish: Wish;
  timing?: RefreshTiming;
  ageSeconds: number;
  verdict: { kind: string; usable?: boolean; warnings: string[] };
};

const cases: Case[] = [
  { is: "a new token is handed out", wish: wish(60), ageSeconds: 0, verdict: { kind: "fresh", warnings: [] } },
  {
    is: "in its last quarter it is handed out and refreshed behind it",
    wish: wish(60),
    ageSeconds: 2700,
    verdict: { kind: "due", warnings: [] },
  },
  {
    is: "just before its last quarter nothing is refreshed",
    wish: wish(60),
    ageSeconds: 2699,
    verdict: { kind: "fresh", warnings: [] },
  },
  {
    is: "with less left than wished it is refreshed first, and may be used if that fails",
    wish: wish(60),
    ageSeconds: 3541,
    verdict: { kind: "stale", usable: true, warnings: tooLong },
  },
  {
    is: "with exactly what is wished left it is good",
    wish: wish(60),
    ageSeconds: 3540,
    verdict: { kind: "due", warnings: [] },
  },
  {
    is: "at its end it may not be used",
    wish: wish(0),
    ageSeconds: 3600,
    verdict: { kind: "stale", usable: false, warnings: [] },
  },
  {
    is: "a millisecond before its end it may, where no more is wished",
    wish: wish(0),
    ageSeconds: 3599.999,
    verdict: { kind: "due", warnings: [] },
  },
  {
    is: "a wish beyond half of its life refreshes nothing in the first half, and is told so",
    wish: wish(86_400),
    ageSeconds: 1800,
    verdict: { kind: "fresh", warnings: tooLong },
  },
  {
    is: "a wish beyond half of its life counts as half of it",
    wish: wish(86_400),
    ageSeconds: 1801,
    verdict: { kind: "stale", usable: true, warnings: tooLong },
  },
  {
    is: "nothing is refreshed before the provider's minimal age, whatever is wished",
    wish: wish(86_400),
    timing: { aheadFraction: 0.9, minAgeSeconds: 3000 },
    ageSeconds: 2999,
    verdict: { kind: "fresh", warnings: tooLong },
  },
  {
    is: "a token that ran out before the minimal age is refreshed all the same",
    lifetime: short,
    wish: wish(0),
    timing: { aheadFraction: 0.25, minAgeSeconds: 3000 },
    ageSeconds: 20,
    verdict: { kind: "stale", usable: false, warnings: [] },
  },
  {
    is: "a token that was issued already over may not be used",
    lifetime: { issuedAtMs: 0, expiresAtMs: 0 },
    wish: wish(0),
    ageSeconds: 0,
    verdict: { kind: "stale", usable: false, warnings: [] },
  },
  {
    is: "a token that never expires is fresh after ten years",
    lifetime: never,
    wish: wish(86_400),
    ageSeconds: 315_360_000,
    verdict: { kind: "fresh", warnings: [] },
  },
  {
    is: "a rejected token of ten seconds is replaced",
    wish: rejected,
    ageSeconds: 10,
    verdict: { kind: "stale", usable: false, warnings: [] },
  },
  {
    is: "a rejected token of less than ten seconds is handed out again",
    wish: rejected,
    ageSeconds: 9.999,
    verdict: { kind: "fresh", warnings: young },
  },
  {
    is: "a rejected token counts as young for no more than a quarter of its life",
    lifetime: short,
    wish: rejected,
    ageSeconds: 5,
    verdict: { kind: "stale", usable: false, warnings: [] },
  },
  {
    is: "a rejected token that never expires is replaced as well",
    lifetime: never,
    wish: rejected,
    ageSeconds: 10,
    verdict: { kind: "stale", usable: false, warnings: [] },
  },
  {
    is: "a rejected token that was issued already over is not handed out again",
    lifetime: { issuedAtMs: 0, expiresAtMs: -1000 },
    wish: rejected,
    ageSeconds: 0,
    verdict: { kind: "stale", usable: false, warnings: [] },
  },
];

describe("what a read is told about the newest token", () => {
  it.each(cases)("$is", ({ lifetime = hour, wish: wished, timing = plain, ageSeconds, verdict }) => {
    expect(judge(lifetime, wished, { timing, nowMs: ageSeconds * 1000 })).toEqual(verdict);
  });

  it("a token is live until its end, and one that never expires always", () => {
    expect([isLive(hour, 3_599_999), isLive(hour, 3_600_000), isLive(never, Number.MAX_SAFE_INTEGER)]).toEqual([
      true,
      false,
      true,
    ]);
  });
});

const lifeMs = fc.integer({ min: 1, max: 10 * 365 * 86_400_000 });
const timings = fc.record({
  aheadFraction: fc.double({ min: 0, max: 0.9, noNaN: true }),
  minAgeSeconds: fc.integer({ min: 0, max: 86_400 }),
});
const wishes = fc.integer({ min: 0, max: 2_000_000_000 });
const share = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

describe("no loops", () => {
  it("after a refresh no wish asks for another one before half of the new token's life is over", () => {
    const given = fc.record({ life: lifeMs, minTtlSeconds: wishes, timing: timings, part: share });
    const property = fc.property(given, ({ life, minTtlSeconds, timing, part }) => {
      const lifetime = { issuedAtMs: 0, expiresAtMs: life };
      expect(judge(lifetime, wish(minTtlSeconds), { timing, nowMs: (part * life) / 2 }).kind).not.toBe("stale");
    });
    fc.assert(property, { numRuns: 2000 });
  });

  it("a rejection asks for another one no earlier than min(10 s, a quarter of its life)", () => {
    const property = fc.property(lifeMs, timings, share, (life, timing, part) => {
      const nowMs = part * Math.min(10_000, life / 4);
      const verdict = judge({ issuedAtMs: 0, expiresAtMs: life }, rejected, { timing, nowMs });
      expect(verdict).toEqual({ kind: "fresh", warnings: young });
    });
    fc.assert(property, { numRuns: 2000 });
  });

  it("callers who ask all the time, for whatever they like, cause at most two refreshes in a token's life", () => {
    const lives = fc.integer({ min: 1000, max: 7_200_000 });
    const callers = fc.array(fc.tuple(wishes, share), { minLength: 50, maxLength: 300 });
    const property = fc.property(lives, timings, callers, (life, timing, calls) => {
      let [nowMs, issuedAtMs, refreshes] = [0, 0, 0];
      for (const [minTtlSeconds, pause] of calls) {
        nowMs += pause * 0.2 * life;
        const lifetime = { issuedAtMs, expiresAtMs: issuedAtMs + life };
        if (judge(lifetime, wish(minTtlSeconds), { timing, nowMs }).kind !== "stale") continue;
        refreshes++;
        issuedAtMs = nowMs;
      }
      expect(refreshes).toBeLessThanOrEqual((2 * nowMs) / life + 1);
    });
    fc.assert(property, { numRuns: 300 });
  });

  it("a refresh that never expires is followed by none, by wish or ahead", () => {
    const property = fc.property(wishes, timings, fc.integer({ min: 0 }), (minTtlSeconds, timing, nowMs) => {
      expect(judge(never, wish(minTtlSeconds), { timing, nowMs })).toEqual({ kind: "fresh", warnings: [] });
    });
    fc.assert(property, { numRuns: 1000 });
  });

  it("nothing that has run out is ever called usable, and nothing that was rejected", () => {
    const times = fc.integer({ min: -1000, max: 100_000 });
    const wished = fc.record({ minTtlSeconds: wishes, rejected: fc.boolean() });
    const given = fc.record({ expiresAtMs: times, nowMs: times, wished, timing: timings });
    const property = fc.property(given, ({ expiresAtMs, nowMs, wished: asked, timing }) => {
      const verdict = judge({ issuedAtMs: 0, expiresAtMs }, asked, { timing, nowMs });
      const isHandedOut = verdict.kind !== "stale" || verdict.usable;
      if (isHandedOut) expect(nowMs).toBeLessThan(expiresAtMs);
      if (isHandedOut && asked.rejected) expect(verdict.warnings).toEqual(young);
    });
    fc.assert(property, { numRuns: 2000 });
  });
});

test("until a row's token is said to be fresh, judging it finds the same, with nothing to warn of; from then on something is to be done", () => {
  const seconds = fc.integer({ min: 1, max: 100_000 });
  const row = fc.record({
    lifeSeconds: fc.option(seconds),
    aheadFraction: fc.double({ min: 0, max: 0.9, noNaN: true }),
  });
  fc.assert(
    fc.property(row, seconds, fc.integer({ min: 0, max: 60 }), ({ lifeSeconds, aheadFraction }, age, minAgeSeconds) => {
      const rules = { aheadFraction, minAgeSeconds, oldAccessTokenDies: false } as RefreshRules;
      const expiresAt = lifeSeconds === null ? null : inSeconds(lifeSeconds);
      const found = {
        row: tokenRow({ issuedAt: now, expiresAt }),
        accessToken: "a",
        unreadable: null,
        askedAt: 0,
        asOf: null,
      };
      const untilMs = freshUntilMs(found, rules);
      const lifetime = { issuedAtMs: now.getTime(), expiresAtMs: expiresAt?.getTime() ?? null };
      const nowMs = inSeconds(age).getTime();
      const verdict = judge(lifetime, wish(callerTimes.minTtlSeconds), { timing: rules, nowMs });
      if (nowMs < untilMs) expect(verdict).toEqual({ kind: "fresh", warnings: [] });
      else expect(age < minAgeSeconds || verdict.kind !== "fresh" || verdict.warnings.length > 0).toBe(true);
    }),
  );
});

test.each<[string, Partial<KnownConnection>]>([
  ["has no access token that opens", { accessToken: null }],
  [
    "is not as this broker has written it",
    {
      unreadable: new UnreadableSecretError(
        { table: "connections", row: "r", column: "mac" },
        { keyId: null, reason: "does_not_open" },
      ),
    },
  ],
  ["is disabled", { row: tokenRow({ status: "disabled" }) }],
  ["has ended", { row: tokenRow({ status: "needs_reauthorization" }) }],
  ["is waiting", { row: tokenRow({ status: "pending" }) }],
  ["has a refresh that failed", { row: tokenRow({ lastErrorCode: "provider_unavailable" }) }],
  ["is exchanged for another token, whose warning it gets", { row: tokenRow({ grant: "token_exchange" }) }],
])("a row is never simply fresh that %s", (_is, changes) => {
  const found = {
    row: tokenRow({ issuedAt: now, expiresAt: inSeconds(86_400) }),
    accessToken: "a",
    unreadable: null,
    askedAt: 0,
    asOf: null,
  };
  expect(freshUntilMs(found, undefined)).toBeGreaterThan(now.getTime());
  expect(freshUntilMs({ ...found, ...changes }, undefined)).toBe(-Infinity);
});
