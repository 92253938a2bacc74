import { type Clock, withDeadline } from "../clock.ts";
import type { ResealedSpool, SpoolEntry } from "../coordination/spool.ts";
import type { EncryptionKeys, ToldKeys } from "../store/replicas.ts";
import { encryptionTimes } from "../time.ts";
import { type AnswerRecord, sealsIn } from "../tokens/seal.ts";
import { commonKey, isKeyCheck, type Keyring, readableKeyId, sealKeyCheck } from "../vault/keyring.ts";
import type { RecordMover } from "./resealing.ts";

/** The key with which this replica seals, and what the others learn of its keys: docs/internals/key-rotation.md. */
export type CurrentKey = {
  /** What this replica tells with each beat. Never rejects. */
  told(): Promise<ToldKeys>;
  /** Looks into its own spool folder first, and moves what is there to the current key. Never rejects. */
  toldNow(): Promise<ToldKeys>;
  /** After a beat: begins to use another key, where that is the first one that all have. Does not wait. */
  heard(beat: { keyLists: readonly (readonly string[])[]; isNamed: boolean }): void;
};

type Options = {
  self: { id: string };
  keyring: Keyring;
  known: Pick<EncryptionKeys, "adopt">;
  /** The spool in this process's own folder. */
  files: ResealedSpool;
  records: RecordMover;
  /** The answers that the database does not have yet. */
  unstored: () => readonly AnswerRecord[];
  /** The keys under which entries of the audit wait in this process's own folder. Never rejects. */
  inJournal: () => Promise<readonly string[]>;
  clock: Pick<Clock, "monotonicMs" | "sleep">;
  log: { error(fields: { key: string }, text: string): void };
  onError: (error: unknown) => void;
};

export function createCurrentKey(options: Options): CurrentKey {
  const { self, keyring, known, files, records, unstored, inJournal, clock, log, onError } = options;
  /** When each key was last the current one; what it has sealed may still be on the way to the database. */
  const usedUntilMs = new Map<string, number>();
  /** Before the first look, anything may be there. */
  let inFolder: { ids: readonly string[]; lookedMs: number } = { ids: keyring.ids, lookedMs: -Infinity };
  /** A look has not ended in time, and has not ended yet: anything may be there. */
  let hangs = false;
  let choosing: Promise<void> | null = null;

  const look = async (): Promise<void> => {
    if (hangs) return;
    const looked = keyIdsInSpool(records, files)
      .then((ids) => void (inFolder = { ids, lookedMs: clock.monotonicMs() }))
      .catch(onError) // what was seen before counts
      .then(() => (hangs = false));
    if ((await withDeadline(looked, encryptionTimes.spoolPatienceMs, clock)) !== null) return;
    hangs = true;
    inFolder = { ids: keyring.ids, lookedMs: -Infinity };
  };

  const heldWith = (journaled: readonly string[]): string[] => {
    const nowMs = clock.monotonicMs();
    const settling = [...usedUntilMs].filter(([, untilMs]) => nowMs - untilMs < encryptionTimes.settleMs);
    const inMemory = unstored().flatMap(sealsIn).map(readableKeyId);
    const ids = [...inFolder.ids, ...journaled, ...settling.map(([id]) => id), ...inMemory];
    return [...new Set(ids.filter((id) => id !== null))].sort();
  };

  const told = async (): Promise<ToldKeys> => {
    const journaled = await inJournal();
    return { ids: keyring.ids, current: keyring.current(), held: heldWith(journaled) };
  };

  /** @throws while Postgres is away: the key before stays */
  const adopt = async (id: string): Promise<void> => {
    const check = await known.adopt(self.id, { id, check: sealKeyCheck(keyring, id) });
    if (check === null) return; // a replica that lacks it has come meanwhile
    if (!isKeyCheck(keyring, id, check)) {
      log.error({ key: id }, otherBytes(id));
      return;
    }
    const before = keyring.current();
    if (before === id) return;
    keyring.use(id);
    usedUntilMs.set(before, clock.monotonicMs());
  };

  return {
    async told() {
      if (clock.monotonicMs() - inFolder.lookedMs >= encryptionTimes.spoolLookMs) await look();
      return await told();
    },
    async toldNow() {
      await look();
      return await told();
    },
    heard({ keyLists, isNamed }) {
      const wanted = commonKey(keyring.ids, keyLists) ?? keyring.current();
      if (choosing !== null || (wanted === keyring.current() && isNamed)) return;
      choosing = adopt(wanted)
        .catch(onError)
        .finally(() => (choosing = null));
    },
  };
}

const otherBytes = (id: string) =>
  `ENCRYPTION_KEYS has other bytes for the key "${id}" than another replica, so this one does not use it: give all replicas the same keys`;

/** The ids of all keys under which something is in this place. What can be moved to the current key is moved first. */
export async function keyIdsInSpool(records: RecordMover, place: ResealedSpool): Promise<string[]> {
  const ids = (await place.list()).map(async (entry) => await keyIdsAfterMoving(records, place, entry));
  return [...new Set((await Promise.all(ids)).flat())];
}

async function keyIdsAfterMoving(records: RecordMover, place: ResealedSpool, entry: SpoolEntry): Promise<string[]> {
  const { record, isMoved, keyIds } = records(entry.record, entry);
  if (!isMoved) return keyIds;
  // If it is not there any more as it was read, the next look finds what is there.
  return (await place.replace(entry, new Uint8Array(record)))
    ? keyIds
    : [...keyIds, ...records(entry.record, entry).keyIdsBefore];
}
