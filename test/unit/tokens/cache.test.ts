import { createHash, randomUUID } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { BrokerError, UnreadableSecretError } from "../../../src/errors.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import { createDatabaseClock, createTokenCache } from "../../../src/tokens/cache.ts";
import { placeOf } from "../../../src/tokens/seal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { noAlarms } from "../../support/unasked.ts";
import { fakeClock } from "./fake-clock.ts";
import { inSeconds, tokenRow } from "./token-row.ts";

const vault = createTokenVault(createKeyring([{ id: "k1", key: createHash("sha256").update("cache tests").digest() }]));

/** A row whose access token names its id and generation, read so many seconds from `now`. */
function row(generation: number, readSeconds: number, changes: Partial<TokenRow> & { token?: string } = {}): TokenRow {
  const { token, ...changed } = changes;
  const plain = tokenRow({ generation, now: inSeconds(readSeconds), ...changed });
  const tokens = { accessToken: token ?? `${plain.id} ${generation}`, refreshToken: null };
  return { ...plain, ...vault.sealTokens(tokens, placeOf(plain)), mac: vault.connections.sign(plain) };
}

function caching() {
  const clock = fakeClock();
  const state = {
    table: [] as TokenRow[],
    isGone: false,
    queries: 0,
    delay: null as Promise<void> | null,
    asOf: null as string | null,
    now: inSeconds(0),
    onConfirm: () => {},
  };
  const rows = {
    readByName: async (names: readonly string[]) => {
      state.queries++;
      if (state.isGone) throw new BrokerError("storage_unavailable", "gone");
      const found = state.table.filter(({ name }) => names.includes(name));
      if (state.delay !== null) await state.delay;
      return found.map((each) => ({ row: each, asOf: state.asOf }));
    },
    changedSince: async () => {
      state.onConfirm();
      return { now: state.now, ids: [] };
    },
  } as unknown as TokenStatements;
  const databaseClock = createDatabaseClock(clock);
  const cache = createTokenCache({ rows, vault, clock, databaseClock, alarms: noAlarms });
  const generation = async () => (await cache.read("acme"))?.row.generation;
  return { cache, clock, state, databaseClock, generation };
}

