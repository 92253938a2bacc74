import { randomBytes } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { End } from "../../../src/coordination/end-messages.ts";
import { BrokerError } from "../../../src/errors.ts";
import { createKeyService, makeApiKey } from "../../../src/callers/keys.ts";
import { bootstrapKeyId, type Principal } from "../../../src/callers/principal.ts";
import type { ApiKeyRow, ApiKeys, FoundApiKey } from "../../../src/store/api-keys.ts";
import { patience } from "../../support/patience.ts";
import { fakeClock } from "../tokens/fake-clock.ts";

const everywhere = ["tokens", "connections", "admin"] as const;
const operator: Principal = {
  callerId: bootstrapKeyId,
  labels: {},
  actor: { kind: "key", id: bootstrapKeyId, name: "ADMIN_KEY" },
  abilities: everywhere,
  connections: ["*"],
  expiresAt: null,
};
const nextAdminKey = "the admin key that takes its place, likewise";
const adminKey = "an admin key of at least 32 characters";

/** The service on a table in memory, which can be away. */
function serve() {
  const clock = fakeClock();
  const table = new Map<string, FoundApiKey>();
  const state = { isGone: false, hasEnded: false, queries: 0, delay: null as Promise<void> | null };
  const answer = <Value>(value: Value): Value => {
    state.queries++;
    if (state.isGone) throw new BrokerError("storage_unavailable", "gone");
    return value;
  };
  const keys = {
    ids: async () => answer(new Set(table.keys())),
    async findMany(ids: string[]) {
      const found = answer(ids.flatMap((id) => table.get(id) ?? []));
      if (state.delay !== null) await state.delay;
      return found;
    },
    insert: async (key: Omit<ApiKeyRow, "revokedAt" | "createdAt">) => {
      if (state.hasEnded) return null;
      const row = { ...key, revokedAt: null, createdAt: new Date() };
      table.set(row.id, row);
      return row;
    },
    revoke: async (id: string) => {
      const row = table.get(id);
      if (row !== undefined) table.set(id, { ...row, revokedAt: new Date() });
      return row !== undefined;
    },
  } as unknown as ApiKeys;
  const listeners: ((end: End) => void)[] = [];
  /** An end, as other replicas send it. */
  const tell = (id: string) => {
    for (const listener of listeners) listener({ kind: "key", id, atMs: clock.wallMs() });
  };
  const used: string[] = [];
  const peers = {
    listen: (listener: (end: End) => void) => void listeners.push(listener),
    async tell({ id }: { id: string }) {
      tell(id);
      return [];
    },
    uses: (_kind: string, id: string) => void used.push(id),
  };
  const service = createKeyService({
    keys,
    adminKeys: [adminKey, nextAdminKey],
    trustSeconds: 3600,
    peers,
    giverOf: () => null,
    clock,
    nowMs: () => clock.wallMs(),
    randomBytes,
  });
  const make = async (expiresAt: Date | null = null) =>
    await service.create(operator, {
      name: "billing",
      abilities: ["tokens"],
      connections: ["acme-*"],
      labels: { customer: "acme" },
      expiresAt,
    });
  return { service, table, clock, state, make, tell, used };
}

/** Code and text of the refusal. */
async function refusalOf(answer: Promise<unknown>): Promise<[string, string]> {
  const error = await answer.then(
    () => null,
    (reason: unknown) => reason,
  );
  return error instanceof BrokerError ? [error.code, error.message] : ["none", ""];
}

/** A whole key, its checksum right, with the id of another. */
function withOtherSecret(key: string): string {
  const id = key.split("_")[1] ?? "";
  const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const bytes = Uint8Array.from(id, (character) => alphabet.indexOf(character));
  return makeApiKey((size) => (size === id.length ? bytes : randomBytes(size))).key;
}

