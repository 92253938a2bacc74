import { describe, expect, it } from "vitest";
import type { WakingSignal } from "../../../src/clock.ts";
import { BrokerError, DatabaseBusyError } from "../../../src/errors.ts";
import { createReadCache } from "../../../src/store/read-cache.ts";
import { storeTimes } from "../../../src/time.ts";

type Value = { name: string; at: number };
const gone = new BrokerError("storage_unavailable", "gone");

/** Lets everything happen that happens in this turn of the event loop. */
const turn = () => new Promise((resolve) => void setImmediate(resolve));

/** A cache on a table in memory. A test can delay the table's answers, or make the table unreachable. */
function cached({ maxEntries = 100, maxBytes = Infinity, outageMs = 60_000, confirms = false } = {}) {
  const table = new Map<string, number>();
  const kept = new Set<string>();
  const queries: string[][] = [];
  const confirmations: string[][] = [];
  const state: {
    nowMs: number;
    failure: Error | null;
    gate: Promise<void> | null;
  } = { nowMs: 0, failure: null, gate: null };
  const sleepers = new Set<{ untilMs: number; wake: () => void }>();
  /** Lets time pass and wakes those who wait for it. Setting `nowMs` alone wakes nobody. */
  const pass = async (ms: number) => {
    state.nowMs += ms;
    for (const sleeper of sleepers) {
      if (sleeper.untilMs > state.nowMs) continue;
      sleepers.delete(sleeper);
      sleeper.wake();
    }
    await turn();
    await turn();
  };
  const sleep = async (ms: number, signal?: WakingSignal) =>
    await new Promise<void>((resolve) => {
      const sleeper = { untilMs: state.nowMs + ms, wake: resolve };
      sleepers.add(sleeper);
      signal?.addEventListener("abort", () => void sleepers.delete(sleeper));
    });
  const cache = createReadCache<Value>({
    load: async (keys) => {
      queries.push(keys);
      const found = keys.flatMap((key) =>
        table.has(key) ? [[key, { name: key, at: table.get(key) ?? 0 }] as const] : [],
      );
      await state.gate;
      if (state.failure !== null) throw state.failure;
      return new Map(found);
    },
    clock: { monotonicMs: () => state.nowMs, sleep },
    trustMs: 4000,
    outageMs,
    maxEntries,
    maxBytes,
    bytesOf: ({ at }) => at,
    onKept: ({ name, at }) => void kept.add(`${name} ${at}`),
    onDropped: ({ name, at }) => void kept.delete(`${name} ${at}`),
    supersedes: (incoming, current) => incoming.at >= current.at,
    ...(confirms && {
      confirming: {
        isPossible: ({ name }) => name !== "never",
        changed: async (values) => {
          confirmations.push(values.map(({ name }) => name));
          const changed = values.filter(({ name, at }) => table.get(name) !== at);
          await state.gate;
          if (state.failure !== null) throw state.failure;
          return new Set(changed);
        },
      },
    }),
  });
  return { cache, table, kept, queries, confirmations, state, pass };
}

