import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { createEncryptionService } from "../../../src/encryption/service.ts";
import type { Principal } from "../../../src/services/principal.ts";
import type { RotationRow } from "../../../src/store/rotations.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";

const unopened = (table: string, name: string | null) => ({
  table,
  id: `id of ${name}`,
  name,
  column: "c",
  keyId: "k1",
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
    keyring: createKeyring([{ id: "k2", key: randomBytes(32) }]),
    rotations: { newest: async () => row },
  } as unknown as Parameters<typeof createEncryptionService>[0]);
  const principal: Principal = {
    keyId: "k",
    actor: { kind: "key", id: "k", name: null },
    abilities: ["admin"],
    connections: ["acme-*"],
    expiresAt: null,
  };
  const names = (await service.rotation(principal)).unopened.map(({ name }) => name);
  expect(names).toEqual(["acme-one", null, "acme-one", null, "app", null]);
});
