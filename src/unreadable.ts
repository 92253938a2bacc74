import { publicName } from "./chain-name.ts";
import { BrokerError } from "./errors.ts";

/**
 * - `no_record`: the bytes are none of our records.
 * - `unknown_key`: the key that it names is not in this ring. Only the database's list of keys tells whether another replica
 *   may have it (`createKeyList`).
 * - `does_not_open`: changed, moved from another place, or sealed with other bytes under the same key id.
 */
type UnreadableReason = "no_record" | "unknown_key" | "does_not_open";

/** A sealed value that does not open. Names where it lies and which key it asks for, and holds nothing of its bytes. */
export class UnreadableSecretError extends BrokerError {
  readonly place: SealedPlace;
  /** Null: it is no record, or what stands in the place of the id cannot be one. */
  readonly keyId: string | null;
  readonly reason: UnreadableReason;

  constructor(
    { table, row, column }: SealedPlace,
    { keyId, reason }: { keyId: string | null; reason: UnreadableReason },
  ) {
    const what = column.replace(/_sealed$/, "").replaceAll("_", " ");
    super("unreadable_secret", `The stored ${what} cannot be opened; the broker's log names its row and key.`);
    this.name = "UnreadableSecretError";
    this.place = { table, row, column };
    this.keyId = keyId;
    this.reason = reason;
  }

  /** The same, with the connection that it keeps from its token. */
  of(connection: string): this {
    this.context.connection = publicName(connection);
    return this;
  }
}

/** A row by its primary key, and the column. */
type SealedPlace = { table: string; row: string; column: string };

/**
 * The answer for what is proven with a key that other replicas have and this one lacks: nobody knows here whether it counts, so
 * it is neither accepted nor refused. `what`: as people call it, such as `this consent link`.
 */
export function encryptionKeyMissing(what: string): BrokerError {
  const detail = `This replica lacks an encryption key that others have, so it cannot check ${what}: ask again, or another replica. ENCRYPTION_KEYS must be the same on all; the log names the key.`;
  return new BrokerError("encryption_key_missing", detail, { retryAfterSeconds: 5 });
}

/** What `open` gives; null where that does not open, for who can do without it. */
export function openedOrNull(open: () => string | null): string | null {
  try {
    return open();
  } catch (error) {
    if (error instanceof UnreadableSecretError) return null;
    throw error;
  }
}
