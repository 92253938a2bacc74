import { createDecipheriv } from "node:crypto";
import type { Place } from "./envelope.ts";

const formatVersion = 1;
const nonceBytes = 12;
const tagBytes = 16;

/** Whether a record has the form from before `sealed_format` 2. */
export function isOldFormat(record: Uint8Array): boolean {
  return record[0] === formatVersion;
}

/**
 * Opens a record of that form: version (1 byte), length of key id (1), key id, nonce (12), tag (16), ciphertext. It binds no
 * destination. Only the upgrade reads it: sealed-format.ts. @throws Error when it does not open
 */
export function openOldFormat(record: Uint8Array, keyOf: (id: string) => Buffer | undefined, place: Place): string {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const nonceAt = 2 + (bytes[1] ?? 0);
  const tagAt = nonceAt + nonceBytes;
  const key = keyOf(bytes.toString("utf8", 2, nonceAt));
  if (!isOldFormat(bytes) || key === undefined) throw new Error("not a record of the old form, or its key is not here");
  const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(nonceAt, tagAt), { authTagLength: tagBytes });
  const { table, row, column, revision } = place;
  decipher.setAAD(
    Buffer.concat([bytes.subarray(0, nonceAt), Buffer.from(JSON.stringify([table, row, column, revision]))]),
  );
  decipher.setAuthTag(bytes.subarray(tagAt, tagAt + tagBytes));
  return Buffer.concat([decipher.update(bytes.subarray(tagAt + tagBytes)), decipher.final()]).toString("utf8");
}
