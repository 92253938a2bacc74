import { BrokerError } from "../errors.ts";
import type { Place } from "./envelope.ts";

/**
 * - `no_record`: the bytes are none of our records.
 * - `unknown_key`: the key that it names is not in this ring. Only the database's list of keys tells whether another replica
 *   may have it (`createKeyList`).
 * - `does_not_open`: changed, moved from another place, or sealed with other bytes under the same key id.
 */
type UnreadableReason = "no_record" | "unknown_key" | "does_not_open";

/** A sealed value that does not open. Names where it lies and which key it asks for, and holds nothing of its bytes. */
export class UnreadableSecretError extends BrokerError {
  readonly place: Pick<Place, "table" | "row" | "column">;
  /** Null: it is no record, or what stands in the place of the id cannot be one. */
  readonly keyId: string | null;
  readonly reason: UnreadableReason;

  constructor({ table, row, column }: Place, { keyId, reason }: { keyId: string | null; reason: UnreadableReason }) {
    const what = column.replace(/_sealed$/, "").replaceAll("_", " ");
    super("unreadable_secret", `The stored ${what} cannot be opened; the broker's log names its row and key.`);
    this.name = "UnreadableSecretError";
    this.place = { table, row, column };
    this.keyId = keyId;
    this.reason = reason;
  }
}

/**
 * What a record means that does not open. `silent`: another replica may be able to open it, so nobody knows yet what it says.
 * `absent`: nobody can, it counts as not being there.
 */
type Absence = "silent" | "absent";

/** Which keys the database names: those that any replica has sealed with. */
export type KeyList = {
  /** For the id that a record or a proof names, when this ring has no such key. Null: it names none. */
  absenceOf(keyId: string | null): Promise<Absence>;
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
  return {
    async absenceOf(keyId) {
      if (keyId === null) return "absent";
      const ids = await readNext();
      return ids === null || ids.includes(keyId) ? "silent" : "absent";
    },
  };
}
