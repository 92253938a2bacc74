import { randomUUID } from "node:crypto";
import { beforeAll, expect, test } from "vitest";
import { createAccountRows } from "../../../src/store/accounts.ts";
import type { Database } from "../../../src/store/database.ts";
import { type AccountParts, createAccounts } from "../../../src/tokens/accounts.ts";
import { placeOf } from "../../../src/tokens/seal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { useEmbedded } from "../../support/services/embedded.ts";
import { define } from "../providers/definitions.ts";
import { tokenRow } from "./token-row.ts";

let database: Database;

beforeAll(async () => void (database = await useEmbedded()));

type Connected = { client?: string; shop?: string; account?: string; status?: string; former?: true };

/** Connections of a provider, the last one connected last. */
async function connect(provider: string, connections: Record<string, Connected>) {
  const clients = new Map<string, string>();
  const rows = Object.entries(connections).map(([name, connected], index) => {
    const { client = "one", shop = "a", account = "ada", status = "connected", former } = connected;
    const clientRef = clients.get(client) ?? randomUUID();
    clients.set(client, clientRef);
    return {
      id: randomUUID(),
      name: `${provider}/${name}`,
      provider: former ? `former-${provider}` : provider,
      clientRef,
      grant: "import",
      inputs: { shop },
      account,
      status,
      enabledStatus: status,
      generation: 1,
      authorization: 1,
      authorizedAt: new Date(Date.UTC(2026, 10, 20, 12, index)),
    };
  });
  const made = [...clients].map(([name, id]) => ({ id, name: `${provider}/${name}`, provider, clientId: name }));
  await database.prisma.client.createMany({ data: made });
  await database.prisma.connection.createMany({ data: rows });
  return rows;
}

/** The connections that the event of the newest connection names when its account is found. Each of them must have an event of its own, once. */
async function droppedBy(parallelSets: string, connections: Record<string, Connected>): Promise<unknown[]> {
  const provider = `own-${randomUUID()}`;
  const rows = await connect(provider, connections);
  const newest = rows.at(-1);
  if (newest === undefined) throw new Error("no connection");
  const file = define(
    `inputs: { shop: { pattern: "^[a-z]+$" } }\nafter_connect: [{ value: x }]\nparallel_sets: ${parallelSets}`,
  );
  const definition = { ...file, id: provider, formerly: [`former-${provider}`] };
  const own = { id: newest.id, provider, clientRef: newest.clientRef, generation: 1, authorization: 1 };
  const row = tokenRow({ ...own, accessToken: null, refreshToken: null });
  const context = { row, owner: row, definition, client: null, clientSecrets: [] };
  const learn = async () =>
    await accounts().learn(context, row, { account: newest.account, label: null, captured: {} });
  await learn();
  const events = await database.prisma.connectionEvent.findMany({
    where: { connectionId: { in: rows.map(({ id }) => id) }, type: "other_sets_dropped" },
  });
  const told = async () => {
    const where = { connectionId: { in: rows.map(({ id }) => id) }, type: "set_dropped" };
    const found = await database.prisma.connectionEvent.findMany({ where });
    return found.map((each) => [rows.find(({ id }) => id === each.connectionId)?.name, each.detail]);
  };
  const named = events.flatMap(({ detail }) => {
    const { connections: names, kept } = detail as { connections: string[]; kept: number };
    return names.map((name) => [name, { kept }]);
  });
  expect(new Set(await told())).toEqual(new Set(named));
  await learn();
  expect(await told()).toHaveLength(named.length);
  return events.map(({ connectionId, detail }) => {
    expect(connectionId).toBe(newest.id);
    return JSON.parse(JSON.stringify(detail).replaceAll(`${provider}/`, "")) as unknown;
  });
}

const unasked = () => Promise.reject(new Error("nothing is asked for"));

const vault = createTokenVault(createKeyring([{ id: "k1", key: Buffer.alloc(32, 1) }]));

function accounts(sender: AccountParts["sender"] = { ask: unasked }) {
  return createAccounts({
    accounts: createAccountRows(database, vault),
    sender,
    vault,
    random: () => 0,
    onBackgroundError: (error) => expect.unreachable(String(error)),
  });
}

const many = {
  "other-account": { account: "bob" },
  "other-client": { client: "two" },
  "other-shop": { shop: "b" },
  old: {},
  newer: {},
  newest: {},
};

test.each([
  ["[user]", ["newer", "old", "other-shop", "other-client"]],
  ["[client]", ["newer", "old", "other-shop", "other-account"]],
  ["[inputs.shop]", ["newer", "old", "other-client", "other-account"]],
  ["[user, client]", ["newer", "old", "other-shop"]],
  ["[user, client, inputs.shop]", ["newer", "old"]],
])("sets that have %s in common are counted together", async (singlePer, connections) => {
  expect(await droppedBy(`{ single_per: ${singlePer} }`, many)).toEqual([{ connections, kept: 1 }]);
});