describe("a read cache", () => {
  it("a value is trusted for four seconds, then asked for again", async () => {
    const { cache, table, queries, state } = cached();
    table.set("a", 1);
    await cache.read("a");
    table.set("a", 2);
    state.nowMs = 4000;
    expect((await cache.read("a"))?.at).toBe(1);
    state.nowMs = 4001;
    expect((await cache.read("a"))?.at).toBe(2);
    expect(queries).toHaveLength(2);
  });

  it("trust counts from the asking, not from the answer", async () => {
    const { cache, table, queries, state } = cached();
    table.set("a", 1);
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    const slow = cache.read("a");
    await new Promise((resolve) => void setImmediate(resolve));
    state.nowMs = 3000;
    gate.resolve();
    await slow;
    state.nowMs = 4001;
    await cache.read("a");
    expect(queries).toHaveLength(2);
  });

  it("what is asked for at one moment is read by one query, each key once", async () => {
    const { cache, table, queries } = cached();
    for (const name of ["a", "b", "c"]) table.set(name, 1);
    const reads = ["a", "b", "a", "c", "b", "unknown"].map((name) => cache.read(name));
    expect((await Promise.all(reads)).map((value) => value?.name)).toEqual(["a", "b", "a", "c", "b", undefined]);
    expect(queries).toEqual([["a", "b", "c", "unknown"]]);
  });

  it("who comes while a key is being read shares the answer; who bypasses gets one that was asked for later", async () => {
    const { cache, table, queries, state } = cached();
    table.set("a", 1);
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    const first = cache.read("a");
    await new Promise((resolve) => void setImmediate(resolve));
    table.set("a", 2);
    const shared = cache.read("a");
    const bypassing = cache.read("a", { bypass: true });
    gate.resolve();
    expect([(await first)?.at, (await bypassing)?.at]).toEqual([1, 2]);
    expect((await shared)?.at).toBe(1);
    expect(queries).toEqual([["a"], ["a"]]);
  });

  it("a crowd that comes turn by turn while its key is being read costs one more query, which is asked after all have come", async () => {
    const { cache, table, queries, state } = cached();
    table.set("a", 1);
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    const crowd = [cache.read("a", { bypass: true })];
    for (let count = 0; count < 20; count++) {
      await turn();
      table.set("a", count + 2);
      crowd.push(cache.read("a", { bypass: true }));
    }
    await turn();
    expect(queries).toEqual([["a"]]);
    gate.resolve();
    expect((await Promise.all(crowd)).map((value) => value?.at)).toEqual([1, ...Array.from({ length: 20 }, () => 21)]);
    expect(queries).toEqual([["a"], ["a"]]);
  });

  it("who comes while a key is being read does not wait for a query that hangs", async () => {
    const { cache, table, queries, state, pass } = cached();
    table.set("a", 1);
    state.gate = Promise.withResolvers<void>().promise;
    void cache.read("a", { bypass: true });
    await turn();
    const second = cache.read("a", { bypass: true });
    await turn();
    expect(queries).toHaveLength(1);
    state.gate = null;
    await pass(storeTimes.readPatienceMs);
    expect([(await second)?.at, queries.length]).toEqual([1, 2]);
  });

  it("an answer that was overtaken by a newer one does not come back", async () => {
    const { cache, table, state } = cached();
    table.set("a", 1);
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    const slow = cache.read("a");
    await new Promise((resolve) => void setImmediate(resolve));
    cache.put("a", { name: "a", at: 5 });
    gate.resolve();
    expect((await slow)?.at).toBe(5);
    expect((await cache.read("a"))?.at).toBe(5);
  });

  it("while the database is gone a known value is handed out, and it is asked once a second beside the readers", async () => {
    const { cache, table, queries, state, pass } = cached();
    table.set("a", 1);
    await cache.read("a");
    state.failure = gone;
    state.nowMs = 5000;
    for (let read = 0; read < 10; read++) expect((await cache.read("a"))?.at).toBe(1);
    expect(queries).toHaveLength(2);
    await pass(1000);
    for (let read = 0; read < 10; read++) await cache.read("a");
    expect([queries.length, cache.isSilent()]).toEqual([3, true]);
    state.failure = null;
    table.set("a", 2);
    expect((await cache.read("a"))?.at).toBe(1);
    await pass(1000);
    expect([cache.isSilent(), (await cache.read("a"))?.at, queries.length]).toEqual([false, 2, 4]);
    await pass(60_000);
    expect(queries).toHaveLength(4);
  });

  it("when it comes back while nobody reads, the next reader gets what is there by then", async () => {
    const { cache, table, queries, state, pass } = cached();
    table.set("a", 1);
    await cache.read("a");
    state.failure = gone;
    state.nowMs = 5000;
    await cache.read("a");
    state.failure = null;
    table.delete("a");
    await pass(1000);
    expect(await cache.read("a")).toBeNull();
    // The cache stops asking when no more readers come.
    table.set("b", 1);
    await cache.read("b");
    await pass(5000);
    state.failure = gone;
    await cache.read("b");
    for (let second = 0; second < 100; second++) await pass(1000);
    const asked = queries.length;
    for (let second = 0; second < 100; second++) await pass(1000);
    expect([queries.length, asked < 50]).toEqual([asked, true]);
    state.failure = null;
    table.set("b", 2);
    expect((await cache.read("b"))?.at).toBe(2);
  });

  it("a value outlives the database for so long and no longer, counted from its last confirmation", async () => {
    const { cache, table, state } = cached({ outageMs: 60_000 });
    table.set("a", 1);
    await cache.read("a");
    state.failure = gone;
    state.nowMs = 60_000;
    expect((await cache.read("a"))?.at).toBe(1);
    state.nowMs = 60_001;
    await expect(cache.read("a")).rejects.toBe(gone);
  });

  it("what is not known here cannot be handed out while the database is gone, nor to who bypasses", async () => {
    const { cache, table, state } = cached();
    table.set("a", 1);
    await cache.read("a");
    state.failure = gone;
    await expect(cache.read("b")).rejects.toBe(gone);
    await expect(cache.read("a", { bypass: true })).rejects.toBe(gone);
  });

  it("a query that is itself at fault is no outage", async () => {
    const { cache, table, state } = cached();
    table.set("a", 1);
    await cache.read("a");
    state.failure = new TypeError("a fault");
    state.nowMs = 5000;
    await expect(cache.read("a")).rejects.toThrow("a fault");
  });

  it("names that do not exist are not kept: anybody can invent them", async () => {
    const { cache, table, queries, state } = cached();
    expect(await cache.read("a")).toBeNull();
    expect(await cache.read("a")).toBeNull();
    expect(queries).toHaveLength(2);
    table.set("a", 1);
    await cache.read("a");
    table.delete("a");
    state.nowMs = 5000;
    expect(await cache.read("a")).toBeNull();
    state.failure = gone;
    await expect(cache.read("a")).rejects.toBe(gone);
  });

  it("an expired entry is asked for at once, and still serves through an outage", async () => {
    const { cache, table, queries, state } = cached();
    table.set("a", 1);
    await cache.read("a");
    cache.expire("a");
    cache.expire("never seen");
    table.set("a", 2);
    expect((await cache.read("a"))?.at).toBe(2);
    cache.expire("a");
    state.failure = gone;
    expect((await cache.read("a"))?.at).toBe(2);
    expect(queries).toHaveLength(3);
  });

  it("at its limit the value that was confirmed longest ago goes", async () => {
    const { cache, table, queries } = cached({ maxEntries: 2 });
    for (const name of ["a", "b", "c"]) table.set(name, 1);
    await cache.read("a");
    await cache.read("b");
    cache.put("a", { name: "a", at: 2 });
    await cache.read("c");
    expect(queries).toHaveLength(3);
    await cache.read("a");
    expect(queries).toHaveLength(3);
    await cache.read("b");
    expect(queries).toEqual([["a"], ["b"], ["c"], ["b"]]);
  });

  it("it tells which values it keeps, and which no more: replaced, too many, forgotten or gone", async () => {
    const { cache, table, kept, state } = cached({ maxEntries: 2 });
    for (const name of ["a", "b", "c"]) table.set(name, 1);
    await cache.read("a");
    cache.put("a", { name: "a", at: 2 });
    cache.put("a", { name: "a", at: 1 });
    expect([...kept]).toEqual(["a 2"]);
    await cache.read("b");
    await cache.read("c");
    expect([...kept]).toEqual(["b 1", "c 1"]);
    cache.forget("b");
    table.delete("c");
    state.nowMs = 5000;
    await cache.read("c");
    expect([...kept]).toEqual([]);
  });

  it("beyond so many bytes those confirmed longest ago go, and the newest never", async () => {
    const { cache, table } = cached({ maxBytes: 100 });
    for (const [name, bytes] of Object.entries({ a: 40, b: 40, c: 60, d: 500 })) table.set(name, bytes);
    await cache.read("a");
    await cache.read("b");
    cache.put("b", { name: "b", at: 41 }); // its size counts once
    expect(cache.peek("a")?.at).toBe(40);
    await cache.read("c");
    expect([cache.peek("a"), cache.peek("b"), cache.peek("c")]).toMatchObject([null, null, { at: 60 }]);
    await cache.read("d");
    expect([cache.peek("c"), cache.peek("d")]).toMatchObject([null, { at: 500 }]);
    table.delete("d");
    await cache.read("d", { bypass: true });
    await cache.read("a");
    await cache.read("c");
    expect([cache.peek("a"), cache.peek("c")]).toMatchObject([{ at: 40 }, { at: 60 }]);
  });

  it("while the database hangs only who asked first waits, whatever others ask for, until it answers again", async () => {
    const { cache, table, queries, state, pass } = cached();
    const names = Array.from({ length: 50 }, (_none, index) => `k${index}`);
    for (const name of names) table.set(name, 1);
    await Promise.all(names.map((name) => cache.read(name)));
    state.nowMs = 5000;
    const hanging = Promise.withResolvers<void>();
    state.gate = hanging.promise;
    const over: string[] = [];
    const first = cache.read("k0").finally(() => over.push("first"));
    await turn();
    await pass(400);
    // A reader who comes while the first one waits does not wait longer than the first one.
    const beside = cache.read("k1").finally(() => over.push("beside"));
    await pass(99);
    expect([over, queries.length]).toEqual([[], 3]);
    await pass(1);
    expect([(await first)?.at, (await beside)?.at, cache.isSilent()]).toEqual([1, 1, true]);

    // No time passes here: no reader waits, and the table is not asked for a reader.
    for (const name of [...names, ...names]) expect((await cache.read(name))?.at).toBe(1);
    await turn();
    expect(queries).toHaveLength(3);
    for (let second = 0; second < 12; second++) {
      await pass(1000);
      for (const name of names) await cache.read(name);
    }
    expect(queries).toHaveLength(7); // one each three seconds: a second's pause, and two of patience

    table.set("k7", 2);
    hanging.resolve();
    await turn();
    expect([cache.isSilent(), (await cache.read("k7"))?.at]).toEqual([false, 2]);
  });

  it("a silence that nobody has looked into for a while says nothing of now: the next reader waits for an answer", async () => {
    const { cache, table, state } = cached();
    table.set("a", 1);
    await cache.read("a");
    state.nowMs = 5000;
    state.failure = gone;
    expect((await cache.read("a"))?.at).toBe(1);
    expect(cache.isSilent()).toBe(true);
    await turn();
    // The table answers again, and its row has changed. Nobody has asked it meanwhile.
    state.failure = null;
    table.delete("a");
    state.nowMs = 11_001;
    expect([cache.isSilent(), await cache.read("a")]).toEqual([false, null]);
  });

  it("one that cannot be read right now keeps no others from being asked for, and is handed out as it is known", async () => {
    const { cache, table, queries, state } = cached();
    for (const name of ["a", "b"]) table.set(name, 1);
    await Promise.all([cache.read("a"), cache.read("b")]);
    state.nowMs = 5000;
    state.failure = new DatabaseBusyError("XX001");
    for (let read = 0; read < 5; read++) expect((await cache.read("a"))?.at).toBe(1);
    expect([queries.length, cache.isSilent()]).toEqual([2, false]);
    state.failure = null;
    table.set("b", 2);
    expect((await cache.read("b"))?.at).toBe(2);
    state.failure = new DatabaseBusyError("XX001");
    await expect(cache.read("unknown")).rejects.toBe(state.failure);
  });

  it("an answer that was on its way when the key expired does not make it trusted again", async () => {
    const { cache, table, queries, state } = cached();
    table.set("a", 1);
    await cache.read("a");
    state.nowMs = 5000;
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    const late = cache.read("a");
    await new Promise((resolve) => void setImmediate(resolve));
    state.nowMs = 5100;
    table.set("a", 2);
    cache.expire("a");
    gate.resolve();
    expect((await late)?.at).toBe(1);
    expect((await cache.read("a"))?.at).toBe(2);
    expect(queries).toHaveLength(3);
  });
});

