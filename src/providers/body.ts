import { brotliDecompressSync, gunzipSync, inflateSync } from "node:zlib";

/** No answer of a token endpoint is read further, as sent or inflated. */
export const maxBodyBytes = 64 * 1024;

const inflaters: Record<string, (bytes: Buffer) => Buffer> = {
  gzip: (bytes) => gunzipSync(bytes, { maxOutputLength: maxBodyBytes }),
  deflate: (bytes) => inflateSync(bytes, { maxOutputLength: maxBodyBytes }),
  br: (bytes) => brotliDecompressSync(bytes, { maxOutputLength: maxBodyBytes }),
};

/**
 * The text of a body. One that was compressed although identity was asked for is inflated to 64 KiB at most; what cannot
 * be (a bomb, an unknown or doubled encoding, a cut one) is kept as it came, in base64, and is not `complete`.
 */
export function decodeBody(bytes: Buffer, contentEncoding = "identity"): { text: string; complete: boolean } {
  const encoding = contentEncoding.trim().toLowerCase().replace(/^x-/, "");
  if (encoding === "identity" || encoding === "" || bytes.length === 0) {
    return { text: bytes.toString("utf8"), complete: true };
  }
  try {
    const inflate = inflaters[encoding];
    if (inflate) return { text: inflate(bytes).toString("utf8"), complete: true };
  } catch {
    // Falls through: what cannot be inflated is kept, never dropped.
  }
  return { text: bytes.toString("base64"), complete: false };
}
