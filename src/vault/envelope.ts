import { createCipheriv, createDecipheriv } from "node:crypto";

const algorithm = "aes-256-gcm";
const formatVersion = 1;
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
};

type SealOptions = { keyId: string; key: Buffer; place: Place; randomBytes: (size: number) => Buffer };

/**
 * Encrypts with AES-256-GCM (NIST SP 800-38D) under a random nonce.
 * The record: version (1 byte), length of key id (1), key id, nonce (12), tag (16), ciphertext.
 */
export function seal(plaintext: string, { keyId, key, place, randomBytes }: SealOptions): Buffer {
  const nonce = randomBytes(nonceBytes);
  const header = Buffer.concat([Buffer.from([formatVersion, Buffer.byteLength(keyId)]), Buffer.from(keyId)]);
  const cipher = createCipheriv(algorithm, key, nonce, { authTagLength: tagBytes });
  cipher.setAAD(additionalData(header, place));
  const ciphertext = Buffer.concat([cipher.update(plaintext, "utf8"), cipher.final()]);
  return Buffer.concat([header, nonce, cipher.getAuthTag(), ciphertext]);
}

/** The id of the key that sealed a record. @throws Error when it is no record of ours. */
export function keyIdOf(record: Uint8Array): string {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const idLength = bytes[1] ?? 0;
  if (bytes[0] !== formatVersion || bytes.length < 2 + idLength + nonceBytes + tagBytes) {
    throw new Error("not a sealed record");
  }
  return bytes.toString("utf8", 2, 2 + idLength);
}

/** Decrypts a record. @throws Error when the key, the place or a single bit differs from what was sealed. */
export function open(record: Uint8Array, key: Buffer, place: Place): string {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const header = bytes.subarray(0, 2 + Buffer.byteLength(keyIdOf(bytes)));
  const nonce = bytes.subarray(header.length, header.length + nonceBytes);
  const tag = bytes.subarray(header.length + nonceBytes, header.length + nonceBytes + tagBytes);
  const decipher = createDecipheriv(algorithm, key, nonce, { authTagLength: tagBytes });
  decipher.setAAD(additionalData(header, place));
  decipher.setAuthTag(tag);
  const ciphertext = bytes.subarray(header.length + nonceBytes + tagBytes);
  return Buffer.concat([decipher.update(ciphertext), decipher.final()]).toString("utf8");
}

function additionalData(header: Buffer, { table, row, column, revision }: Place): Buffer {
  // JSON keeps the parts apart whatever characters they hold.
  return Buffer.concat([header, Buffer.from(JSON.stringify([table, row, column, revision]))]);
}