describe("who calls", () => {
  it("a key stands for its id and name, abilities, patterns and labels", async () => {
    const { service, make } = serve();
    const { key, row } = await make();
    const actor = { kind: "key", id: row.id, name: "billing" };
    const principal = {
      callerId: row.id,
      labels: { customer: "acme" },
      actor,
      abilities: ["tokens"],
      connections: ["acme-*"],
      expiresAt: null,
    };
    expect(await service.authenticate(key)).toEqual(principal);
  });

  it("the bootstrap key may do everything everywhere, and asks no database", async () => {
    const { service, state } = serve();
    state.isGone = true;
    expect(await service.authenticate(adminKey)).toEqual({
      callerId: "admin",
      labels: {},
      actor: { kind: "key", id: "admin", name: "ADMIN_KEY" },
      abilities: ["tokens", "connections", "admin"],
      connections: ["*"],
      expiresAt: null,
    });
    expect((await service.authenticate(nextAdminKey)).callerId).toBe("admin");
    for (const other of [`${adminKey}x`, `${adminKey},${nextAdminKey}`, ""]) {
      expect((await refusalOf(service.authenticate(other)))[0]).toBe("unauthenticated");
    }
  });

  it("a mistyped key is refused without a query, an unknown one with a query", async () => {
    const { service, state } = serve();
    expect(await refusalOf(service.authenticate("frt_mistyped"))).toEqual([
      "unauthenticated",
      expect.stringMatching(/mistyped/),
    ]);
    const foreign = makeApiKey(randomBytes).key;
    const mistyped = foreign.replace(/.$/, foreign.endsWith("x") ? "y" : "x");
    expect(await refusalOf(service.authenticate(mistyped))).toEqual([
      "unauthenticated",
      expect.stringMatching(/mistyped/),
    ]);
    expect(state.queries).toBe(0);
    expect(await refusalOf(service.authenticate(foreign))).toEqual([
      "unauthenticated",
      expect.stringMatching(/unknown/),
    ]);
    expect(state.queries).toBe(1);
  });

  it("sparing, invented keys cost one query a second together, and a right one is still let in", async () => {
    const { service, clock, state, make } = serve();
    const { key } = await make();
    const sparing = { sparing: true };
    const invent = async () => await refusalOf(service.authenticate(makeApiKey(randomBytes).key, sparing));
    const refused = await Promise.all(Array.from({ length: 200 }, invent));
    expect(new Set(refused.map(([code]) => code))).toEqual(new Set(["unauthenticated"]));
    expect(state.queries).toBe(1);
    expect((await service.authenticate(key, sparing)).abilities).toEqual(["tokens"]);
    expect((await refusalOf(service.authenticate(withOtherSecret(key), sparing)))[0]).toBe("unauthenticated");
    expect(state.queries).toBe(2);
    clock.advance(1000);
    const { key: newer } = await make();
    await service.authenticate(newer, sparing);
  });

  it("a key with a known id and another secret is refused, whether or not the id has been seen before", async () => {
    const { service, make } = serve();
    const { key } = await make();
    const forged = withOtherSecret(key);
    expect(await refusalOf(service.authenticate(forged))).toEqual([
      "unauthenticated",
      expect.stringMatching(/unknown/),
    ]);
    await service.authenticate(key);
    expect((await refusalOf(service.authenticate(forged)))[0]).toBe("unauthenticated");
    expect((await refusalOf(service.authenticate(key.slice(0, -1))))[0]).toBe("unauthenticated");
  });

  it("a key is good until its end and not from there on", async () => {
    const { service, clock, make } = serve();
    const { key } = await make(new Date(clock.wallMs() + 1000));
    clock.advance(999);
    await service.authenticate(key);
    clock.advance(1);
    expect(await refusalOf(service.authenticate(key))).toEqual(["unauthenticated", expect.stringMatching(/expired/)]);
  });

  it("a revoked key is refused at once by the replica that revoked it, and within four seconds by the others", async () => {
    const { service, clock, make } = serve();
    const { key, row } = await make();
    const otherReplica = serve();
    await service.authenticate(key);
    await service.revoke(operator, row.id);
    expect(await refusalOf(service.authenticate(key))).toEqual(["unauthenticated", expect.stringMatching(/revoked/)]);

    const elsewhere = await otherReplica.make();
    await otherReplica.service.authenticate(elsewhere.key);
    const { queries } = otherReplica.state;
    otherReplica.clock.advance(4000);
    await otherReplica.service.authenticate(elsewhere.key);
    expect(otherReplica.state.queries).toBe(queries);
    otherReplica.clock.advance(1);
    await otherReplica.service.authenticate(elsewhere.key);
    // A key that is in memory may be accepted before Postgres has answered. Postgres is asked all the same.
    await expect.poll(() => otherReplica.state.queries, patience).toBe(queries + 1);
    expect(clock.wallMs()).toBeGreaterThan(0);
  });

  it("while Postgres is gone a key is good for KEY_TRUST_SECONDS after it was last verified; then it is the storage that is missing, not the key", async () => {
    const { service, clock, state, make } = serve();
    const { key } = await make();
    await service.authenticate(key);
    clock.advance(5000);
    await service.authenticate(key);
    state.isGone = true;
    clock.advance(3_599_000);
    await service.authenticate(key);
    clock.advance(1001);
    expect((await refusalOf(service.authenticate(key)))[0]).toBe("storage_unavailable");
    expect((await refusalOf(service.authenticate(makeApiKey(randomBytes).key)))[0]).toBe("storage_unavailable");
    state.isGone = false;
    await service.authenticate(key);
  });

  it("a key that only other replicas can check is not refused as wrong: this one says that it lacks an encryption key", async () => {
    const { service, table, make } = serve();
    const { key, row } = await make();
    table.set(row.id, { ...row, isSilent: true });
    const [code, text] = await refusalOf(service.authenticate(key));
    expect([code, text]).toEqual(["encryption_key_missing", expect.stringContaining("ENCRYPTION_KEYS")]);
    expect((await refusalOf(service.authenticate(withOtherSecret(key))))[0]).toBe("unauthenticated");
  });

  it("a machine that slept, or whose clock was set back, gives a key no longer trust", async () => {
    const { service, clock, state, make } = serve();
    const { key } = await make();
    await service.authenticate(key);
    state.isGone = true;
    clock.wall += 3_601_000; // asleep
    expect((await refusalOf(service.authenticate(key)))[0]).toBe("storage_unavailable");
    const another = serve();
    const { key: awake } = await another.make();
    await another.service.authenticate(awake);
    another.state.isGone = true;
    another.clock.monotonic += 3_601_000;
    another.clock.wall -= 86_400_000;
    expect((await refusalOf(another.service.authenticate(awake)))[0]).toBe("storage_unavailable");
  });

  it("expires_at counts while Postgres is gone, too", async () => {
    const { service, clock, state, make } = serve();
    const { key } = await make(new Date(clock.wallMs() + 10_000));
    await service.authenticate(key);
    state.isGone = true;
    clock.advance(9000); // the service itself waits for a moment, too
    await service.authenticate(key);
    clock.advance(1000);
    expect(await refusalOf(service.authenticate(key))).toEqual(["unauthenticated", expect.stringMatching(/expired/)]);
  });

  it("a revocation that another replica tells of counts at once, with Postgres and without", async () => {
    const { service, state, make, tell, used } = serve();
    const { key, row } = await make();
    await service.authenticate(key);
    expect(used).toEqual([row.id]);
    state.isGone = true;
    tell(row.id);
    expect(await refusalOf(service.authenticate(key))).toEqual(["unauthenticated", expect.stringMatching(/revoked/)]);
    // A key with another secret gets the same answer as an unknown key.
    expect((await refusalOf(service.authenticate(withOtherSecret(key))))[0]).toBe("storage_unavailable");
    state.isGone = false;
    // What Postgres says counts: the database may have been restored, and then its keys are listed.
    await service.authenticate(key);
  });

  it("what was read before a revocation is not believed after it, however late its answer comes", async () => {
    const { service, state, make, tell } = serve();
    const { key, row } = await make();
    const slow = Promise.withResolvers<void>();
    state.delay = slow.promise;
    const reading = service.authenticate(key);
    while (state.queries === 0) await setImmediate();
    state.delay = null;
    await service.revoke(operator, row.id);
    slow.resolve();
    expect((await refusalOf(reading))[1]).toMatch(/revoked/);
    tell(row.id);
    expect((await refusalOf(service.authenticate(key)))[1]).toMatch(/revoked/);
  });

  it("an unknown id cannot be revoked", async () => {
    const { service } = serve();
    expect((await refusalOf(service.revoke(operator, "nobody")))[0]).toBe("not_found");
  });
});

