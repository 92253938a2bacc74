import type { UnreadableSecretError } from "../unreadable.ts";

/**
 * What a record means that does not open. `silent`: another replica may be able to open it, so nobody knows yet what it says.
 * `absent`: nobody can, it counts as not being there.
 */
export type Absence = "silent" | "absent";

/** Which keys the database names: those that any replica has sealed with. */
export type KeyList = {
  /** For the id that a record or a proof names, when this ring has no such key. Null: it names none. */
  absenceOf(keyId: string | null): Promise<Absence>;
  isSilent(error: UnreadableSecretError): Promise<boolean>;
};

/**
 * @param list reads the ids that the database names; while it does not answer, nobody knows. Who asks gets a list that was read
 * after the question, since a replica names its key right before it first seals with it; all questions of a moment share one.
 */
export function createKeyList(list: () => Promise<string[]>): KeyList {
  let reading: Promise<unknown> = Promise.resolve();
  let next: Promise<string[] | null> | null = null;
  const readNext = (): Promise<string[] | null> => {
    next ??= reading.then(() => {
      next = null;
      const ids = list().catch(() => null);
      reading = ids;
      return ids;
    });
    return next;
  };
  const absenceOf = async (keyId: string | null): Promise<Absence> => {
    if (keyId === null) return "absent";
    const ids = await readNext();
    return ids === null || ids.includes(keyId) ? "silent" : "absent";
  };
  return {
    absenceOf,
    isSilent: async ({ reason, keyId }) => reason === "unknown_key" && (await absenceOf(keyId)) === "silent",
  };
}
