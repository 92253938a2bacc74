import { createHash } from "node:crypto";

const idBytes = 8;
const secretBytes = 16;
const shape = new RegExp(`^([0-9a-f]{${idBytes * 2}})-([0-9a-f]{${secretBytes * 2}})$`);

type RandomBytes = (size: number) => Uint8Array;

/** SHA-256, as secrets of enough entropy are stored. */
export function sha256(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createHash("sha256").update(text).digest());
}

/** A new link: the row's id, what the database keeps of its secret, and the path segment that only the link's holder has. */
export function createLinkToken(randomBytes: RandomBytes) {
  const id = Buffer.from(randomBytes(idBytes)).toString("hex");
  const secret = Buffer.from(randomBytes(secretBytes)).toString("hex");
  return { id, secretHash: sha256(secret), token: `${id}-${secret}` };
}

/** What opens the row of a link; null when it cannot be one of ours. */
export function parseLinkToken(token: string): { id: string; secretHash: Uint8Array<ArrayBuffer> } | null {
  const [, id, secret] = shape.exec(token) ?? [];
  return id === undefined || secret === undefined ? null : { id, secretHash: sha256(secret) };
}
