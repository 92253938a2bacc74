import { randomBytes } from "node:crypto";
import { expect, it } from "vitest";
import {
  type BoundRequest,
  type HeldBound,
  hex,
  openBound,
  openHeld,
  sealBound,
} from "../../../src/consent/bound-request.ts";
import { createResealing } from "../../../src/encryption/resealing.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";

const oldKey = { id: "k1", key: randomBytes(32) };
const vault = createTokenVault(createKeyring([oldKey]));
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

const ticketHash = new Uint8Array(32).fill(3);
const held: HeldBound = {
  ...bound,
  app: { endUser: "42", returnTo: "https://app.example/" },
  held: { ticketHash: hex(ticketHash), code: "the-code", captured: { realm: "r1" } },
};
const heldRow = { ...row, request: sealBound(vault, "r-1", held) };

it("a held code is found by its ticket alone, with all that its consent binds, and by no state", () => {
  expect(openHeld(vault, heldRow, ticketHash)).toEqual(held);
  expect(openHeld(vault, heldRow, stateHash)).toBeNull();
  expect(openBound(vault, heldRow, stateHash)).toBeNull();
  expect(openHeld(vault, row, ticketHash)).toBeNull();
});

it("a rotation of encryption keys moves a held code; a replica that lacks its key leaves it to others", () => {
  const newKey = { id: "k2", key: randomBytes(32) };
  const ring = createKeyring([newKey, oldKey]);
  const both = createTokenVault(ring);
  const moved = createResealing(ring, both).renew("authorization_requests", {
    rowId: "r-1",
    requestId: "r-1",
    request: heldRow.request,
  });
  const request = moved.change?.seals[0]?.after;
  if (request === undefined || request === null) throw new Error("nothing was moved");
  const afterwards = createTokenVault(createKeyring([newKey]));
  expect(openHeld(afterwards, { ...heldRow, request }, ticketHash)).toEqual(held);
  expect(() => openHeld(vault, { ...heldRow, request }, ticketHash)).toThrow(/lacks an encryption key/);
});
