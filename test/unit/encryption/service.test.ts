import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { createEncryptionService } from "../../../src/encryption/service.ts";
import type { Principal } from "../../../src/callers/principal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";

const principal: Principal = {
  callerId: "k",
  labels: {},
  actor: { kind: "key", id: "k", name: null },
  abilities: ["admin"],
  connections: ["*"],
  expiresAt: null,
};
const keys = createKeyring(["k2", "k1"].map((id) => ({ id, key: randomBytes(32) })));
type Parts = Parameters<typeof createEncryptionService>[0];

test("a principal whose patterns do not cover *, or which is bound to labels, learns nothing of the keys and begins no rotation", async () => {
  const service = createEncryptionService({ keyring: keys } as unknown as Parts);
  const bound = { ...principal, labels: { customer: "acme" } };
  for (const narrow of [{ ...principal, connections: ["acme-*"] }, bound]) {
    const refused = [service.status(narrow), service.rotation(narrow), service.rotate(narrow, [])];
    for (const each of refused) await expect(each).rejects.toMatchObject({ code: "forbidden" });
  }
});

test("a key is not free while the database names it, where nothing else is under it: entries of the audit may be", async () => {
  const service = createEncryptionService({
    self: { id: "r1", name: "r1:8080" },
    keyring: keys,
    tables: [],
    rotations: { newest: async () => null },
    replicas: { instances: async () => [] },
    known: { list: async () => [{ id: "k1" }, { id: "k2" }] },
    currentKey: { toldNow: async () => ({ ids: keys.ids, current: "k2", held: [] }) },
    marks: { count: async () => ({ byKey: new Map() }) },
    shared: null,
  } as unknown as Parts);
  const { keys: found } = await service.status(principal);
  expect(found.find(({ id }) => id === "k1")).toMatchObject({ isFree: false, isNamed: true });
  expect(found.find(({ id }) => id === "k1")?.reasons.join()).toContain("freshet encryption rotate");
});
