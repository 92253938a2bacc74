import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import { StartupError, UnreadableSecretError } from "../errors.ts";

/** Where a sealed value is stored. The record is bound to all of it, so a record that somebody moves elsewhere does not open. */
export type Place = {
  table: string;
  /** Primary key of the row. */
  row: string;
  column: string;
  /** For token columns the generation, for other secrets their own revision. */
  revision: number;
  /** For a secret that is sent to a host: bound as well, so that it opens for no other host. */
  destination?: Destination;
};

/** Whose secret it is, and every value that decides to which host it is sent. */
export type Destination = {
  name: string;
  parent: string | null;
  provider: string;
  /** The id of the client's row. */
  client: string | null;
  /** The inputs of connection and client together. */
  inputs: Readonly<Record<string, string>>;
  /** The names of inputs that fill a host when the value is sealed. A record carries these names, and is opened with its own. */
  hosts: readonly string[];
  /** Captured from a callback, an answer or a lookup. */
  captured: Readonly<Record<string, string>>;
  account: Readonly<Record<string, string>>;
};

/** Seals with the current key and opens with all of them. */
export type Keyring = {
  /** In the order of ENCRYPTION_KEYS. */
  readonly ids: readonly string[];
  /** The id of the key that seals and signs. */
  current(): string;
  /** Makes this key the current one. @throws Error when it is not in the ring */
  use(id: string): void;
  seal(plaintext: string, place: Place): Uint8Array<ArrayBuffer>;
  /** @throws UnreadableSecretError when the key is not in the ring or the record does not belong to this place. */
  open(record: Uint8Array, place: Place): string;
  /** The same value under the current key, bound to the same inputs. @throws UnreadableSecretError as `open` does */
  reseal(record: Uint8Array, place: Place): Uint8Array<ArrayBuffer>;
  /** Seals with this key of the ring. @throws Error when it is not there */
  sealWith(id: string, plaintext: string, place: Place): Uint8Array<ArrayBuffer>;
  /** The id of the key that a record names, which need not be in the ring. Null: it has not the form of one. */
  readableKeyId(record: Uint8Array): string | null;
  /** The inputs that a record is bound to. With others it does not open. @throws Error when it is no record */
  hostsOf(record: Uint8Array): string[];
  /**
   * 32 bytes for another purpose (RFC 5869), from the key that made `proof`. They are the same on all replicas, and stay the same as long as
   * the proof is valid. @throws Error when that key is not in the ring
   */
  deriveWith(proof: string, purpose: string): Uint8Array;
  /**
   * The MAC that proves that this broker wrote `text`: `<key id>.<HMAC-SHA-256 in base64url>` (RFC 2104), made with the current key. It is
   * valid for one purpose only.
   */
  sign(purpose: string, text: string): string;
  /** The MACs of `text` with every key of the ring, the current one first: by which of them something was noted before the key changed. */
  signWithEach(purpose: string, text: string): string[];
  verify(purpose: string, text: string, proof: string): Authenticity;
};

/**
 * `unknown_key`: made with a key that is not in this ring. The caller must find out whether another replica has that key (then this
 * replica cannot tell) or none has (then it counts as forged).
 */
export type Authenticity = "authentic" | "forged" | "unknown_key";

