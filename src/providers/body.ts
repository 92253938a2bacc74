import {
  brotliDecompressSync,
  constants,
  gunzipSync,
  inflateRawSync,
  inflateSync,
  zstdDecompressSync,
} from "node:zlib";
import type { TokenResponse } from "./token-response.ts";

/** No answer is read further, as sent or inflated: 1 MiB. */
export const maxBodyBytes = 1024 * 1024;
/** Compressed, and compressed again by whatever stands in between. */
const mostLayers = 3;

type Inflater = (bytes: Buffer, whole: boolean) => Buffer;

const limit = { maxOutputLength: maxBodyBytes };
/** What there is of a body that was cut off (`whole` false) is read as far as it goes. */
const zlibEnd = (whole: boolean) => ({ ...limit, ...(!whole && { finishFlush: constants.Z_SYNC_FLUSH }) });
const inflaters: Record<string, Inflater> = {
  gzip: (bytes, whole) => gunzipSync(bytes, zlibEnd(whole)),
  // Many servers leave the two bytes of zlib out (RFC 9110, section 8.4.1.2).
  deflate: (bytes, whole) => (looksLikeZlib(bytes) ? inflateSync : inflateRawSync)(bytes, zlibEnd(whole)),
  br: (bytes, whole) =>
    brotliDecompressSync(bytes, { ...limit, ...(!whole && { finishFlush: constants.BROTLI_OPERATION_FLUSH }) }),
  zstd: (bytes) => zstdDecompressSync(bytes, limit),
};

/** A text that a body may be. `complete` false: there was more of it, and what is there may end anywhere. */
export type BodyText = { text: string; complete: boolean };

/**
 * The text of a body as it should be: plain, or compressed once as its `content-encoding` says; UTF-8 (RFC 8259, section 8.1), or
 * bytes that agree with ASCII, as labelled. Null: it cannot be inflated (a bomb, an unknown or doubled encoding, a cut one).
 */
export function strictText(response: TokenResponse): BodyText | null {
  const [encoding, ...more] = encodingsOf(response);
  if (encoding === undefined || response.body.length === 0) {
    return { text: decode(response.body, charsetOf(response)), complete: isComplete(response) };
  }
  const bytes = more.length > 0 ? null : inflate(response.body, encoding, true);
  return bytes && { text: decode(bytes, charsetOf(response)), complete: isComplete(response) };
}

/**
 * Every text that a body may have been meant as, the likeliest first: where the label of its compression is wrong or lacking, and
 * in UTF-16 or UTF-32. Each is at most as long as a body may be.
 */
export function* possibleTexts(response: TokenResponse): Generator<BodyText> {
  const seen = new Set<string>();
  for (const { bytes, complete } of possibleBytes(response)) {
    for (const text of decodings(bytes, charsetOf(response))) {
      if (seen.has(text)) continue;
      seen.add(text);
      yield { text, complete };
    }
  }
}

/** It is longer than 1 MiB, as it was sent or inflated as its label says. */
export function isTooLong(response: TokenResponse): boolean {
  const [encoding = "", ...more] = encodingsOf(response);
  if (response.tooLong || more.length > 0 || !Object.hasOwn(inflaters, encoding)) return response.tooLong ?? false;
  try {
    inflaters[encoding]?.(response.body, true);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
  }
}

function isComplete(response: TokenResponse): boolean {
  return response.complete !== false;
}

/** As `content-encoding` names them, the outermost first (RFC 9110, section 8.4). */
function encodingsOf({ headers }: TokenResponse): string[] {
  const named = (headers["content-encoding"] ?? "").toLowerCase().split(",");
  const known = named
    .map((name) => name.trim().replace(/^x-/, ""))
    .filter((name) => name !== "" && name !== "identity");
  return known.toReversed();
}

function* possibleBytes(response: TokenResponse): Generator<{ bytes: Buffer; complete: boolean }> {
  let bytes = response.body;
  let complete = isComplete(response);
  const labels = encodingsOf(response);
  for (let layer = 0; layer <= mostLayers; layer++) {
    yield { bytes, complete };
    const encoding = encodingByLooks(bytes) ?? labels[layer];
    if (encoding === undefined) return;
    const whole = inflate(bytes, encoding, true);
    const inner = whole ?? inflate(bytes, encoding, false);
    if (inner === null) return;
    complete &&= whole !== null;
    bytes = inner;
  }
}

