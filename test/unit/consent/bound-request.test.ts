import { randomBytes } from "node:crypto";
import { expect, it } from "vitest";
import { type BoundRequest, hex, openBound, sealBound } from "../../../src/consent/bound-request.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";

const vault = createTokenVault(createKeyring([{ id: "k1", key: randomBytes(32) }]));
const [stateHash, browserHash] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
const bound: BoundRequest = {
  stateHash: hex(stateHash),
  connectionId: "c-1",
  linkId: "l-1",
  browserHash: hex(browserHash),
  redirectUri: "https://broker.example/callback/own",
  codeVerifier: "verifier",
  nonce: null,
  issuer: { issuer: null, isRequired: false } as unknown as BoundRequest["issuer"],
  destination: { provider: "own", clientRef: null, clientId: "app", inputs: {} },
};
const row = { id: "r-1", connectionId: "c-1", linkId: "l-1", browserHash, request: sealBound(vault, "r-1", bound) };

it("a request is what it was sealed with, as long as its row says the same", () => {
  expect(openBound(vault, row, stateHash)).toEqual(bound);
});

it.each([
  ["connection", { connectionId: "c-2" }],
  ["link", { linkId: "l-2" }],
  ["browser", { browserHash: stateHash }],
  ["id", { id: "r-2" }],
  ["sealed request", { request: new Uint8Array(80) }],
])("a request whose row has another %s counts for nothing", (_what, change) => {
  expect(openBound(vault, { ...row, ...change }, stateHash)).toBeNull();
});

it("a request that is found by another state counts for nothing", () => {
  expect(openBound(vault, row, browserHash)).toBeNull();
});
