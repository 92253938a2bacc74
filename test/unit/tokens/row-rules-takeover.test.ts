import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { abandonedAtMs, mayTakeOver, type ReuseRules, takeoverOf } from "../../../src/tokens/row-rules.ts";
import { attemptedRow, inSeconds, now, tokenRow } from "./token-row.ts";

const rules = (reuse: ReuseRules["reuse"], graceSeconds = 0): ReuseRules => ({ reuse, graceSeconds });
const required = { need: "required", uninterruptedMs: 10_000 } as const;
const ahead = { need: "ahead", uninterruptedMs: 10_000 } as const;
const expired = { expiresAt: inSeconds(-1) };
const prompt = ["safe", "until_successor_used", "dead"] as const;

describe("whether an attempt without an owner may be taken over", () => {
  it.each(prompt)("promptly, where reuse is %s, once lease and quiet period are over", (reuse) => {
    expect(mayTakeOver(attemptedRow(9.999), rules(reuse), ahead)).toBe(false);
    expect(mayTakeOver(attemptedRow(10), rules(reuse), ahead)).toBe(true);
  });

  it("where a second use kills the family, only when the access token has run out or a caller needs a new one", () => {
    expect(mayTakeOver(attemptedRow(3600), rules("kills_family"), ahead)).toBe(false);
    expect(mayTakeOver(attemptedRow(10, expired), rules("kills_family"), ahead)).toBe(true);
    expect(mayTakeOver(attemptedRow(10), rules("kills_family"), required)).toBe(true);
    expect(mayTakeOver(attemptedRow(9), rules("kills_family"), required)).toBe(false);
    expect(mayTakeOver(attemptedRow(3600, { expiresAt: null }), rules("kills_family"), ahead)).toBe(false);
  });

  it("inside a grace window promptly and after 2 s, while a replay would still end inside it", () => {
    // The lease ended 2 s ago, so the first send was 32 s ago, and a replay may take until 30 s from now.
    expect(mayTakeOver(attemptedRow(2), rules("grace", 63), ahead)).toBe(true);
    expect(mayTakeOver(attemptedRow(1), rules("grace", 63), ahead)).toBe(false);
    expect(mayTakeOver(attemptedRow(2), rules("grace", 62), ahead)).toBe(false);
    expect(mayTakeOver(attemptedRow(2), rules("grace", 62), required)).toBe(false);
  });

  it("outside its grace window as where a second use kills the family", () => {
    expect(mayTakeOver(attemptedRow(10), rules("grace", 60), ahead)).toBe(false);
    expect(mayTakeOver(attemptedRow(10, expired), rules("grace", 60), ahead)).toBe(true);
    expect(mayTakeOver(attemptedRow(10), rules("grace", 60), required)).toBe(true);
  });

  it("the grace window counts from the first send whose outcome nobody knows, not from the latest replay", () => {
    const replayed = attemptedRow(2, { attemptStartedAt: inSeconds(-200) });
    expect(mayTakeOver(replayed, rules("grace", 120), ahead)).toBe(false);
  });

  it("a connection without a refresh token spends nothing, whatever its provider does with those", () => {
    expect(mayTakeOver(attemptedRow(10, { refreshToken: null }), rules("kills_family"), ahead)).toBe(true);
    expect(mayTakeOver(attemptedRow(2, { refreshToken: null }), rules("grace", 3600), ahead)).toBe(false);
  });

  it("not before this process has had ten seconds of Postgres without a gap", () => {
    const row = attemptedRow(3600, expired);
    expect(mayTakeOver(row, rules("safe"), { need: "required", uninterruptedMs: 9999 })).toBe(false);
    expect(mayTakeOver(row, rules("safe"), required)).toBe(true);
  });

  it("not while the row backs off, and not when it may not be refreshed at all", () => {
    const row = attemptedRow(3600, expired);
    expect(mayTakeOver({ ...row, backoffUntil: inSeconds(1) }, rules("safe"), required)).toBe(false);
    expect(mayTakeOver({ ...row, backoffUntil: now }, rules("safe"), required)).toBe(true);
    expect(mayTakeOver({ ...row, status: "disabled" }, rules("safe"), required)).toBe(false);
    expect(mayTakeOver({ ...row, status: "needs_reauthorization" }, rules("safe"), required)).toBe(false);
    expect(mayTakeOver({ ...row, status: "pending" }, rules("safe"), required)).toBe(false);
    expect(mayTakeOver({ ...row, status: "pending", grant: "password" }, rules("safe"), required)).toBe(true);
  });

  it("a free row has nothing to take over", () => {
    expect(mayTakeOver(tokenRow(), rules("safe"), required)).toBe(false);
    expect(takeoverOf(tokenRow(), rules("safe"), required)).toBeNull();
    expect(abandonedAtMs(tokenRow(), rules("safe"))).toBeNull();
  });

  it("an attempt is abandoned ten seconds after its lease, two inside a grace window", () => {
    const row = attemptedRow(0);
    expect(abandonedAtMs(row, rules("kills_family"))).toBe(inSeconds(10).getTime());
    expect(abandonedAtMs(row, rules("grace", 61))).toBe(inSeconds(2).getTime());
    expect(abandonedAtMs(row, rules("grace", 60))).toBe(inSeconds(10).getTime());
  });

  it("no rule ever allows it while the lease runs", () => {
    const reuses = fc.constantFrom(...prompt, "grace" as const, "kills_family" as const);
    const property = fc.property(
      reuses,
      fc.nat(86_400),
      fc.integer({ min: 1, max: 30_000 }),
      (reuse, graceSeconds, leftMs) => {
        const row = attemptedRow(-leftMs / 1000, { ...expired, attemptOutcome: "unknown" });
        expect(mayTakeOver(row, { reuse, graceSeconds }, required)).toBe(false);
      },
    );
    fc.assert(property);
  });
});
