import { randomBytes, randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import type { SpoolEntry } from "../../../src/coordination/spool.ts";
import { createCurrentKey } from "../../../src/encryption/current-key.ts";
import { encryptionTimes } from "../../../src/time.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { manualClock } from "../tokens/manual-clock.ts";

type Folder = { inJournal?: () => Promise<string[]>; list?: () => Promise<SpoolEntry[]> };

/** A replica with two keys, which holds what is in this folder. */
function replicaWith({ inJournal = async () => [], list = async () => [] }: Folder) {
  const clock = manualClock();
  const key = createCurrentKey({
    self: { id: randomUUID() },
    keyring: createKeyring(["k2", "k1"].map((id) => ({ id, key: randomBytes(32) }))),
    known: { adopt: async () => null },
    files: {
      name: "data_dir",
      list,
      find: async () => [],
      replace: async () => false,
      async put() {},
      async remove() {},
    },
    records: (record) => ({ record, isMoved: false, isOpen: true, keyIds: [], keyIdsBefore: [] }),
    unstored: () => [],
    inJournal,
    clock,
    log: { error() {} },
    onError() {},
  });
  return { key, clock };
}

test("a replica holds the keys under which entries of the audit wait in its folder, while it runs and when it stops", async () => {
  let journaled = ["k1"];
  const { key } = replicaWith({ inJournal: async () => journaled });
  expect([(await key.told()).held, (await key.toldNow()).held]).toEqual([["k1"], ["k1"]]);
  journaled = [];
  expect([(await key.told()).held, (await key.toldNow()).held]).toEqual([[], []]);
});

test("a spool folder that hangs holds up one beat, for a second; until it answers, it may hold something under any key", async () => {
  const disk = Promise.withResolvers<SpoolEntry[]>();
  let looks = 0;
  const { key, clock } = replicaWith({ list: async () => (looks++ === 0 ? [] : await disk.promise) });
  expect((await key.told()).held).toEqual([]);
  await clock.pass(encryptionTimes.spoolLookMs);
  const told = key.told();
  await clock.pass(encryptionTimes.spoolPatienceMs);
  expect([(await told).held, (await key.toldNow()).held, looks]).toEqual([["k1", "k2"], ["k1", "k2"], 2]);
  disk.resolve([]);
  await disk.promise;
  await clock.pass(0);
  expect((await key.toldNow()).held).toEqual([]);
});