/** A keyring of at least one key. The first of them is the current one, until `use` is called. */
export function createKeyring(keys: readonly { id: string; key: Buffer }[]): Keyring {
  const [first] = keys;
  if (first === undefined) throw new StartupError("ENCRYPTION_KEYS must hold at least one key");
  // Key objects: from plain bytes Node makes one for every call, which costs more than the call itself.
  const objects = keys.map(({ id, key }) => ({ id, key: createSecretKey(key) }));
  const ring = objects.map(({ id, key }) => ({ id, key, proofKey: proofKeys(key) }));
  const byId = new Map(ring.map((one) => [one.id, one]));
  let current = byId.get(first.id) as (typeof ring)[number];
  const inRing = (id: string): typeof current => {
    const wanted = byId.get(id);
    if (wanted === undefined) throw new Error("this key is not in ENCRYPTION_KEYS");
    return wanted;
  };
  const sealWith = ({ id: keyId, key }: typeof current, plaintext: string, place: Place) =>
    new Uint8Array(seal(plaintext, { keyId, key, place, random: randomBytes }));
  const macOf = ({ id, proofKey }: typeof current, purpose: string, text: string) =>
    `${id}.${hmac(proofKey(purpose), text).toString("base64url")}`;
  return {
    ids: keys.map(({ id }) => id),
    current: () => current.id,
    use: (id) => void (current = inRing(id)),
    seal: (plaintext, place) => sealWith(current, plaintext, place),
    sealWith: (id, plaintext, place) => sealWith(inRing(id), plaintext, place),
    reseal(record, place) {
      const text = this.open(record, place);
      const { destination } = place;
      return this.seal(
        text,
        destination ? { ...place, destination: { ...destination, hosts: hostsOf(record) } } : place,
      );
    },
    open(record, place) {
      const keyId = readableKeyId(record);
      const key = byId.get(keyId ?? "")?.key;
      if (key === undefined) {
        throw new UnreadableSecretError(place, { keyId, reason: keyId === null ? "no_record" : "unknown_key" });
      }
      try {
        return open(record, key, place);
      } catch {
        throw new UnreadableSecretError(place, { keyId, reason: "does_not_open" });
      }
    },
    readableKeyId,
    hostsOf,
    deriveWith(proof, purpose) {
      const key = byId.get(keyIdOfProof(proof))?.key;
      if (key === undefined) throw new Error("the key that made this proof is not in ENCRYPTION_KEYS");
      return new Uint8Array(hkdfSync("sha256", key, "freshet", purpose, 32));
    },
    sign: (purpose, text) => macOf(current, purpose, text),
    signWithEach: (purpose, text) =>
      [current, ...ring.filter((one) => one !== current)].map((one) => macOf(one, purpose, text)),
    verify(purpose, text, proof) {
      const id = keyIdOfProof(proof);
      const keyFor = byId.get(id)?.proofKey;
      if (keyFor === undefined) return "unknown_key";
      const given = Buffer.from(proof.slice(id.length + 1), "base64url");
      const expected = hmac(keyFor(purpose), text);
      return given.length === expected.length && timingSafeEqual(given, expected) ? "authentic" : "forged";
    },
  };
}

/** The id of the key that made a MAC. base64url has no dot, but a key id may have one. */
export function keyIdOfProof(proof: string): string {
  return proof.slice(0, Math.max(proof.lastIndexOf("."), 0));
}

/** The key id of a record, if it has the form that ENCRYPTION_KEYS allows; else null. Other bytes are not logged. */
export function readableKeyId(record: Uint8Array): string | null {
  try {
    const id = keyIdOf(record);
    return /^[\w.-]{1,32}$/.test(id) ? id : null;
  } catch {
    return null;
  }
}

/** There are few purposes, and MACs are checked at every read, so each key is derived once. */
function proofKeys(key: KeyObject): (purpose: string) => KeyObject {
  const derived = new Map<string, KeyObject>();
  return (purpose) => {
    const known =
      derived.get(purpose) ?? createSecretKey(Buffer.from(hkdfSync("sha256", key, "freshet proof", purpose, 32)));
    derived.set(purpose, known);
    return known;
  };
}

function hmac(key: KeyObject, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

/**
 * The key with which a replica seals: the first of its own list that all others have, too; null: there is none.
 * @param others the key ids of each other replica that is present
 */
export function commonKey(own: readonly string[], others: readonly (readonly string[])[]): string | null {
  return own.find((id) => others.every((list) => list.includes(id))) ?? null;
}

/** The check record of a key. It also marks the sealed format (src/upgrade.ts): a database that has it in this form accepts no older form. */
const checkText = "freshet keyring check";
export const keyCheckPlace = (id: string): Place => ({
  table: "encryption_keys",
  row: id,
  column: "check_sealed",
  revision: 0,
});

/** A sealed constant by which others can tell that their key of this id has the same bytes. It is sealed with that key. */
export function sealKeyCheck(keyring: Keyring, id: string): Uint8Array<ArrayBuffer> {
  return keyring.sealWith(id, checkText, keyCheckPlace(id));
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
    if (!isKeyCheck(keyring, id, check)) {
      throw new StartupError(
        `ENCRYPTION_KEYS has other bytes for the key "${id}" than those that sealed the data in the database`,
      );
    }
  }
}

/** Whether a key of the ring made this check record, so that it has the same bytes. */
export function isKeyCheck(keyring: Pick<Keyring, "open">, id: string, record: Uint8Array): boolean {
  try {
    return keyring.open(record, keyCheckPlace(id)) === checkText;
  } catch {
    return false;
  }
}

/**
 * What a record that does not open counts as. `silent`: another replica may be able to open it, so this one cannot tell. `absent`: no
 * replica can open it, so it counts as not being there.
 */
export type Absence = "silent" | "absent";

/** The keys that the database names: every key that a replica may have sealed with, until a rotation has freed it. */
export type KeyList = {
  /** `id`: the key id in a record or a MAC, if this ring has no such key. Null: it has none. */
  absenceOf(keyId: string | null): Promise<Absence>;
  isSilent(error: UnreadableSecretError): Promise<boolean>;
};

