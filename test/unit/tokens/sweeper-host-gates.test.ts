import { describe, expect, it } from "vitest";
import { createHostGates } from "../../../src/tokens/sweeper.ts";

const host = "login.example";
const busy = { retryAfterSeconds: undefined };

/** Gates with a limit of three, where full jitter always takes the whole back-off. */
function gatesAt() {
  const time = { nowMs: 50_000 };
  const gates = createHostGates({ perHost: 3, monotonicMs: () => time.nowMs, random: () => 1 });
  const enter = (count: number) => {
    for (let each = 0; each < count; each++) gates.enter(host);
  };
  return { gates, time, enter };
}

describe("a token host", () => {
  it("takes as many requests as its bound, and the next when one has come back", () => {
    const { gates, enter } = gatesAt();
    enter(2);
    expect(gates.isOpen(host)).toBe(true);
    enter(1);
    expect([gates.isOpen(host), gates.waitSeconds(host)]).toEqual([false, 0]);
    gates.leave(host);
    expect(gates.isOpen(host)).toBe(true);
  });

  it("has a bound of its own", () => {
    const { gates, enter } = gatesAt();
    enter(3);
    expect(gates.isOpen("other.example")).toBe(true);
  });

  it("in trouble is left alone ever longer, up to five minutes", () => {
    const { gates, time } = gatesAt();
    const waits = Array.from({ length: 11 }, () => {
      gates.enter(host);
      gates.leave(host, busy);
      const seconds = gates.waitSeconds(host);
      time.nowMs += seconds * 1000 - 1;
      expect(gates.isOpen(host)).toBe(false);
      time.nowMs += 1;
      expect(gates.isOpen(host)).toBe(true);
      return seconds;
    });
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
  });

  it("is left alone for as long as it asks", () => {
    const { gates } = gatesAt();
    gates.enter(host);
    gates.leave(host, { retryAfterSeconds: 77 });
    expect(gates.waitSeconds(host)).toBe(77);
  });

  it("is asked by one request after trouble, and by many once that has come back well", () => {
    const { gates, time, enter } = gatesAt();
    enter(1);
    gates.leave(host, busy);
    time.nowMs += 1000;
    enter(1);
    expect(gates.isOpen(host)).toBe(false);
    gates.leave(host);
    enter(2);
    expect(gates.isOpen(host)).toBe(true);
  });

  it("whose many requests fail together stays closed for the longest of their waits", () => {
    const { gates, enter } = gatesAt();
    enter(3);
    gates.leave(host, { retryAfterSeconds: 60 });
    gates.leave(host, busy);
    gates.leave(host, busy);
    expect(gates.waitSeconds(host)).toBe(60);
  });

  it("is left alone for as long as it asked although a request that was under way comes back well", () => {
    const { gates, enter } = gatesAt();
    enter(3);
    gates.leave(host, { retryAfterSeconds: 60 });
    gates.leave(host);
    expect([gates.waitSeconds(host), gates.isOpen(host)]).toEqual([60, false]);
  });

  it("that has come back well begins its back-off anew", () => {
    const { gates, time } = gatesAt();
    for (const trouble of [busy, busy, undefined, busy]) {
      gates.enter(host);
      gates.leave(host, trouble);
      time.nowMs += gates.waitSeconds(host) * 1000;
    }
    gates.enter(host);
    gates.leave(host, busy);
    expect(gates.waitSeconds(host)).toBe(2);
  });
});
