import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto";
import { StartupError, UnreadableSecretError } from "../errors.ts";
import { hostsOf, keyIdOf, open, type Place, seal } from "./envelope.ts";

/** Seals with the first key and opens with all of them. */
export type Keyring = {
  readonly ids: readonly string[];
  seal(plaintext: string, place: Place): Uint8Array<ArrayBuffer>;
  /** @throws UnreadableSecretError when the key is not in the ring or the record does not belong to this place. */
  open(record: Uint8Array, place: Place): string;
  /** The inputs that a record is bound to: with others it does not open. @throws Error when it is no record */
  hostsOf(record: Uint8Array): string[];
  /**
   * 32 bytes for another purpose (RFC 5869), the same on all replicas, from the key that made `proof`: what hangs together with
   * a proof stays the same for as long as the proof holds. @throws Error when that key is not in the ring
   */
  deriveWith(proof: string, purpose: string): Uint8Array;
  /** The same from the last key, so that adding one in front changes nothing. Only for what may change when that key retires. */
  derive(purpose: string): Uint8Array;
  /**
   * Proof that this broker wrote `text`: `<key id>.<HMAC-SHA-256 in base64url>` (RFC 2104), made with the first key. A proof for
   * one purpose is none for another.
   */
  sign(purpose: string, text: string): string;
  verify(purpose: string, text: string, proof: string): Authenticity;
};

/**
 * `unknown_key`: made with a key that is not in this ring. Whoever asks must find out whether another replica may have that key
 * (then nobody knows yet) or nobody has (then it is as good as forged).
 */
export type Authenticity = "authentic" | "forged" | "unknown_key";

/** A keyring of at least one key, the first of which encrypts. */
export function createKeyring(keys: readonly { id: string; key: Buffer }[]): Keyring {
  const [current] = keys;
  if (current === undefined) throw new StartupError("ENCRYPTION_KEYS must hold at least one key");
  const oldest = keys.at(-1) ?? current;
  const byId = new Map(keys.map(({ id, key }) => [id, key]));
  const proofKeysById = new Map(keys.map(({ id, key }) => [id, proofKeys(key)]));
  const currentProofKey = proofKeys(current.key);
  return {
    ids: keys.map(({ id }) => id),
    seal: (plaintext, place) =>
      new Uint8Array(seal(plaintext, { keyId: current.id, key: current.key, place, randomBytes })),
    open(record, place) {
      const keyId = readableKeyId(record);
      const key = byId.get(keyId ?? "");
      if (key === undefined) {
        throw new UnreadableSecretError(place, { keyId, reason: keyId === null ? "no_record" : "unknown_key" });
      }
      try {
        return open(record, key, place);
      } catch {
        throw new UnreadableSecretError(place, { keyId, reason: "does_not_open" });
      }
    },
    hostsOf,
    deriveWith(proof, purpose) {
      const key = byId.get(keyIdOfProof(proof));
      if (key === undefined) throw new Error("the key that made this proof is not in ENCRYPTION_KEYS");
      return new Uint8Array(hkdfSync("sha256", key, "freshet", purpose, 32));
    },
    derive: (purpose) => new Uint8Array(hkdfSync("sha256", oldest.key, "freshet", purpose, 32)),
    sign: (purpose, text) => `${current.id}.${hmac(currentProofKey(purpose), text).toString("base64url")}`,
    verify(purpose, text, proof) {
      const id = keyIdOfProof(proof);
      const keyFor = proofKeysById.get(id);
      if (keyFor === undefined) return "unknown_key";
      const given = Buffer.from(proof.slice(id.length + 1), "base64url");
      const expected = hmac(keyFor(purpose), text);
      return given.length === expected.length && timingSafeEqual(given, expected) ? "authentic" : "forged";
    },
  };
}

/** base64url has no dot, a key id may have. */
function keyIdOfProof(proof: string): string {
  return proof.slice(0, Math.max(proof.lastIndexOf("."), 0));
}

/** What a log may repeat of a record: an id as ENCRYPTION_KEYS allows it, and no other bytes. */
function readableKeyId(record: Uint8Array): string | null {
  try {
    const id = keyIdOf(record);
    return /^[\w.-]{1,32}$/.test(id) ? id : null;
  } catch {
    return null;
  }
}

/** Purposes are few and fixed, and proofs are checked at every read: each key is derived once. */
function proofKeys(key: Buffer): (purpose: string) => Uint8Array {
  const derived = new Map<string, Uint8Array>();
  return (purpose) => {
    const known = derived.get(purpose) ?? new Uint8Array(hkdfSync("sha256", key, "freshet proof", purpose, 32));
    derived.set(purpose, known);
    return known;
  };
}

function hmac(key: Uint8Array, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

/** The mark of the sealed format (upgrade/sealed-format.ts): a database that holds it in this form takes no older one. */
const checkText = "freshet keyring check";
export const keyCheckPlace = (id: string): Place => ({
  table: "encryption_keys",
  row: id,
  column: "check_sealed",
  revision: 0,
});

/** A sealed constant by which a later start can tell that a key of this id still has the same bytes. */
export function sealKeyCheck(key: { id: string; key: Buffer }): Uint8Array<ArrayBuffer> {
  return createKeyring([key]).seal(checkText, keyCheckPlace(key.id));
}

/**
 * Compares the keyring with the keys that the database knows.
 * @throws StartupError naming the key that is missing, or that has other bytes than the one that sealed the data.
 */
export function verifyKeyring(
  keyring: Pick<Keyring, "ids" | "open">,
  known: readonly { id: string; check: Uint8Array }[],
): void {
  for (const { id, check } of known) {
    if (!keyring.ids.includes(id)) {
      throw new StartupError(
        `ENCRYPTION_KEYS lacks the key "${id}", with which data in the database is sealed; it has ${keyring.ids.join(", ")}`,
      );
    }
    if (!opens(keyring, check, keyCheckPlace(id))) {
      throw new StartupError(
        `ENCRYPTION_KEYS has other bytes for the key "${id}" than those that sealed the data in the database`,
      );
    }
  }
}

function opens(keyring: Pick<Keyring, "open">, record: Uint8Array, place: Place): boolean {
  try {
    return keyring.open(record, place) === checkText;
  } catch {
    return false;
  }
}

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
