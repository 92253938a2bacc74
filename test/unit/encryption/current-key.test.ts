import { randomBytes, randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { createCurrentKey } from "../../../src/encryption/current-key.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { manualClock } from "../tokens/manual-clock.ts";

test("a replica holds the keys under which entries of the audit wait in its folder, while it runs and when it stops", async () => {
  const keyring = createKeyring(["k2", "k1"].map((id) => ({ id, key: randomBytes(32) })));
  let journaled = ["k1"];
  const key = createCurrentKey({
    self: { id: randomUUID() },
    keyring,
    known: { adopt: async () => null },
    files: {
      name: "data_dir",
      list: async () => [],
      find: async () => [],
      replace: async () => false,
      async put() {},
      async remove() {},
    },
    records: (record) => ({ record, isMoved: false, isOpen: true, keyIds: [], keyIdsBefore: [] }),
    unstored: () => [],
    inJournal: async () => journaled,
    clock: manualClock(),
    log: { error() {} },
    onError() {},
  });
  expect([(await key.told()).held, (await key.toldNow()).held]).toEqual([["k1"], ["k1"]]);
  journaled = [];
  expect([(await key.told()).held, (await key.toldNow()).held]).toEqual([[], []]);
});