describe("a read cache that confirms what is in use", () => {
  it("confirms by one query what was read, before its trust ends, and no reader waits", async () => {
    const { cache, table, queries, confirmations, state, pass } = cached({ confirms: true });
    for (const name of ["a", "b", "never"]) table.set(name, 1);
    await Promise.all(["a", "b", "never"].map((name) => cache.read(name)));
    await pass(2500);
    expect(confirmations).toEqual([["a", "b"]]);
    state.nowMs = 6500;
    expect([cache.trusted("a")?.at, cache.trusted("b")?.at, cache.trusted("never")]).toEqual([1, 1, null]);
    state.nowMs = 6501;
    expect(cache.trusted("a")).toBeNull();
    expect(queries).toHaveLength(1);
  });

  it("what has changed, or is gone, is read again by its next reader", async () => {
    const { cache, table, pass } = cached({ confirms: true });
    for (const name of ["a", "b", "c"]) table.set(name, 1);
    await Promise.all(["a", "b", "c"].map((name) => cache.read(name)));
    table.set("a", 2);
    table.delete("b");
    await pass(2500);
    expect([cache.trusted("a"), cache.trusted("b"), cache.trusted("c")?.at]).toEqual([null, null, 1]);
    expect([(await cache.read("a"))?.at, await cache.read("b")]).toEqual([2, null]);
    await pass(2500);
    expect(cache.trusted("a")?.at).toBe(2);
  });

  it("trust counts from the asking", async () => {
    const { cache, table, state, pass } = cached({ confirms: true });
    table.set("a", 1);
    await cache.read("a");
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    await pass(2500);
    await pass(1400);
    gate.resolve();
    await turn();
    await turn();
    state.nowMs = 6500;
    expect(cache.trusted("a")?.at).toBe(1);
    state.nowMs = 6501;
    expect(cache.trusted("a")).toBeNull();
  });

  it.each(["expire", "forget"] as const)("an answer that was on its way at `%s` confirms nothing", async (act) => {
    const { cache, table, queries, state, pass } = cached({ confirms: true });
    table.set("a", 1);
    await cache.read("a");
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    await pass(2500);
    state.nowMs = 2600;
    cache[act]("a");
    gate.resolve();
    await turn();
    await turn();
    expect(cache.trusted("a")).toBeNull();
    await cache.read("a");
    expect(queries).toHaveLength(2);
  });

  it("after an answer that did not come nothing is confirmed that was read before it", async () => {
    const { cache, table, confirmations, state, pass } = cached({ confirms: true });
    const names = Array.from({ length: 3000 }, (_none, index) => `k${index}`);
    for (const name of names) table.set(name, 1);
    const many = cached({ confirms: true, maxEntries: 10_000 });
    for (const name of names) many.table.set(name, 1);
    await Promise.all(names.map((name) => many.cache.read(name)));
    many.state.failure = gone;
    await many.pass(2500);
    expect(many.confirmations).toHaveLength(1);

    await cache.read("k0");
    state.failure = gone;
    await pass(2500);
    state.failure = null;
    await cache.read("k1");
    await pass(2500);
    expect(confirmations).toEqual([["k0"], ["k1"]]);
    expect([cache.trusted("k0"), cache.trusted("k1")?.at]).toEqual([null, 1]);
  });

  it("what nobody has read for a minute is confirmed no more, and what is read again is", async () => {
    const { cache, table, confirmations, pass } = cached({ confirms: true });
    table.set("a", 1);
    await cache.read("a");
    for (let round = 0; round < 40; round++) await pass(2500);
    expect(confirmations).toHaveLength(24);
    expect(cache.trusted("a")).toBeNull();
    await cache.read("a");
    await pass(2500);
    expect(confirmations).toHaveLength(25);
    cache.stop();
    await pass(2500);
    await cache.read("a");
    await pass(2500);
    expect(confirmations).toHaveLength(25);
  });

  it("five thousand values are confirmed by three queries", async () => {
    const { cache, table, queries, confirmations, pass } = cached({ confirms: true, maxEntries: 10_000 });
    const names = Array.from({ length: 5000 }, (_none, index) => `k${index}`);
    for (const name of names) table.set(name, 1);
    await Promise.all(names.map((name) => cache.read(name)));
    await pass(2500);
    await turn();
    await turn();
    expect(confirmations.map((each) => each.length)).toEqual([2000, 2000, 1000]);
    expect(queries).toHaveLength(1);
  });

  it("at its limit a value that was read since goes later than one that was not", async () => {
    const { cache, table, state } = cached({ maxEntries: 2 });
    for (const name of ["a", "b", "c"]) table.set(name, 1);
    await cache.read("a");
    await cache.read("b");
    state.nowMs = 10;
    cache.trusted("a");
    await cache.read("c");
    expect([cache.peek("a")?.at, cache.peek("b"), cache.peek("c")?.at]).toEqual([1, null, 1]);
  });

  it("at its limit something goes, even if everything was read since", async () => {
    const { cache, table, state } = cached({ maxEntries: 20 });
    const names = Array.from({ length: 21 }, (_none, index) => `k${index}`);
    for (const name of names) table.set(name, 1);
    for (const name of names.slice(0, 20)) await cache.read(name);
    state.nowMs = 10;
    for (const name of names.slice(0, 20)) cache.trusted(name);
    await cache.read("k20");
    expect(names.filter((name) => cache.peek(name) === null)).toEqual(["k8"]);
  });
});
