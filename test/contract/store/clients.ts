import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { ClientRow, NewClient } from "../../../src/store/clients.ts";
import { isUniqueViolation } from "../../../src/store/database-errors.ts";
import { holding } from "./holding.ts";
import { sealedBytes, type StoreStage } from "./stage.ts";

const all = ["%"];
const refused = { code: "invalid_client", detail: "bad secret", status: 401 };

/** Every statement on OAuth clients. */
export function clients(stage: () => StoreStage): void {
  const insert = async (changes: Partial<NewClient> = {}): Promise<ClientRow> => {
    const id = randomUUID();
    const fields = {
      id,
      name: `app-${id}`,
      provider: "own",
      clientId: "id",
      secretRevision: 0,
      scopes: ["read"],
      patterns: ["acme-*"],
      inputs: {},
      ownRedirectUri: false,
    };
    return await stage().clients.insert({ ...fields, secret: sealedBytes(), ...changes });
  };

  describe("a client", () => {
    it("is found by id and by name, with what it was made from", async () => {
      const client = await insert({ inputs: { shop_url: "https://shop.example" } });
      expect(await stage().clients.findById(client.id)).toEqual(client);
      expect(await stage().clients.findByName(client.name)).toEqual(client);
      expect(await stage().clients.findMany([client.id, randomUUID()])).toEqual([client]);
      expect(client).toMatchObject({
        scopes: ["read"],
        inputs: { shop_url: "https://shop.example" },
        previousSecret: null,
      });
      expect([await stage().clients.findById(randomUUID()), await stage().clients.findByName("nobody")]).toEqual([
        null,
        null,
      ]);
    });

    it("serves the connections that its patterns cover, to the letter; another's row is not even read", async () => {
      const odd = String.raw`a%b_c\d-*`;
      const client = await insert({ patterns: ["acme-*-eu", "exact", odd] });
      const serves = async (connection: string) =>
        (await stage().clients.findServing(client.name, connection))?.id === client.id;
      const served = ["acme-1-eu", "acme--eu", "exact", String.raw`a%b_c\d-x`];
      for (const name of served) expect([name, await serves(name)]).toEqual([name, true]);
      const foreign = [
        "acme-1",
        "acme-eu",
        "exactly",
        "xact",
        "a-b_c\\d-x",
        String.raw`a%bxc\d-x`,
        "a%b_cd-x",
        "*",
        "",
      ];
      for (const name of foreign) expect([name, await serves(name)]).toEqual([name, false]);
      await stage().database.prisma.$executeRaw`UPDATE clients SET scopes = '{more}' WHERE id = ${client.id}::uuid`;
      await expect(stage().clients.findServing(client.name, "exact")).rejects.toThrow(/cannot be opened/);
      expect(await stage().clients.findServing(client.name, "foreign")).toBeNull();
      expect(await stage().clients.findServing("nobody", "exact")).toBeNull();
      const closed = await insert({ patterns: [] });
      expect(await stage().clients.findServing(closed.name, "exact")).toBeNull();
    });

    it("whose name ten ask for at once goes to one", async () => {
      const name = `rival-${randomUUID()}`;
      const inserts = await Promise.allSettled(Array.from({ length: 10 }, () => insert({ name })));
      const failures = inserts.flatMap((each) => (each.status === "rejected" ? [each.reason as unknown] : []));
      expect(failures).toHaveLength(9);
      expect(failures.every(isUniqueViolation)).toBe(true);
    });

    it("is changed in what is named and in nothing else", async () => {
      const client = await insert();
      const changes = { clientId: "other", patterns: ["beta-*", "gamma"] };
      const changed = await stage().clients.change(client, changes, all);
      const moved = { updatedAt: expect.any(Date) as unknown, mac: expect.any(String) as unknown };
      expect(changed).toEqual({ ...client, ...changes, ...moved });
      expect(changed?.updatedAt.getTime()).toBeGreaterThanOrEqual(client.updatedAt.getTime());
      const scopes = await stage().clients.change(changed ?? client, { scopes: ["write"] }, all);
      expect(scopes).toMatchObject({ ...changes, scopes: ["write"], inputs: {} });
    });

    it("is not deleted while a connection uses it", async () => {
      const client = await insert();
      const row = await stage().insert({ clientRef: client.id });
      expect(await stage().clients.countConnections(client.id)).toBe(1);
      await expect(stage().clients.delete(client.id, all)).rejects.toThrow();
      expect(await stage().clients.findById(client.id)).not.toBeNull();
      await stage().connections.delete(row.id);
      expect(await stage().clients.countConnections(client.id)).toBe(0);
      await stage().clients.delete(client.id, all);
      expect(await stage().clients.findById(client.id)).toBeNull();
    });

    it("stands in a list, newest first, by provider, in pages without gap though made at the same moment", async () => {
      const provider = `listed-${randomUUID()}`;
      const made = await Promise.all(Array.from({ length: 5 }, () => insert({ provider })));
      await stage().query(
        "UPDATE clients SET created_at = '2026-01-01' WHERE provider = $1 RETURNING 1 AS done",
        provider,
      );
      const seen: string[] = [];
      for (let after: ClientRow | null = null; ;) {
        const position: { createdAt: Date; id: string } | null = after && { createdAt: after.createdAt, id: after.id };
        const page: ClientRow[] = await stage().clients.list({ limit: 2, after: position }, { provider });
        seen.push(...page.map(({ id }) => id));
        after = page.at(-1) ?? null;
        if (page.length < 2) break;
      }
      expect([...seen].sort()).toEqual(made.map(({ id }) => id).sort());
      expect((await stage().clients.list({ limit: 1, after: null }))[0]?.createdAt.getTime()).toBeGreaterThan(0);
    });
  });

  describe("a new secret", () => {
    it("takes the first place, and the one before stays as a second choice", async () => {
      const client = await insert();
      const secret = sealedBytes();
      const replaced = await stage().clients.change(client, { secret }, all);
      expect(replaced).toMatchObject({ secret, previousSecret: client.secret, secretRevision: 1 });
    });

    it("is refused when somebody else has changed it since: of eight at once one is stored", async () => {
      const client = await insert();
      const given = Array.from({ length: 8 }, () => ({ secret: sealedBytes() }));
      const answers = await Promise.all(given.map((each) => stage().clients.change(client, each, all)));
      expect(answers.filter((answer) => answer !== null)).toHaveLength(1);
      expect(await stage().clients.findById(client.id)).toMatchObject({
        secretRevision: 1,
        previousSecret: client.secret,
      });
      expect(await stage().clients.change({ ...client, id: randomUUID() }, { clientId: "other" }, all)).toBeNull();
    });

    it("once it has worked, the one before is forgotten; but not one that has become so since", async () => {
      const client = await insert();
      await stage().clients.change(client, { secret: sealedBytes() }, all);
      await stage().clients.forgetPreviousSecret(client.id, 0);
      expect((await stage().clients.findById(client.id))?.previousSecret).toEqual(client.secret);
      await stage().clients.forgetPreviousSecret(client.id, 1);
      expect(await stage().clients.findById(client.id)).toMatchObject({ previousSecret: null, secretRevision: 1 });
    });
  });

  describe("another host of a client", () => {
    const inputs = { shop_url: "https://other.example" };

    it("leaves no secret that was meant for the one before", async () => {
      const first = await insert();
      const rotated = (await stage().clients.change(first, { secret: sealedBytes() }, all)) ?? first;
      expect(rotated.previousSecret).not.toBeNull();
      const secret = sealedBytes();
      const moved = await stage().clients.change(rotated, { inputs, secret, clientId: "other" }, all);
      expect(moved).toMatchObject({ inputs, secret, previousSecret: null, secretRevision: 2, clientId: "other" });
    });

    it("is refused while a connection of it holds anything, in any status, or is about to get something", async () => {
      for (const [what, busy] of Object.entries(holding(stage()))) {
        const client = await insert();
        const { name } = await busy(client.id);
        expect(await stage().clients.holder(client.id), what).toBe(name);
        expect(await stage().clients.change(client, { inputs, secret: sealedBytes() }, all), what).toBeNull();
        expect(await stage().clients.findById(client.id), what).toEqual(client);
        expect(await stage().clients.change(client, { secret: sealedBytes() }, all), what).not.toBeNull();
      }
      const free = await insert();
      await stage().insert({ clientRef: free.id });
      expect(await stage().clients.holder(free.id)).toBeNull();
      expect(await stage().clients.change(free, { inputs, secret: sealedBytes() }, all)).toMatchObject({ inputs });
    });

    it("gets no late answer of a connection that was deleted before", async () => {
      const client = await insert();
      const { id } = await stage().connect({ clientRef: client.id });
      await stage().connections.delete(id);
      const kept = await stage().clients.change(client, { secret: sealedBytes() }, all);
      expect(await stage().tombstones.find(id)).toMatchObject({ clientRef: client.id });
      await stage().clients.change(kept ?? client, { inputs, secret: sealedBytes() }, all);
      expect(await stage().tombstones.find(id)).toMatchObject({ clientRef: null });
    });

    it("is refused when secret or inputs are not those that were read", async () => {
      const client = await insert();
      await stage().clients.change(client, { inputs: { shop_url: "https://third.example" } }, all);
      expect(await stage().clients.change(client, { inputs }, all)).toBeNull();
    });
  });

  describe("a client beyond a caller's patterns", () => {
    it("is neither changed nor deleted: not where it is open to others or to none, nor where a connection of others uses it", async () => {
      const [open, used, own] = [await insert({ patterns: ["*"] }), await insert(), await insert()];
      const closed = await insert({ patterns: [] });
      await stage().insert({ name: `beta-${used.id}`, clientRef: used.id });
      await stage().insert({ name: `acme-${own.id}`, clientRef: own.id });
      const patterns = ["acme-%"];
      const within = async (...those: string[]) =>
        await Promise.all([open, used, closed, own].map(({ id }) => stage().clients.isWithin(id, those)));
      expect(await within(...patterns)).toEqual([false, false, false, true]);
      expect(await within(...all)).toEqual([true, true, true, true]);
      expect(await within()).toEqual([false, false, false, false]);
      expect(await stage().clients.isWithin(randomUUID(), all)).toBeNull();
      for (const client of [open, used, closed]) {
        expect(await stage().clients.change(client, { clientId: "other" }, patterns)).toBeNull();
        expect(await stage().clients.delete(client.id, patterns)).toBe(false);
      }
      expect(await stage().clients.change(own, { clientId: "other" }, patterns)).toMatchObject({ clientId: "other" });
    });
  });

  describe("a connection of a client", () => {
    it.each([
      ["patterns", { patterns: ["beta-*"] }],
      ["scopes", { scopes: ["read", "write"] }],
      ["inputs", { inputs: { shop_url: "https://other.example" } }],
    ])("is not made, nor changed, once the client's %s are not those that allowed it", async (_what, changes) => {
      const client = await insert();
      const made = await stage().insert({ client });
      const fields = { provider: "own", grant: "password", scopes: [], inputs: {}, labels: {}, credentials: null };
      const late = { ...fields, id: randomUUID(), name: `late-${client.id}`, client };
      await stage().clients.change(client, changes, all);
      expect(await stage().connections.insert(late)).toBe(false);
      const change = { client, movesHost: false };
      expect(await stage().connections.update(made, { scopes: ["write"] }, change)).toBeNull();
      const now = await stage().clients.findById(client.id);
      expect(await stage().connections.update(made, { scopes: ["write"] }, { ...change, client: now })).not.toBeNull();
      expect(await stage().connections.insert({ ...late, client: now })).toBe(true);
    });
  });

  describe("once a client is mended", () => {
    const backoff = "backoff_until = clock_timestamp() + interval '1 hour'";

    it("its connections that failed for its sake may be tried at once, and no others", async () => {
      const client = await insert();
      const failed = await stage().permit({ clientRef: client.id });
      await stage().rows.returnPermit(failed.key, refused, 3600);
      const busy = await stage().permit({ clientRef: client.id });
      await stage().rows.returnPermit(busy.key, { code: "rate_limited", detail: "" }, 3600);
      const foreign = await stage().permit();
      await stage().rows.returnPermit(foreign.key, refused, 3600);
      await stage().clients.retryConnections(client.id);
      const backoffs = [failed, busy, foreign].map(
        async ({ row }) => (await stage().row(row.id)).backoffUntil !== null,
      );
      expect(await Promise.all(backoffs)).toEqual([false, true, true]);
    });

    it("those that need no person are tried again even where the grant had ended; of the others a person decides", async () => {
      const client = await insert();
      const make = async (grant: string, set: string) => {
        const row = await stage().connect({ clientRef: client.id, grant });
        await stage().set(row.id, `${set}, ${backoff}`);
        return row.id;
      };
      const ended = "status = 'needs_reauthorization', enabled_status = 'needs_reauthorization'";
      const ids = [
        await make("client_credentials", ended),
        await make("client_credentials", "status = 'disabled', enabled_status = 'needs_reauthorization'"),
        await make("client_credentials", "status = 'connected'"),
        await make("authorization_code", ended),
        await make("password", ended),
        await make("authorization_code", `${ended}, last_error_code = 'invalid_client'`),
      ];
      await stage().clients.retryConnections(client.id);
      const states = ids.map(async (id) => {
        const { status, enabled_status, backoff_until } = await stage().columns(id);
        return [status, enabled_status, backoff_until === null];
      });
      expect(await Promise.all(states)).toEqual([
        ["pending", "pending", true],
        ["disabled", "pending", true],
        ["connected", "connected", true],
        ["needs_reauthorization", "needs_reauthorization", false],
        ["needs_reauthorization", "needs_reauthorization", false],
        ["needs_reauthorization", "needs_reauthorization", true],
      ]);
    });
  });
}