describe("what a replica knows of connections", () => {
  it("a token is opened once it is read, and Postgres's time learned with it", async () => {
    const { cache, state, databaseClock } = caching();
    state.table = [row(3, 100)];
    expect((await cache.read("acme"))?.accessToken).toBe(`${tokenRow().id} 3`);
    expect(databaseClock.nowMs()).toBe(inSeconds(100).getTime());
    expect(await cache.read("nobody")).toBeNull();
  });

  it.each(["a\nb", "caf\u00e9", "\u0000", "a\tb", "\u007f"])(
    "a token that no header can carry is none: %j",
    async (token) => {
      const { cache, state } = caching();
      state.table = [row(3, 100, { token })];
      expect(await cache.read("acme")).toMatchObject({ accessToken: null, unreadable: null });
    },
  );

  it("large tokens are not kept beyond 128 MiB of them", async () => {
    const { cache, state } = caching();
    const large = "a".repeat(1_000_000);
    const names = Array.from({ length: 140 }, (_, index) => `large-${index}`);
    for (const name of names) cache.learn(row(1, 10, { name, id: randomUUID(), token: large }));
    state.table = [];
    await cache.read("large-139");
    expect(state.queries).toBe(0);
    await cache.read("large-0");
    expect(state.queries).toBe(1);
  });

  it("what is confirmed also says what time it is for Postgres: rows may be confirmed for days without being read", async () => {
    const { cache, state, databaseClock } = caching();
    const { promise: asked, resolve } = Promise.withResolvers<void>();
    state.asOf = "1";
    state.table = [row(3, 100)];
    state.now = inSeconds(110);
    state.onConfirm = () => {
      cache.stop();
      resolve();
    };
    await cache.read("acme");
    await asked;
    await setImmediate();
    expect([state.queries, databaseClock.nowMs()]).toEqual([1, inSeconds(110).getTime()]);
  });

  it("the sealed access token is not kept beside the opened one, and who learned of the row has it all", async () => {
    const { cache, state } = caching();
    const stored = row(3, 100);
    expect(cache.learn(stored).row.accessToken).toEqual(stored.accessToken);
    state.table = [row(4, 100, { name: "other" })];
    const found = [await cache.read("acme"), await cache.read("other")];
    expect(found.map((each) => each?.row.accessToken)).toEqual([new Uint8Array(), new Uint8Array()]);
    expect(found.map((each) => each?.accessToken)).toEqual([`${stored.id} 3`, `${stored.id} 4`]);
    expect(found.map((each) => each?.row.refreshToken)).toEqual([null, null]);
    const open = () => vault.openAccessToken(found[0]?.row.accessToken ?? new Uint8Array(), placeOf(stored));
    expect(open).toThrow(UnreadableSecretError);
  });

  it("whoever looks at a row in memory finds all of it", async () => {
    const { cache, state } = caching();
    const lists = { scopes: ["a", "b"], grantedScopes: ["a"], labels: { team: "x" }, captured: { realm: "7" } };
    const stored = row(3, 100, { ...lists, backoffUntil: inSeconds(7), credentials: new Uint8Array([1, 2]) });
    state.table = [stored];
    const expected = { ...stored, accessToken: new Uint8Array() };
    expect([(await cache.read("acme"))?.row, cache.peek("acme")?.row, cache.trusted("acme")?.row]).toEqual([
      expected,
      expected,
      expected,
    ]);
  });

  it("a newer generation is not replaced by an older one, however late that was read", async () => {
    const { cache, state, generation, clock } = caching();
    cache.learn(row(4, 10));
    state.table = [row(3, 20)];
    clock.advance(5000);
    expect(await generation()).toBe(4);
  });

  it("of one generation the row that was read last counts", async () => {
    const { cache, generation } = caching();
    cache.learn(row(4, 20, { status: "disabled" }));
    cache.learn(row(4, 10, { status: "connected" }));
    expect([await generation(), (await cache.read("acme"))?.row.status]).toEqual([4, "disabled"]);
    cache.learn(row(4, 30, { status: "connected" }));
    expect((await cache.read("acme"))?.row.status).toBe("connected");
  });

  it("a name that is used again is another connection, whose generations start anew", async () => {
    const { cache, generation } = caching();
    cache.learn(row(9, 10));
    cache.learn(row(0, 20, { id: "c3b1a7de-5a0b-4a53-8a6e-1f2a3b4c5d6e" }));
    expect(await generation()).toBe(0);
  });

  it("a peer's news of a generation that is known here lets the next read ask, news of an older one does not", async () => {
    const { cache, state, generation } = caching();
    const known = cache.learn(row(4, 10)).row;
    state.table = [row(5, 20)];
    cache.expireOlder(known.id, 3);
    cache.expireOlder("another", 9);
    expect([await generation(), state.queries]).toEqual([4, 0]);
    cache.expireOlder(known.id, 4);
    expect([await generation(), state.queries]).toEqual([5, 1]);
  });

  it("while Postgres is gone a token that is known is handed out for as long as it lasts", async () => {
    const { cache, state, generation, clock } = caching();
    cache.learn(row(4, 10));
    state.isGone = true;
    clock.advance(86_400_000);
    expect(await generation()).toBe(4);
  });

  it("a connection that has ended is not handed out, whether Postgres is there or gone, nor is one read before", async () => {
    const { cache, state, generation } = caching();
    const { id } = cache.learn(row(4, 10)).row;
    state.isGone = true;
    cache.end(id, inSeconds(20).getTime());
    await expect(cache.read("acme")).rejects.toMatchObject({ code: "storage_unavailable" });
    state.isGone = false;
    expect(await cache.read("acme")).toBeNull();
    // A statement that was sent before, whose answer comes late.
    cache.learn(row(4, 15));
    expect(await cache.read("acme")).toBeNull();
    // The connection was enabled again, or it is another one of the same name.
    state.table = [row(4, 30)];
    expect(await generation()).toBe(4);
    cache.learn(row(5, 31));
    expect(await generation()).toBe(5);
  });

  it("what was asked for before the end counts for nothing, however late it is answered", async () => {
    const { cache, state } = caching();
    const old = row(4, 10);
    const another = row(0, 20, { id: "c3b1a7de-5a0b-4a53-8a6e-1f2a3b4c5d6e" });
    const slow = Promise.withResolvers<void>();
    Object.assign(state, { table: [old], delay: slow.promise });
    const reading = cache.read("acme");
    while (state.queries === 0) await setImmediate();
    Object.assign(state, { table: [another], delay: null });
    cache.end(old.id, inSeconds(15).getTime());
    const later = cache.read("acme");
    slow.resolve();
    expect([(await reading)?.row.id, (await later)?.row.id]).toEqual([another.id, another.id]);
  });

  it("it ends with its further tokens, and another connection of the name has nothing of it", async () => {
    const { cache, state } = caching();
    const further = { id: "0f2d6f5e-9a51-4e1c-8f0b-6a7b8c9d0e1f", name: "acme#user", chain: "user" };
    const own = cache.learn(row(4, 10)).row;
    cache.learn(row(2, 10, { ...further, parentId: own.id }));
    const found = await cache.read("acme#user");
    if (found === null) throw new Error("it is known");
    expect(cache.hasEnded(found)).toBe(false);
    cache.end(own.id, inSeconds(20).getTime());
    expect(cache.hasEnded(found)).toBe(true);
    expect([await cache.read("acme"), await cache.read("acme#user"), state.queries]).toEqual([null, null, 2]);
  });

  it("an end that somebody repeats long after takes nothing from what was read since", async () => {
    const { cache, state, generation } = caching();
    const { id } = cache.learn(row(4, 600)).row;
    state.isGone = true;
    cache.end(id, inSeconds(0).getTime());
    expect(await generation()).toBe(4);
    cache.end("c3b1a7de-5a0b-4a53-8a6e-1f2a3b4c5d6e", inSeconds(700).getTime());
    expect(await generation()).toBe(4);
  });

  it("a further token is asked for and ends with its connection, also if that one is not in memory", async () => {
    const { cache, state } = caching();
    const parentId = tokenRow().id;
    const further = { id: "0f2d6f5e-9a51-4e1c-8f0b-6a7b8c9d0e1f", name: "acme#user", chain: "user", parentId };
    cache.learn(row(2, 10, further));
    state.table = [row(3, 20, further)];
    cache.expireOlder(parentId, 1);
    expect((await cache.read("acme#user"))?.row.generation).toBe(3);
    state.table = [];
    cache.end(parentId, inSeconds(30).getTime());
    expect([cache.trusted("acme#user"), await cache.read("acme#user")]).toEqual([null, null]);
  });

  it("a new grant of a connection lets its further tokens be asked for as well: it may have ended them", async () => {
    const { cache, state } = caching();
    const own = cache.learn(row(4, 10)).row;
    const further = { id: "0f2d6f5e-9a51-4e1c-8f0b-6a7b8c9d0e1f", name: "acme#user", chain: "user", parentId: own.id };
    cache.learn(row(2, 10, further));
    state.table = [row(3, 20, further)];
    cache.expireOlder(own.id, 4);
    expect((await cache.read("acme#user"))?.row.generation).toBe(3);
  });
});
