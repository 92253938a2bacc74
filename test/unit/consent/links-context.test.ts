import { randomBytes } from "node:crypto";
import { expect, it } from "vitest";
import { createContextOf } from "../../../src/consent/links.ts";
import { UnreadableSecretError } from "../../../src/errors.ts";
import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import type { ClientRow } from "../../../src/store/clients.ts";
import { createSender } from "../../../src/tokens/request.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { define } from "../providers/definitions.ts";
import { tokenRow } from "../tokens/token-row.ts";

const vault = createTokenVault(createKeyring([{ id: "k1", key: randomBytes(32) }]));
const definition = define("");
const unproven = tokenRow({
  clientRef: "c-1",
  accountLabel: "Shop North",
  account: "north",
  inputs: { shop: "north" },
});
const row = { ...unproven, accessToken: null, refreshToken: null, credentials: null };
const ours = { ...row, mac: vault.connections.sign(row) };
const plainClient = {
  id: "c-1",
  name: "app",
  provider: row.provider,
  clientId: "app-1",
  secretRevision: 0,
  secret: null,
  previousSecret: null,
  scopes: [],
  patterns: [],
  inputs: {},
  ownRedirectUri: true,
} as unknown as ClientRow;
const client = { ...plainClient, mac: vault.clients.sign(plainClient) };

const complete = async (known: ProviderDefinition) => await Promise.resolve(known);
const catalog = { get: () => definition };
const contextOf = createContextOf({ catalog, discovery: { complete }, vault, publicUrl: "https://broker.example" });
const parts = { catalog, vault, discovery: { complete } } as unknown as Parameters<typeof createSender>[0];
const prepare = async (read: ClientRow) => await createSender(parts).prepare(ours, read);

it("a connection and a client that this broker has written are read as one context", async () => {
  expect(await contextOf({ row: ours, client })).toMatchObject({
    clientId: "app-1",
    account: "Shop North",
    redirectUri: `https://broker.example/callback/${row.provider}/app`,
    destination: { provider: row.provider, clientRef: "c-1", clientId: "app-1", inputs: { shop: "north" } },
  });
});

it("a connection whose inputs somebody else has written is refused", async () => {
  const changed = { ...ours, inputs: { shop: "south" } };
  await expect(contextOf({ row: changed, client })).rejects.toThrow(UnreadableSecretError);
});

it("a client whose inputs somebody else has written is refused", async () => {
  const changed = { ...client, inputs: { domain: "evil.example" } };
  await expect(contextOf({ row: ours, client: changed })).rejects.toThrow(UnreadableSecretError);
});

it("a client that was read with its connection is proven before a request is made of it", async () => {
  expect((await prepare(client)).client).toEqual(client);
  await expect(prepare({ ...client, clientId: "evil" })).rejects.toThrow(UnreadableSecretError);
});
