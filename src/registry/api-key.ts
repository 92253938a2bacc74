import { createHash, timingSafeEqual } from "node:crypto";

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const idLength = 12;
const secretLength = 40;
const checksumLength = 6;
const shape = new RegExp(
  `^frt_([0-9A-Za-z]{${idLength}})_([0-9A-Za-z]{${secretLength}})_([0-9A-Za-z]{${checksumLength}})$`,
);

/** A key taken apart: `frt_<id>_<secret>_<checksum>`, parts in base62. */
export type ParsedKey = { id: string; secret: string };

/** Makes a key of 238 random bits. It is shown once; only the hash of its secret is kept. */
export function makeApiKey(randomBytes: (size: number) => Uint8Array): ParsedKey & { key: string } {
  const id = randomText(idLength, randomBytes);
  const secret = randomText(secretLength, randomBytes);
  return { id, secret, key: `frt_${id}_${secret}_${checksum(id, secret)}` };
}

/** Null for what cannot be a key: mistyped and cut ones are told apart without asking the database. */
export function parseApiKey(text: string): ParsedKey | null {
  const [, id, secret, check] = shape.exec(text) ?? [];
  if (id === undefined || secret === undefined || check !== checksum(id, secret)) return null;
  return { id, secret };
}

/** SHA-256 is enough for a secret that nobody chose. */
export function hashSecret(secret: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createHash("sha256").update(secret).digest());
}

/** Compares in a time that does not depend on where two secrets differ. */
export function matchesHash(secret: string, hash: Uint8Array): boolean {
  return timingSafeEqual(hashSecret(secret), hash);
}

function randomText(length: number, randomBytes: (size: number) => Uint8Array): string {
  let text = "";
  while (text.length < length) {
    // Bytes from 248 on are left out: 248 is the largest multiple of 62, so every character stays equally likely.
    for (const byte of randomBytes(length)) {
      if (byte < 248 && text.length < length) text += alphabet[byte % 62];
    }
  }
  return text;
}

function checksum(id: string, secret: string): string {
  const digest = createHash("sha256").update(`frt_${id}_${secret}`).digest();
  return Array.from(digest.subarray(0, checksumLength), (byte) => alphabet[byte % 62]).join("");
}