/**
 * @param list reads the ids that the database names. A question gets a list that was read after it was asked, since a replica adds its key
 * right before it first seals with it. Questions at the same moment share one query. If the database does not answer, nobody knows.
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

const algorithm = "aes-256-gcm";
const formatVersion = 2;
const saltBytes = 32;
const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

type SealOptions = { keyId: string; key: Buffer | KeyObject; place: Place; random: (size: number) => Buffer };

/**
 * Encrypts with AES-256-GCM (NIST SP 800-38D), under a key and a nonce of the record's own: HKDF-SHA-256 (RFC 5869) of the
 * ring's key and a random salt. No two records share a key, so that no number of records under one key has to be counted.
 * The record: version (1 byte), length of key id (1), key id, length of names (2), names of inputs (JSON), salt (32), tag (16),
 * ciphertext. The AAD: all before the tag, the place, and the destination.
 */
export function seal(plaintext: string, { keyId, key, place, random }: SealOptions): Buffer {
  const id = Buffer.from(keyId);
  const hosts = [...(place.destination?.hosts ?? [])].sort();
  const names = Buffer.from(JSON.stringify(hosts));
  const lengthOfNames = Buffer.alloc(2);
  lengthOfNames.writeUInt16BE(names.length);
  const salt = random(saltBytes);
  const header = Buffer.concat([Buffer.from([formatVersion, id.length]), id, lengthOfNames, names, salt]);
  const cipher = createCipheriv(algorithm, ...keyAndNonce(key, salt), { authTagLength: tagBytes });
  cipher.setAAD(additionalData(header, place, hosts));
  const ciphertext = Buffer.concat([cipher.update(plaintext, "utf8"), cipher.final()]);
  return Buffer.concat([header, cipher.getAuthTag(), ciphertext]);
}

/** The id of the key that sealed a record. @throws Error when it is no record */
export function keyIdOf(record: Uint8Array): string {
  return parse(record).keyId;
}

/** The inputs that a record is bound to. @throws Error when it is no record */
export function hostsOf(record: Uint8Array): string[] {
  return JSON.parse(parse(record).names) as string[];
}

/** Decrypts a record. @throws Error when the key, the place, the destination or a single bit differs from what was sealed. */
export function open(record: Uint8Array, key: Buffer | KeyObject, place: Place): string {
  const { header, names, salt, tag, ciphertext } = parse(record);
  const decipher = createDecipheriv(algorithm, ...keyAndNonce(key, salt), { authTagLength: tagBytes });
  decipher.setAAD(additionalData(header, place, JSON.parse(names) as string[]));
  decipher.setAuthTag(tag);
  return Buffer.concat([decipher.update(ciphertext), decipher.final()]).toString("utf8");
}

function parse(record: Uint8Array) {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const namesAt = 4 + (bytes[1] ?? 0);
  if (bytes[0] !== formatVersion || bytes.length < namesAt) throw new Error("not a sealed record");
  const saltAt = namesAt + bytes.readUInt16BE(namesAt - 2);
  const tagAt = saltAt + saltBytes;
  if (bytes.length < tagAt + tagBytes) throw new Error("not a sealed record");
  return {
    keyId: bytes.toString("utf8", 2, namesAt - 2),
    names: bytes.toString("utf8", namesAt, saltAt),
    salt: bytes.subarray(saltAt, tagAt),
    header: bytes.subarray(0, tagAt),
    tag: bytes.subarray(tagAt, tagAt + tagBytes),
    ciphertext: bytes.subarray(tagAt + tagBytes),
  };
}

function keyAndNonce(key: Buffer | KeyObject, salt: Buffer): [Buffer, Buffer] {
  const bytes = Buffer.from(hkdfSync("sha256", key, salt, "freshet sealed record 2", keyBytes + nonceBytes));
  return [bytes.subarray(0, keyBytes), bytes.subarray(keyBytes)];
}

/** As JSON, the parts cannot run into each other, whatever characters they hold. */
function additionalData(header: Buffer, place: Place, hosts: readonly string[]): Buffer {
  const { table, row, column, revision, destination } = place;
  const bound = destination === undefined ? null : boundParts(destination, hosts);
  return Buffer.concat([header, Buffer.from(JSON.stringify([table, row, column, revision, bound]))]);
}

function boundParts(
  { name, parent, provider, client, inputs, captured, account }: Destination,
  hosts: readonly string[],
) {
  const values = hosts.map((host) => (Object.hasOwn(inputs, host) ? inputs[host] : null));
  return [name, parent, provider, client, values, sorted(captured), sorted(account)];
}

/** The same text for the same values, in whatever order the database returns them. */
function sorted(map: Readonly<Record<string, string>>): [string, string][] {
  return Object.entries(map).sort(([one], [other]) => (one < other ? -1 : 1));
}
