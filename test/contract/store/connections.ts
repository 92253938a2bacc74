import { randomUUID } from "node:crypto";
import * as fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { coversName, likePatterns } from "../../../src/callers/principal.ts";
import type { Labels } from "../../../src/labels.ts";
import type { ConnectionChanges, ConnectionFilter, PagePosition } from "../../../src/store/connections.ts";
import { isUniqueViolation } from "../../../src/store/database-errors.ts";
import { holding } from "./holding.ts";
import { freely, sealedBytes, sealedGrant, type StoreStage } from "./stage.ts";

/** Every statement on connections but those that move tokens. */
export function connections(stage: () => StoreStage): void {
  const all = { limit: 100, after: null };
  const everything = { patterns: ["%"], labels: {} };
  const list = async (filter: ConnectionFilter, patterns = ["%"], labels: Labels = {}) =>
    (await stage().connections.list(all, filter, { patterns, labels })).map(({ name }) => name);

  describe("a name", () => {
    it("that ten ask for at once goes to one, and the others are told that it is taken", async () => {
      const name = `rival-${randomUUID()}`;
      const inserts = await Promise.allSettled(Array.from({ length: 10 }, () => stage().insert({ name })));
      const refused = inserts.flatMap((insert) => (insert.status === "rejected" ? [insert.reason as unknown] : []));
      expect(refused).toHaveLength(9);
      expect(refused.every(isUniqueViolation)).toBe(true);
      expect(await list({ nameContains: name })).toEqual([name]);
    });

    it("that is used again goes on from the version it had, so that a version never names two tokens", async () => {
      const name = `again-${randomUUID()}`;
      const { row, key } = await stage().permit({ name });
      await stage().rows.commitRefresh(key, sealedGrant(), {});
      await stage().connections.delete(row.id);
      const second = await stage().connect({ name });
      expect(second).toMatchObject({ version: 4, generation: 1, authorization: 1 });
      await stage().connections.delete(second.id);
      expect((await stage().insert({ name })).version).toBe(4);
    });

    it("whose creation came to nothing leaves nothing, and keeps what an earlier one left", async () => {
      const name = `discarded-${randomUUID()}`;
      const first = await stage().connect({ name });
      await stage().connections.delete(first.id);
      const second = await stage().insert({ name });
      await stage().connections.discard(second.id);
      expect(await stage().connections.findByName(name)).toBeNull();
      expect((await stage().insert({ name })).version).toBe(1);
    });
  });

  describe("a deleted connection", () => {
    it("takes its history, links and requests along, and leaves a tombstone of what a late answer needs", async () => {
      const { row } = await stage().permit({ inputs: { shop_url: "https://shop.example" } });
      await stage().links.insert({
        id: row.name,
        connectionId: row.id,
        secretHash: sealedBytes(),
        returnTo: null,
        manual: false,
        purpose: null,
        endUser: null,
        createdBy: "tests",
        expiresInSeconds: 60,
      });
      const [deleted] = await stage().connections.delete(row.id);
      expect(deleted).toMatchObject({ id: row.id, refreshToken: row.refreshToken, version: 1 });
      expect(await stage().events(row.id)).toEqual([]);
      expect(await stage().query("SELECT 1 AS found FROM consent_links WHERE id = $1", row.name)).toEqual([]);
      const [tombstone] = await stage().query("SELECT * FROM tombstones WHERE name = $1", row.name);
      expect(tombstone).toMatchObject({
        connection_id: row.id,
        version: 2, // the answer in flight may have been handed out as that
        authorization_seq: 1,
        provider: "own",
        inputs: { shop_url: "https://shop.example" },
      });
      expect(await stage().connections.delete(row.id)).toEqual([]);
    });

    it("is not brought back by an answer in flight", async () => {
      const { row, key } = await stage().permit();
      await stage().connections.delete(row.id);
      expect(await stage().rows.commitRefresh(key, sealedGrant(), {})).toBeNull();
      const event = { type: "connected" as const, detail: {} };
      const given = { ...row, attemptId: randomUUID() };
      expect(await stage().rows.replaceGrant(given, sealedGrant(), { event, exclusive: false })).toBeNull();
      expect(await stage().rows.readById(row.id)).toBeNull();
    });
  });

  describe("a change", () => {
    it("of scopes and labels replaces them, of inputs adds to them, and each leaves its line of history", async () => {
      const row = await stage().connect({ inputs: { region: "eu", shop: "north" }, labels: { team: "a" } });
      const changes = { scopes: ["write"], labels: { stage: "test" }, inputs: { shop: "south" } };
      await stage().connections.update(row, changes, freely);
      expect(await stage().connections.findById(row.id)).toMatchObject({
        status: "connected",
        scopes: ["write"],
        labels: { stage: "test" },
        inputs: { region: "eu", shop: "south" },
      });
      const [event] = await stage().connections.events(row.id, { limit: 1, before: null, patterns: ["%"] });
      expect(event).toMatchObject({ type: "updated", detail: { changed: ["scopes", "labels", "inputs"] } });
    });

    it("of credentials opens a connection that waited for them, at once, and moves their revision", async () => {
      const { row, key } = await stage().permit({ grant: "password" });
      await stage().rows.endGrant(key, { code: "invalid_grant", detail: "wrong password" });
      await stage().set(row.id, "backoff_until = clock_timestamp() + interval '1 hour'");
      const credentials = sealedBytes();
      const changed = await stage().connections.update(row, { credentials }, freely);
      expect(changed).toMatchObject({ status: "pending", backoffUntil: null, credentials, credentialsRevision: 1 });
    });

    it("of credentials leaves a connected one connected and a disabled one disabled", async () => {
      const grant = "password";
      const [one, other] = [await stage().connect({ grant }), await stage().connect({ grant })];
      expect(await stage().connections.update(one, { credentials: sealedBytes() }, freely)).toMatchObject({
        status: "connected",
      });
      const disabled = await stage().connections.update(other, { disabled: true }, freely);
      await stage().set(other.id, "enabled_status = 'needs_reauthorization'");
      const changed = await stage().connections.update(disabled ?? other, { credentials: sealedBytes() }, freely);
      expect(changed?.status).toBe("disabled");
      expect(await stage().columns(other.id)).toMatchObject({ status: "disabled", enabled_status: "pending" });
    });

    it("of secret inputs, sealed with credentials, opens no connection that a person must connect again", async () => {
      const row = await stage().connect();
      await stage().set(row.id, "status = 'needs_reauthorization', enabled_status = 'needs_reauthorization'");
      const due = async () => String((await stage().columns(row.id))["next_refresh_at"]);
      await stage().set(row.id, "next_refresh_at = '2099-01-01 00:00:00+00'");
      const before = await due();
      expect(before).toContain("2099");
      const changed = await stage().connections.update(row, { credentials: sealedBytes() }, freely);
      expect(changed).toMatchObject({ status: "needs_reauthorization", credentialsRevision: 1 });
      expect(await due()).toBe(before);
    });

    it("that crosses with a change of the credentials is refused, of eight at once seven", async () => {
      const row = await stage().connect();
      const updates = Array.from({ length: 8 }, () =>
        stage().connections.update(row, { credentials: sealedBytes() }, freely),
      );
      expect((await Promise.all(updates)).filter((answer) => answer !== null)).toHaveLength(1);
      expect(await stage().connections.update(row, { labels: { late: "yes" } }, freely)).toBeNull();
      expect((await stage().connections.findById(row.id))?.labels).toEqual({});
      expect(await stage().events(row.id)).toEqual(["created", "connected", "updated"]);
    });

    it("of a label that somebody must leave alone is refused while a key that works is bound to it, whatever its value", async () => {
      const run = randomUUID();
      const bind = async (name: string, expiresAt: Date | null = null) => {
        const id = randomUUID();
        const key = { id, name: "bound", abilities: [], connections: ["*"], labels: { [name]: "x" }, expiresAt };
        await stage().keys.insert({ ...key, secretHash: sealedBytes() }, null);
        return id;
      };
      const labels = { revoked: `r${run}`, over: `o${run}`, free: `f${run}`, bound: `b${run}` };
      await stage().keys.revoke(await bind(labels.revoked), { patterns: ["%"], labels: {} });
      await bind(labels.over, new Date("2020-01-01"));
      await bind(labels.bound);
      await bind(labels.bound, new Date("2040-01-01"));
      const names = Object.values(labels);
      expect(await stage().connections.bindingLabels(names)).toEqual([labels.bound]);
      expect(await stage().connections.bindingLabels([])).toEqual([]);
      for (const [what, name] of Object.entries(labels)) {
        const row = await stage().insert({ labels: { [name]: "old" } });
        const changes = { labels: {} };
        const changed = await stage().connections.update(row, changes, { ...freely, freeLabels: [name] });
        expect(changed === null, what).toBe(what === "bound");
        if (changed === null) expect(await stage().connections.update(row, changes, freely)).toMatchObject(changes);
      }
    });

    it("of a host is made as long as there is nothing that was meant for the one before", async () => {
      const change = { inputs: { shop_url: "https://evil.example" } };
      const moved = { client: null, movesHost: true };
      const row = await stage().insert();
      expect(await stage().connections.hasOrAwaitsSecrets(row.id)).toBe(false);
      expect(await stage().connections.update(row, change, moved)).not.toBeNull();
      for (const [what, busy] of Object.entries(holding(stage()))) {
        const { id } = await busy(null);
        const record = await stage().row(id);
        expect(await stage().connections.hasOrAwaitsSecrets(id), what).toBe(true);
        expect(await stage().connections.update(record, change, moved), what).toBeNull();
        expect(await stage().connections.update(record, change, freely), what).not.toBeNull();
      }
    });

    it("disables and enables without touching anything else, the permit of an answer in flight included", async () => {
      const { row, key } = await stage().permit();
      const before = await stage().columns(row.id);
      const change = async (changes: ConnectionChanges) =>
        (await stage().connections.update(await stage().row(row.id), changes, freely))?.status;
      expect(await change({ disabled: true })).toBe("disabled");
      expect(await change({ disabled: true })).toBe("disabled");
      expect(await change({ labels: {} })).toBe("disabled");
      expect(await change({ disabled: false })).toBe("connected");
      expect(await change({ disabled: false })).toBe("connected");
      expect(await stage().columns(row.id)).toEqual({ ...before, updated_at: expect.anything() as unknown });
      expect((await stage().row(row.id)).attemptId).toBe(key.attemptId);
      const changes = ["disabled", "disabled", "updated", "enabled", "enabled"];
      expect(await stage().events(row.id)).toEqual(["created", "connected", ...changes]);
    });
  });

  describe("a list", () => {
    const provider = `listed-${randomUUID()}`;
    const names = ["eta", "theta", "iota", "kappa", "lambda"].map((name) => `${name}-${provider}`);
    const [eta = "", theta = "", iota = "", kappa = "", lambda = ""] = names;
    const client = { id: randomUUID(), name: `client-${provider}` };

    beforeAll(async () => {
      const empty = {
        clientId: "id",
        secretRevision: 0,
        scopes: [],
        patterns: [],
        inputs: {},
        secret: null,
        ownRedirectUri: false,
      };
      await stage().clients.insert({ ...empty, ...client, provider });
      for (const name of names) {
        const labels = { team: name === eta || name === theta ? "a" : "b", [`only-${name}`]: "yes" };
        await stage().insert({ name, provider, labels, clientRef: name === iota ? client.id : null });
      }
      await stage().query(
        `UPDATE connections SET created_at = '2026-01-01T00:00:00.123Z', status =
           CASE WHEN name = $2 THEN 'disabled' ELSE status END WHERE provider = $1 RETURNING 1 AS done`,
        provider,
        kappa,
      );
    });

    it("is filtered by provider, status, client, label and part of the name, and by all of them", async () => {
      expect((await list({ provider })).sort()).toEqual([...names].sort());
      expect(await list({ provider, status: "disabled" })).toEqual([kappa]);
      expect(await list({ client: client.name })).toEqual([iota]);
      expect((await list({ provider, label: { key: "team", value: "a" } })).sort()).toEqual([eta, theta].sort());
      expect(await list({ label: { key: `only-${lambda}`, value: "yes" } })).toEqual([lambda]);
      expect(await list({ label: { key: `only-${lambda}`, value: "no" } })).toEqual([]);
      expect(await list({ provider, nameContains: "APPA-" })).toEqual([kappa]);
      expect(await list({ provider, nameContains: "%" })).toEqual([]);
      expect(
        await list({ provider, nameContains: "eta-", label: { key: "team", value: "a" }, status: "pending" }),
      ).toHaveLength(2);
      expect(await list({ provider, status: "connected" })).toEqual([]);
    });

    it("shows the client's name, and nothing sealed", async () => {
      const [record] = await stage().connections.list(all, { client: client.name }, everything);
      expect(record).toMatchObject({ clientName: client.name, clientRef: client.id, status: "pending", version: 0 });
      expect(Object.keys(record ?? {}).filter((key) => /token$|secret|credentials$/i.test(key))).toEqual([]);
    });

    it("holds what a principal's patterns cover and nothing else", async () => {
      expect(await list({ provider }, [`eta-%`])).toEqual([eta]);
      expect((await list({ provider }, ["eta-%", "theta-%"])).sort()).toEqual([eta, theta].sort());
      expect(await list({ provider }, [])).toEqual([]);
    });

    it("holds what carries each of a principal's labels and nothing else", async () => {
      expect((await list({ provider }, ["%"], { team: "a" })).sort()).toEqual([eta, theta].sort());
      expect(await list({ provider }, ["eta-%"], { team: "a" })).toEqual([eta]);
      expect(await list({ provider }, ["%"], { team: "a", [`only-${lambda}`]: "yes" })).toEqual([]);
      expect(await list({ provider, label: { key: "team", value: "b" } }, ["%"], { team: "a" })).toEqual([]);
    });

    it("is paged newest first, without gap or repetition, though all were created at the same moment", async () => {
      const seen: string[] = [];
      let after: PagePosition | null = null;
      for (let page = 0; page < 10; page++) {
        const items = await stage().connections.list({ limit: 2, after }, { provider }, everything);
        seen.push(...items.map(({ name }) => name));
        after = items.at(-1) ?? null;
        if (items.length < 2) break;
      }
      expect(seen).toHaveLength(names.length);
      expect([...seen].sort()).toEqual([...names].sort());
      expect(seen).toEqual(await list({ provider }));
    });

    it("has the newest first", async () => {
      const newest = await stage().insert({ provider });
      expect((await list({ provider }))[0]).toBe(newest.name);
      await stage().connections.discard(newest.id);
    });
  });

  it("is found by a caller only with the labels that it is bound to, as a name that does not exist is not", async () => {
    const { name } = await stage().insert({ labels: { customer: "acme", team: "a" } });
    expect(await stage().connections.findByName(name, {})).not.toBeNull();
    const cases: [Labels, boolean][] = [
      [{ customer: "acme" }, true],
      [{ customer: "acme", team: "a" }, true],
      [{ customer: "beta" }, false],
      [{ customer: "acme", team: "b" }, false],
      [{ constructor: "x" }, false],
    ];
    for (const [labels, found] of cases) {
      expect((await stage().connections.findByName(name, labels)) !== null, JSON.stringify(labels)).toBe(found);
      expect(await stage().rows.hasLabels(name, labels)).toBe(found);
      expect(await stage().rows.hasLabels(`${name}-x`, labels)).toBe(false);
    }
    await stage().query("UPDATE connections SET labels = 'null' WHERE name = $1 RETURNING 1 AS done", name);
    expect(await stage().rows.hasLabels(name, { customer: "acme" })).toBe(false);
  });

  it("a principal's patterns cover in SQL's LIKE the same names as in TypeScript", async () => {
    const piece = fc.constantFrom("a", "b", "ab", ".", "_", "%", "\\", "-");
    const names = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(""));
    const patterns = fc.array(fc.oneof(piece, fc.constant("*")), { maxLength: 6 }).map((pieces) => pieces.join(""));
    const pairs = fc.array(fc.tuple(patterns, names), { minLength: 100, maxLength: 100 });
    const property = fc.asyncProperty(pairs, async (given) => {
      const principals = given.map(([pattern]) => ({ connections: [pattern] }));
      const answers = await stage().query<{ covers: boolean }>(
        `SELECT name LIKE ANY(ARRAY[pattern]) AS covers
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS pair(pattern, name, number) ORDER BY number`,
        principals.flatMap(likePatterns),
        given.map(([, name]) => name),
      );
      const expected = given.map(([, name], index) => coversName(principals[index] ?? { connections: [] }, name));
      expect(answers.map(({ covers }) => covers)).toEqual(expected);
    });
    await fc.assert(property, { numRuns: 30 });
  });

  it("a history is paged newest first and takes what a provider said as it is", async () => {
    const row = await stage().insert();
    const texts = ["one", 'a "quote" and a \\', "née ✓", "four"];
    for (const text of texts) await stage().connections.addEvent(row.id, "account_lookup_failed", { text });
    const first = await stage().connections.events(row.id, { limit: 3, before: null, patterns: ["%"] });
    expect(first.map(({ detail }) => detail["text"])).toEqual(texts.toReversed().slice(0, 3));
    const rest = await stage().connections.events(row.id, {
      limit: 3,
      before: first.at(-1)?.id ?? null,
      patterns: ["%"],
    });
    expect(rest.map(({ type }) => type)).toEqual(["account_lookup_failed", "created"]);
    expect(Math.abs((rest[0]?.at.getTime() ?? 0) - (await stage().row(row.id)).now.getTime())).toBeLessThan(60_000);
  });
}
