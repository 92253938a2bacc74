import { setImmediate } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { createGate, createSingleFlight, shareReads } from "../../src/concurrency.ts";

describe("a gate", () => {
  it("so many are let in at once, and the others in the order in which they came", async () => {
    const gate = createGate(2);
    const entered: number[] = [];
    const come = async (number: number) => {
      await gate.enter();
      entered.push(number);
    };
    const all = [1, 2, 3, 4].map(come);
    await setImmediate();
    expect(entered).toEqual([1, 2]);
    gate.leave();
    await setImmediate();
    expect(entered).toEqual([1, 2, 3]);
    gate.leave();
    await Promise.all(all);
    expect(entered).toEqual([1, 2, 3, 4]);
  });

  it("who does not get in before its patience ends has not taken a place", async () => {
    const gate = createGate(1);
    expect(await gate.enter(1)).toBe(true);
    expect(await gate.enter(1)).toBe(false);
    gate.leave();
    expect(await gate.enter(1)).toBe(true);
  });
});

function flightsByHand() {
  const flights = createSingleFlight<string>();
  const started: string[] = [];
  const gates = new Map<string, PromiseWithResolvers<string>>();
  const start = (name: string) => () => {
    started.push(name);
    const opened = Promise.withResolvers<string>();
    gates.set(name, opened);
    return opened.promise;
  };
  const open = (name: string) => gates.get(name)?.resolve(name);
  const fail = (name: string) => gates.get(name)?.reject(new Error(name));
  return { flights, started, start, open, fail };
}

describe("a single flight", () => {
  it("five hundred callers of one key cause one run and share its result", async () => {
    const { flights, started, start, open } = flightsByHand();
    const callers = Array.from({ length: 500 }, () => flights.run("a:1", start("first")));
    open("first");
    expect(new Set(await Promise.all(callers))).toEqual(new Set(["first"]));
    expect(started).toEqual(["first"]);
  });

  it("another key runs beside it", async () => {
    const { flights, started, start, open } = flightsByHand();
    const both = [flights.run("a:1", start("first")), flights.run("a:2", start("second"))];
    open("second");
    expect(await both[1]).toBe("second");
    open("first");
    expect(await both[0]).toBe("first");
    expect(started).toEqual(["first", "second"]);
  });

  it("who comes after the end causes a new run, also after a failure", async () => {
    const { flights, started, start, open, fail } = flightsByHand();
    const callers = [flights.run("a", start("first")), flights.run("a", start("never"))];
    fail("first");
    const results = await Promise.allSettled(callers);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(flights.isRunning("a")).toBe(false);
    const again = flights.run("a", start("again"));
    open("again");
    expect(await again).toBe("again");
    expect(started).toEqual(["first", "again"]);
  });

  it("settled waits for every run, those that start meanwhile and those that fail included", async () => {
    const { flights, start, open, fail } = flightsByHand();
    const first = flights.run("a", start("first"));
    let isSettled = false;
    const idle = flights.idle().then(() => (isSettled = true));
    const second = first.catch(() => flights.run("b", start("second")));
    fail("first");
    await expect(first).rejects.toThrow("first");
    await Promise.resolve();
    expect(isSettled).toBe(false);
    open("second");
    await second;
    await idle;
    expect(flights.isRunning("b")).toBe(false);
  });
});

function readsByHand() {
  const begun: { key: string; answer: (value: string) => void; fail: (error: Error) => void }[] = [];
  const read = shareReads<string>((key) => new Promise((answer, fail) => void begun.push({ key, answer, fail })));
  return { begun, read };
}

describe("shared reads", () => {
  it("whoever comes while one is under way gets the next one, with all others that came meanwhile", async () => {
    const { begun, read } = readsByHand();
    const first = read("a");
    const late = [read("a"), read("a"), read("a")];
    const other = read("b");
    expect(begun.map(({ key }) => key)).toEqual(["a", "b"]);
    begun[0]?.answer("old");
    begun[1]?.answer("b");
    expect([await first, await other]).toEqual(["old", "b"]);
    await setImmediate();
    expect(begun).toHaveLength(3);
    begun[2]?.answer("new");
    expect(await Promise.all(late)).toEqual(["new", "new", "new"]);
    const last = read("a");
    begun[3]?.answer("newest");
    expect(await last).toBe("newest");
  });

  it("those that share one that fails get its error, and the next one begins anew", async () => {
    const { begun, read } = readsByHand();
    const first = read("a");
    const late = Promise.allSettled([read("a"), read("a")]);
    begun[0]?.fail(new Error("first"));
    await expect(first).rejects.toThrow("first");
    await setImmediate();
    begun[1]?.fail(new Error("second"));
    expect((await late).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    const last = read("a");
    begun[2]?.answer("well");
    expect(await last).toBe("well");
  });
});
