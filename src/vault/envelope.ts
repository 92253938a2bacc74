import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";

const algorithm = "aes-256-gcm";
const formatVersion = 2;
const saltBytes = 32;
const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/** Where a sealed value lives. All of it is bound into the record, so that a record moved elsewhere does not open. */
export type Place = {
  table: string;
  /** Primary key of the row. */
  row: string;
  column: string;
  /** For token columns the generation, for other secrets their own revision. */
  revision: number;
  /** Of a secret that is sent somewhere: bound as well, so that it opens for no other. */
  destination?: Destination;
};

/** Whose secret it is, and every value that may decide which host it is sent to. */
export type Destination = {
  name: string;
  parent: string | null;
  provider: string;
  /** The id of the client's row. */
  client: string | null;
  /** Those of connection and client that are in force. */
  inputs: Readonly<Record<string, string>>;
  /** Of these inputs, those that fill a host when it is sealed. A record carries their names, and is opened by its own. */
  hosts: readonly string[];
  /** Taken from callback, answer or lookup. */
  captured: Readonly<Record<string, string>>;
  account: Readonly<Record<string, string>>;
};

type SealOptions = { keyId: string; key: Buffer; place: Place; randomBytes: (size: number) => Buffer };

/**
 * Encrypts with AES-256-GCM (NIST SP 800-38D), under a key and a nonce of the record's own: HKDF-SHA-256 (RFC 5869) of the
 * ring's key and a random salt. No two records share a key, so that no number of records under one key has to be counted.
 * The record: version (1 byte), length of key id (1), key id, length of names (2), names of inputs (JSON), salt (32), tag (16),
 * ciphertext. The AAD: all before the tag, the place, and the destination.
 */
export function seal(plaintext: string, { keyId, key, place, randomBytes }: SealOptions): Buffer {
  const id = Buffer.from(keyId);
  const hosts = [...(place.destination?.hosts ?? [])].sort();
  const names = Buffer.from(JSON.stringify(hosts));
  const lengthOfNames = Buffer.alloc(2);
  lengthOfNames.writeUInt16BE(names.length);
  const salt = randomBytes(saltBytes);
  const header = Buffer.concat([Buffer.from([formatVersion, id.length]), id, lengthOfNames, names, salt]);
  const cipher = createCipheriv(algorithm, ...keyAndNonce(key, salt), { authTagLength: tagBytes });
  cipher.setAAD(additionalData(header, place, hosts));
  const ciphertext = Buffer.concat([cipher.update(plaintext, "utf8"), cipher.final()]);
  return Buffer.concat([header, cipher.getAuthTag(), ciphertext]);
}

/** The id of the key that sealed a record. @throws Error when it is no record of ours. */
export function keyIdOf(record: Uint8Array): string {
  return parse(record).keyId;
}

/** The inputs that a record is bound to. @throws Error when it is no record of ours. */
export function hostsOf(record: Uint8Array): string[] {
  return JSON.parse(parse(record).names) as string[];
}

/** Decrypts a record. @throws Error when the key, the place, the destination or a single bit differs from what was sealed. */
export function open(record: Uint8Array, key: Buffer, place: Place): string {
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

function keyAndNonce(key: Buffer, salt: Buffer): [Buffer, Buffer] {
  const bytes = Buffer.from(hkdfSync("sha256", key, salt, "freshet sealed record 2", keyBytes + nonceBytes));
  return [bytes.subarray(0, keyBytes), bytes.subarray(keyBytes)];
}

/** JSON keeps the parts apart whatever characters they hold. */
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

/** The same for the same values, in whatever order a database gives them. */
export function sorted(map: Readonly<Record<string, string>>): [string, string][] {
  return Object.entries(map).sort(([one], [other]) => (one < other ? -1 : 1));
}