describe("who makes a key", () => {
  const end = new Date("2027-01-31T00:00:00.000Z");
  const giver: Principal = {
    callerId: "k1",
    labels: { customer: "acme" },
    actor: { kind: "key", id: "k1", name: "giver" },
    abilities: ["tokens", "admin"],
    connections: ["acme-*", "beta"],
    expiresAt: end,
  };
  const modest = {
    name: "n",
    abilities: ["tokens" as const],
    connections: ["acme-b*", "beta"],
    labels: { customer: "acme", team: "x" } as Record<string, string>,
    expiresAt: end,
  };

  it("gives what it has, or less", async () => {
    const { service } = serve();
    const { row } = await service.create(giver, modest);
    expect(row).toMatchObject({ abilities: ["tokens"], connections: ["acme-b*", "beta"], expiresAt: end });
  });

  it.each([
    [
      "an ability that it lacks",
      { abilities: ["tokens" as const, "connections" as const] },
      /^abilities: .*connections/,
    ],
    ["a pattern that is wider", { connections: ["acme-b*", "acme*"] }, /^connections: "acme\*"/],
    ["all connections", { connections: ["*"] }, /^connections: "\*"/],
    ["no labels", { labels: {} }, /^labels: .*"customer":"acme"/],
    ["another label", { labels: { team: "acme" } }, /^labels: /],
    ["another value of its label", { labels: { customer: "beta" } }, /^labels: /],
    [
      "a later end",
      { expiresAt: new Date(end.getTime() + 1) },
      /^expires_at: this key ends at 2027-01-31T00:00:00.000Z/,
    ],
    ["no end", { expiresAt: null }, /^expires_at: /],
  ])("cannot give %s: the answer names the field and what is allowed", async (_what, more, text) => {
    const { service } = serve();
    const refusal = await refusalOf(service.create(giver, { ...modest, ...more }));
    expect(refusal).toEqual(["forbidden", expect.stringMatching(text)]);
  });

  it("may end meanwhile: nothing is made, and the answer is that of a key that is no good", async () => {
    const { service, state } = serve();
    state.hasEnded = true;
    expect((await refusalOf(service.create(giver, modest)))[0]).toBe("unauthenticated");
  });
});