/** By the first bytes (RFC 1952, section 2.3.1; RFC 1950, section 2.2; RFC 8878, section 3.1.1); undefined: by none of these. */
function encodingByLooks(bytes: Buffer): string | undefined {
  if (bytes.length < 4) return undefined;
  if (bytes.readUInt16BE(0) === 0x1f8b) return "gzip";
  if (bytes.readUInt32LE(0) === 0xfd2fb528) return "zstd";
  return looksLikeZlib(bytes) ? "deflate" : undefined;
}

function looksLikeZlib(bytes: Buffer): boolean {
  return bytes[0] === 0x78 && bytes.length > 1 && bytes.readUInt16BE(0) % 31 === 0;
}

function inflate(bytes: Buffer, encoding: string, whole: boolean): Buffer | null {
  if (!Object.hasOwn(inflaters, encoding)) return null;
  try {
    return inflaters[encoding]?.(bytes, whole) ?? null;
  } catch {
    return null;
  }
}

function charsetOf({ headers }: TokenResponse): string {
  return /;\s*charset\s*=\s*"?([\w.:-]{1,40})/i.exec(headers["content-type"] ?? "")?.[1] ?? "utf-8";
}

/** Of what is no UTF-8, the letters, digits and marks of ASCII at least are what they look like in every such charset. */
function decode(bytes: Buffer, charset: string): string {
  const isWide = /^(utf-?(16|32)|ucs|unicode|iso-10646)/i.test(charset);
  return decodeAs(bytes, "utf-8") ?? (isWide ? null : decodeAs(bytes, charset)) ?? bytes.toString("latin1");
}

function* decodings(bytes: Buffer, charset: string): Generator<string> {
  yield decode(bytes, charset);
  const wide = wideCharset(bytes, charset);
  const text = wide && decodeWide(bytes, wide);
  if (text) yield text;
}

/** The charset's name, as far as it is one; null: there is no such charset, or the bytes are not in it. */
function decodeAs(bytes: Buffer, charset: string): string | null {
  try {
    return new TextDecoder(charset, { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

type Wide = { unit: 2 | 4; isBig: boolean };

/** By the byte order mark, else by where the NULs of its first characters stand, as RFC 4627, section 3, found it. */
function wideCharset(bytes: Buffer, charset: string): Wide | null {
  const start = bytes.subarray(0, 4).toString("hex");
  if (start === "0000feff") return { unit: 4, isBig: true };
  if (start === "fffe0000") return { unit: 4, isBig: false };
  if (start.startsWith("feff")) return { unit: 2, isBig: true };
  if (start.startsWith("fffe")) return { unit: 2, isBig: false };
  if (/^000000(?!00)/.test(start)) return { unit: 4, isBig: true };
  if (/^(?!00)..000000/.test(start)) return { unit: 4, isBig: false };
  if (/^00(?!00)..00/.test(start)) return { unit: 2, isBig: true };
  if (/^(?!00)..00(?!00)..00/.test(start)) return { unit: 2, isBig: false };
  const [, bits, order = ""] = /^utf-?(16|32)(be|le)?$/i.exec(charset) ?? [];
  return bits === undefined ? null : { unit: bits === "16" ? 2 : 4, isBig: order.toLowerCase() !== "le" };
}

function decodeWide(bytes: Buffer, { unit, isBig }: Wide): string {
  const whole = bytes.subarray(0, bytes.length - (bytes.length % unit));
  if (unit === 2) return new TextDecoder(isBig ? "utf-16be" : "utf-16le").decode(whole);
  const codes = Array.from({ length: whole.length / 4 }, (_, index) =>
    isBig ? whole.readUInt32BE(index * 4) : whole.readUInt32LE(index * 4),
  );
  return codes.map((code) => (code <= 0x10ffff ? String.fromCodePoint(code) : "\uFFFD")).join("");
}
