import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { UnreadableSecretError } from "../../../src/errors.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault, type TokenVault } from "../../../src/vault/vault.ts";

const [one, two] = [
  { id: "k1", key: randomBytes(32) },
  { id: "k2", key: randomBytes(32) },
];
const told: UnreadableSecretError[] = [];
const vault = createTokenVault(createKeyring([one]), { onForged: (error) => void told.push(error) });
const at = new Date("2026-11-28T10:00:00.000Z");
const bytes = new Uint8Array([1, 2, 3]);

const connection = {
  id: "c1",
  name: "acme",
  parentId: null,
  chain: null,
  provider: "own",
  clientRef: "k",
  grant: "password",
  scopes: ["read"],
  inputs: { shop: "north" },
  labels: { team: "a" },
  status: "connected",
  credentialsRevision: 0,
};
const client = {
  id: "k",
  name: "app",
  provider: "own",
  clientId: "app-1",
  patterns: ["a-*"],
  scopes: ["read"],
  inputs: { shop: "north" },
  ownRedirectUri: false,
  secretRevision: 0,
};
const key = {
  id: "1",
  name: "reader",
  secretHash: bytes,
  abilities: ["tokens"],
  connections: ["a-*"],
  labels: { customer: "acme" },
  expiresAt: at,
  revokedAt: at,
  createdAt: at,
};
const link = {
  id: "l",
  connectionId: "c1",
  secretHash: bytes,
  returnTo: "https://app.example/",
  manual: false,
  purpose: "Invoices",
  createdBy: "k1",
  expiresAt: at,
  claimedBy: bytes,
};
const heldGrant = {
  attemptId: "a",
  connectionId: "c1",
  generation: 3,
  account: "ada",
  accountLabel: "Ada",
  linkId: "l",
  accepted: false,
};
const rows = { connections: connection, clients: client, keys: key, links: link, unconfirmedGrants: heldGrant };
type Table = keyof typeof rows;
const tables = Object.keys(rows) as Table[];

/** Every table has the same two calls, each for rows of its own. */
type Own = { sign(row: object): string; check(row: object): void; isOurs(row: object): boolean };
const proofs = (table: Table, of: TokenVault = vault): Own => of[table];
const changed = (value: unknown): unknown => {
  if (typeof value === "boolean") return !value;
  if (typeof value === "number") return value + 1;
  if (value instanceof Date || value instanceof Uint8Array) return null;
  if (Array.isArray(value)) return [...(value as unknown[]), "*"];
  return typeof value === "object" && value !== null ? { ...value, shop: "evil.example" } : `${String(value)}x`;
};

describe.each(tables)("a proof of a row of %s", (table) => {
  const row = rows[table];
  const own = proofs(table);
  const mac = own.sign(row);

  it("holds for what this broker wrote, in whichever order a database gives the parts of a map", () => {
    expect(() => own.check({ ...row, mac })).not.toThrow();
    expect(own.isOurs({ ...Object.fromEntries(Object.entries(row).toReversed()), mac })).toBe(true);
  });

  it.each(Object.keys(row).filter((name) => name !== "status"))("does not hold once %s has changed", (name) => {
    const forged = { ...row, mac, [name]: changed((row as Record<string, unknown>)[name]) };
    expect(() => own.check(forged)).toThrow(
      expect.objectContaining({ code: "unreadable_secret", reason: "does_not_open" }),
    );
    expect(own.isOurs(forged)).toBe(false);
    expect(told.at(-1)?.place.column).toBe("mac");
  });

  it("is not missing, nor another table's, nor another ring's", () => {
    const others = tables.filter((other) => other !== table).map((other) => proofs(other).sign(rows[other]));
    const foreign = proofs(table, createTokenVault(createKeyring([{ ...two, id: "k1" }]))).sign(row);
    for (const wrong of [null, "", "k1.", ...others, foreign]) expect(own.isOurs({ ...row, mac: wrong })).toBe(false);
  });

  it("made with a key that this ring lacks says which one, since another replica may have it", () => {
    const later = proofs(table, createTokenVault(createKeyring([two, one]))).sign(row);
    expect(() => own.check({ ...row, mac: later })).toThrow(
      expect.objectContaining({ reason: "unknown_key", keyId: "k2" }),
    );
    expect(proofs(table, createTokenVault(createKeyring([two, one]))).isOurs({ ...row, mac })).toBe(true);
  });
});

it("a key from before there were labels has a proof that still holds, as a key without labels and no other", () => {
  const { labels: _labels, ...before } = key;
  const text = JSON.stringify([{ ...before, secretHash: "010203" }]);
  const mac = createKeyring([one]).sign("api_keys", text);
  expect(vault.keys.isOurs({ ...before, labels: {}, mac })).toBe(true);
  expect(vault.keys.isOurs({ ...key, mac })).toBe(false);
  expect(vault.keys.isOurs({ ...before, labels: {}, mac: vault.keys.sign(key) })).toBe(false);
});

it("a connection's status moves without a new proof, unless it is disabled or enabled", () => {
  const mac = vault.connections.sign(connection);
  for (const status of ["pending", "needs_reauthorization"]) {
    expect(vault.connections.isOurs({ ...connection, status, mac })).toBe(true);
  }
  expect(vault.connections.isOurs({ ...connection, status: "disabled", mac })).toBe(false);
});
