import { createHash, timingSafeEqual } from "node:crypto";

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const idLength = 12;
const secretLength = 40;
const checksumLength = 6;
const shape = new RegExp(
  `^frt_([0-9A-Za-z]{${idLength}})_([0-9A-Za-z]{${secretLength}})_([0-9A-Za-z]{${checksumLength}})$`,
);

/** Makes a key of 238 random bits: `frt_<id>_<secret>_<checksum>`, parts in base62. It is shown once; only its hash is kept. */
export function makeApiKey(randomBytes: (size: number) => Uint8Array): { id: string; key: string } {
  const id = randomText(idLength, randomBytes);
  const secret = randomText(secretLength, randomBytes);
  return { id, key: `frt_${id}_${secret}_${checksum(id, secret)}` };
}

/** The id in what has the shape of a key; null for what cannot be one. */
export function readKeyId(text: string): string | null {
  return shape.exec(text)?.[1] ?? null;
}

/** Tells mistyped and cut keys apart without asking the database. */
export function hasGoodChecksum(key: string): boolean {
  const [, id = "", secret = "", check] = shape.exec(key) ?? [];
  return check === checksum(id, secret);
}

/** SHA-256 is enough for a key that nobody chose. */
export function hashKey(key: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createHash("sha256").update(key).digest());
}

/** Compares in a time that does not depend on where two hashes differ. */
export function isSameHash(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
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
