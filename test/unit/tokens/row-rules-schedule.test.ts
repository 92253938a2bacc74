import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type EndTimes, scheduleRefresh } from "../../../src/tokens/row-rules.ts";
import { inSeconds, now } from "./token-row.ts";

const daySeconds = 86_400;
type Rules = Parameters<typeof scheduleRefresh>[1];

const rules = (changes: Partial<Rules> = {}): Rules => ({
  aheadFraction: 0.25,
  minAgeSeconds: 0,
  idleLifeSeconds: null,
  absoluteLifeSeconds: null,
  ...changes,
});

const ends = (changes: Partial<EndTimes> = {}): EndTimes => ({
  issuedAt: now,
  expiresAt: inSeconds(1000),
  refreshTokenExpiresAt: null,
  authorizedAt: null,
  ...changes,
});

const due = (given: EndTimes, of: Rules, random = 0.5) => scheduleRefresh(given, of, () => random).refreshDueAt;
const keepAlive = (given: EndTimes, of: Rules, random = 0.5) => scheduleRefresh(given, of, () => random).keepAliveAt;

describe("a token that is read", () => {
  it("is due at three quarters of its life, give or take a twentieth", () => {
    expect([0, 0.5, 1].map((random) => due(ends(), rules(), random))).toEqual([700, 750, 800].map(inSeconds));
  });

  it("is due as far ahead as its provider's definition says", () => {
    expect(due(ends(), rules({ aheadFraction: 0.5 }))).toEqual(inSeconds(500));
    expect(due(ends(), rules({ aheadFraction: 1 }), 0)).toEqual(now);
  });

  it("is not due before its provider's least age, and one that never ends is not due at all", () => {
    expect(due(ends(), rules({ minAgeSeconds: 900 }))).toEqual(inSeconds(900));
    expect(due(ends({ expiresAt: null }), rules())).toBeNull();
  });

  it("that was over when it was issued is due at once, not before", () => {
    expect(due(ends({ expiresAt: inSeconds(-60) }), rules())).toEqual(now);
  });
});

describe("a refresh token that nobody reads for", () => {
  it("is kept alive a tenth to a fifth of its idle life before the end, and at most two days", () => {
    const idle = rules({ idleLifeSeconds: 1000 });
    expect([0, 0.5, 1].map((random) => keepAlive(ends(), idle, random))).toEqual([900, 850, 800].map(inSeconds));
    const long = rules({ idleLifeSeconds: 90 * daySeconds });
    expect([0, 1].map((random) => keepAlive(ends(), long, random))).toEqual(
      [89, 88].map((day) => inSeconds(day * daySeconds)),
    );
  });

  it("is not refreshed for its own sake where nothing ends", () => {
    expect(keepAlive(ends(), rules())).toBeNull();
  });

  it("is kept alive before the first of its ends: idle, absolute from the day of the grant, or as stated", () => {
    const both = rules({ idleLifeSeconds: 1000, absoluteLifeSeconds: 1000 });
    expect(keepAlive(ends({ authorizedAt: inSeconds(-500) }), both)).toEqual(inSeconds(350));
    expect(keepAlive(ends({ authorizedAt: null }), both)).toEqual(inSeconds(850));
    expect(keepAlive(ends({ refreshTokenExpiresAt: inSeconds(200) }), both)).toEqual(inSeconds(170));
  });

  it("whose time had come before this very refresh is not due for ever", () => {
    const absolute = rules({ absoluteLifeSeconds: 1000 });
    expect(keepAlive(ends({ authorizedAt: inSeconds(-900) }), absolute)).toBeNull();
    const idleToo = rules({ absoluteLifeSeconds: 1000, idleLifeSeconds: 100 });
    expect(keepAlive(ends({ authorizedAt: inSeconds(-900) }), idleToo)).toEqual(inSeconds(85));
  });

  it("is not asked for before its provider's least age", () => {
    expect(keepAlive(ends(), rules({ idleLifeSeconds: 1000, minAgeSeconds: 990 }))).toEqual(inSeconds(990));
  });

  it("always comes after its issue and before its end, for any lives and any chance", () => {
    const seconds = fc.integer({ min: 1, max: 400 * daySeconds });
    const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    const property = fc.property(seconds, fc.option(seconds), chance, (idleLifeSeconds, stated, random) => {
      const given = ends({ refreshTokenExpiresAt: stated === null ? null : inSeconds(stated) });
      const at = keepAlive(given, rules({ idleLifeSeconds }), random);
      expect(at?.getTime()).toBeGreaterThan(now.getTime());
      expect(at?.getTime()).toBeLessThan(inSeconds(Math.min(idleLifeSeconds, stated ?? Infinity)).getTime());
    });
    fc.assert(property);
  });
});