test("an account at another host is another account, whatever its name: whoever chooses a host could name any", async () => {
  const settings = '{ single_per: [user] }\napi: { base_url: "https://{inputs.shop}.shops.example" }';
  const connections = ["newer", "old", "other-client"];
  expect(await droppedBy(settings, many)).toEqual([{ connections, kept: 1 }]);
});

test.each([
  [2, ["old", "other-shop", "other-client"]],
  [4, ["other-client"]],
])("of those beyond %d the oldest are the ones that are dropped", async (max, connections) => {
  expect(await droppedBy(`{ single_per: [user], max: ${max} }`, many)).toEqual([{ connections, kept: max }]);
});

test("nobody is warned where there are no more than may be, or where sets do not disturb each other", async () => {
  expect(await droppedBy("{ single_per: [user], max: 5 }", many)).toEqual([]);
  expect(await droppedBy("independent", many)).toEqual([]);
});

test("a connection without a set has none to lose", async () => {
  const others = { waiting: { status: "pending" }, ended: { status: "needs_reauthorization" }, newest: {} };
  expect(await droppedBy("{ single_per: [user] }", others)).toEqual([]);
});

test("those that stand under an id that the definition had before are counted as well", async () => {
  const connections = { before: { former: true as const }, newest: {} };
  expect(await droppedBy("{ single_per: [user] }", connections)).toEqual([{ connections: ["before"], kept: 1 }]);
});

test("whose account it is is looked up as the connection's own grant has it", async () => {
  const provider = `own-${randomUUID()}`;
  const [made] = await connect(provider, { newest: {} });
  if (made === undefined) throw new Error("no connection");
  const definition = define(
    `grants: [authorization_code, client_credentials, password]
authorization: { url: https://login.example/authorize }
token:
  url: https://login.example/token
  grants: { client_credentials: { after_connect: [{ value: machine }] }, password: { after_connect: [] } }
after_connect: [{ value: person }]`,
    "id: own",
  );
  // A lookup that sends no request: its values are given.
  const said: AccountParts["sender"] = { ask: async (_context, { build }) => (build({}), null) };
  const found = async (grant: string) => {
    const own = { id: made.id, provider, clientRef: made.clientRef, generation: 1, authorization: 1, lookedUp: null };
    const row = tokenRow({ ...own, grant, refreshToken: null });
    const sealed = { ...row, ...vault.sealTokens({ accessToken: "at", refreshToken: null }, placeOf(row)) };
    const context = { row: sealed, owner: sealed, definition, client: null, clientSecrets: [] };
    const { account } = await accounts(said).followUp(context, sealed);
    await database.prisma.connection.update({ where: { id: made.id }, data: { lookedUp: null } });
    return account;
  };
  expect(await found("authorization_code")).toBe("person");
  expect(await found("client_credentials")).toBe("machine");
  expect(await found("import")).toBe("person");
  expect(await found("password")).toBeNull();
});

test("what somebody hands over drops nobody's set before the provider has answered it", async () => {
  const provider = `own-${randomUUID()}`;
  const rows = await connect(provider, { old: {}, newest: {} });
  const newest = rows.at(-1);
  if (newest === undefined) throw new Error("no connection");
  const own = { id: newest.id, provider, clientRef: newest.clientRef, generation: 1, authorization: 1, lookedUp: null };
  const row = tokenRow({ ...own, inputs: { shop: "a" }, refreshToken: null });
  const sealed = {
    ...row,
    accessToken: vault.sealTokens({ accessToken: "junk", refreshToken: null }, placeOf(row)).accessToken,
  };
  const given = "inputs: { shop: {} }\nparallel_sets: { single_per: [inputs.shop] }\n";
  const definition = { ...define(`${given}after_connect: [{ value: "{inputs.shop}" }]`), id: provider };
  const context = { row: sealed, owner: sealed, definition, client: null, clientSecrets: [] };
  // A lookup that sends no request: its values are given.
  const said: AccountParts["sender"] = {
    ask: async (_context, { build }) => {
      build({ inputs: { shop: "a" } });
      return null;
    },
  };
  const noted = async () =>
    await database.prisma.connectionEvent.count({
      where: { type: { in: ["other_sets_dropped", "set_dropped"] }, connectionId: { in: rows.map(({ id }) => id) } },
    });
  await accounts(said).followUp(context, sealed, { handedOver: true });
  expect(await noted()).toBe(0);
  await accounts(said).followUp(context, sealed);
  expect(await noted()).toBe(2);
});
