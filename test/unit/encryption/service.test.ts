import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { createEncryptionService } from "../../../src/encryption/service.ts";
import type { Principal } from "../../../src/callers/principal.ts";
import type { RotationRow } from "../../../src/store/rotations.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";

const principal: Principal = {
  callerId: "k",
  labels: {},
  actor: { kind: "key", id: "k", name: null },
  abilities: ["admin"],
  connections: ["acme-*"],
  expiresAt: null,
};
const keys = createKeyring(["k2", "k1"].map((id) => ({ id, key: randomBytes(32) })));
type Parts = Parameters<typeof createEncryptionService>[0];

const unopened = (table: string, name: string | null) => ({
  table,
  id: `id of ${name}`,
  name,
  column: "c",
  callerId: "k1",
  labels: {},
});

test("what does not open is told without the name of a connection that the key's patterns do not cover, whatever table it is in", async () => {
  const row = {
    id: "r",
    targetKey: "k2",
    unopened: [
      unopened("connections", "acme-one"),
      unopened("connections", "other-one"),
      unopened("device_authorizations", "acme-one"),
      unopened("device_authorizations", "other-one"),
      unopened("clients", "app"),
      unopened("unread_answers", null),
    ],
  } as unknown as RotationRow;
  const service = createEncryptionService({
    keyring: keys,
    rotations: { newest: async () => row },
  } as unknown as Parts);
  const names = (await service.rotation(principal)).unopened.map(({ name }) => name);
  expect(names).toEqual(["acme-one", null, "acme-one", null, "app", null]);
});

test("a key whose patterns do not cover * gives up no answers of other connections, and no proofs of the audit", async () => {
  const service = createEncryptionService({ keyring: keys } as unknown as Parts);
  await expect(service.rotate(principal, ["away:8080"])).rejects.toMatchObject({
    code: "forbidden",
    message: expect.stringContaining("abandon_spool") as string,
  });
  await expect(service.rotate(principal, [], { acceptsAuditFaults: true })).rejects.toMatchObject({
    code: "forbidden",
    message: expect.stringContaining("accept_audit_faults") as string,
  });
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
