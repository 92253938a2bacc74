import {
  brotliDecompressSync,
  constants,
  gunzipSync,
  inflateRawSync,
  inflateSync,
  zstdDecompressSync,
} from "node:zlib";
import { maxBodyBytes } from "../http/answer-room.ts";
import type { HttpResponse } from "../http/exchange.ts";

type Format = "auto" | "json" | "form";

/** The content of a body. */
export type AnswerBody = {
  /** A JSON value, or the fields of a form. */
  value: unknown;
  /** Every text at this pointer, in order. A name may occur more than once; `value` has the last. */
  textsAt: (pointer: string) => string[];
};

/**
 * Reads a body as it should be: whole JSON, or a form, in the charset of `strictText`. `auto` looks at the body; its label decides
 * only what is neither. Of a body that was cut off only whole JSON counts: a form that was cut reads as a shorter one, with a token
 * cut short in it. Null: it is neither. Only what is read so may say that a grant is over.
 */
export function readBody(response: HttpResponse, format: Format): AnswerBody | null {
  const read = strictText(response);
  if (read === null) return null;
  const text = read.text.trim();
  const json = format === "form" ? null : readJson(text);
  if (json !== null || format === "json") return json;
  const saysForm = /^application\/x-www-form-urlencoded/i.test(response.headers["content-type"] ?? "");
  // A form inside of a JSON string is not read as a form here: its last field would end with the quote.
  const mayBeForm = format === "form" ? !text.startsWith('"') : saysForm && /^[^\s"<>{}]*=/.test(text);
  const isForm = mayBeForm || looksLikeForm(text);
  return read.complete && isForm ? readForm(trimmed(text)) : null;
}

/** The value of `readBody` alone. */
export function parseAnswer(response: HttpResponse, format: Format): unknown {
  return readBody(response, format)?.value ?? null;
}

/** The one value with tokens; `several`: it is not clear which one counts. */
export type Found = AnswerBody | "several" | null;

/**
 * Looks for tokens where `readBody` found none, since the token that was sent for them is spent. Whatever the definition's `format`
 * and the labels say, it tries other charsets and compressions, a form, JSON in a JSON string, in a list of its own or in the call of
 * a function, and JSON behind a notice. `bears` says whether a value holds tokens where the definition looks for them. Exactly one
 * object may, and the body has to end with it: a notice may echo what somebody has typed. Never throws.
 */
export function findTokens(response: HttpResponse, bears: (body: AnswerBody) => boolean): Found {
  for (const given of possibleTexts(response)) {
    const found = findIn({ ...given, text: trimmed(given.text) }, bears, 0);
    if (found !== null) return found;
  }
  return null;
}

/** JSON in JSON in JSON. */
const mostWrappings = 3;

function findIn({ text, complete }: BodyText, bears: (body: AnswerBody) => boolean, wrapping: number): Found {
  const whole = readWhole(text) ?? readWhole(argumentOf(text));
  if (whole !== null) {
    const { value, elements } = whole;
    if (typeof value === "string" && wrapping < mostWrappings) {
      return findIn({ text: value.trim(), complete: true }, bears, wrapping + 1);
    }
    return among(Array.isArray(value) ? elements : [whole], bears);
  }
  if (!complete) return null;
  return looksLikeForm(text) ? among([readForm(text)], bears) : behindNotice(text, bears);
}

function readWhole(text: string): LooseValue | null {
  const read = readLoosely(text, 0);
  if (read?.end === text.length) return read;
  // Deeper values are still read if the whole text is JSON.
  const json = readJson(text);
  const elements = Array.isArray(json?.value) ? json.value.map(valueAlone) : [];
  return json && { ...json, elements, end: text.length };
}

function valueAlone(value: unknown): LooseValue {
  return { value, end: 0, elements: [], textsAt: (pointer) => textAt(value, pointer) };
}

/** The argument, if the whole text is a call of a function (JSONP). Empty: it is not. */
function argumentOf(text: string): string {
  const call = /^(?:\/\*\*\/)?\s*[\w$.]{1,100}\s*\(/.exec(text)?.[0];
  const end = text.endsWith(";") ? text.slice(0, -1).trimEnd() : text;
  return call !== undefined && end.endsWith(")") ? end.slice(call.length, -1).trim() : "";
}

function among(bodies: readonly AnswerBody[], bears: (body: AnswerBody) => boolean): Found {
  const bearing = bodies.filter(bears);
  return bearing.length > 1 ? "several" : (bearing[0] ?? null);
}

/** The object with tokens in a text, if it is the only one and the text ends with it. */
function behindNotice(text: string, bears: (body: AnswerBody) => boolean): Found {
  if (!text.endsWith("}")) return null;
  const bearing: LooseValue[] = [];
  const work = { left: workOnNotices + 2 * text.length };
  for (let at = text.indexOf("{"); at >= 0 && work.left > 0;) {
    const read = readLoosely(text, at, work);
    if (read !== null && bears(read)) bearing.push(read);
    at = text.indexOf("{", read?.end ?? at + 1);
  }
  if (bearing.length > 1) return "several";
  const [only] = bearing;
  return only !== undefined && only.end === text.length && work.left > 0 ? only : null;
}

/** A limit for hostile texts: how many characters and values the reader looks at, beyond twice the text, however often it starts again. */
const workOnNotices = 250_000;

/** Removes white space, byte order marks and trailing NULs. */
function trimmed(text: string): string {
  let end = text.length;
  while (text[end - 1] === "\0") end--;
  return text.slice(0, end).trim();
}

function looksLikeForm(text: string): boolean {
  return /^[\w.~%+-]+=/.test(text);
}

function readJson(text: string): AnswerBody | null {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null) return null;
    return {
      value,
      textsAt: (pointer) => {
        const own = textAt(value, pointer);
        if (own.length === 1 && isNamedOnce(text, pointer)) return own;
        return readLoosely(text, 0)?.textsAt(pointer) ?? own;
      },
    };
  } catch {
    return null;
  }
}

/** Whether the last name of a pointer stands in the text once. In a text without escapes each name stands as it is. */
function isNamedOnce(text: string, pointer: string): boolean {
  const name = JSON.stringify(unescaped(pointer.slice(pointer.lastIndexOf("/") + 1)));
  return !text.includes("\\") && text.indexOf(name) === text.lastIndexOf(name);
}

function textAt(value: unknown, pointer: string): string[] {
  const text = readPointer(value, pointer);
  return typeof text === "string" ? [text] : [];
}

function readForm(text: string): AnswerBody {
  const fields = new URLSearchParams(text);
  return {
    value: Object.fromEntries(fields),
    textsAt: (pointer) => (pointer.startsWith("/") ? fields.getAll(unescaped(pointer.slice(1))) : []),
  };
}

/** The value at a JSON pointer (RFC 6901); undefined: there is none. */
export function readPointer(value: unknown, pointer: string): unknown {
  let at = value;
  for (const part of pointer.split("/").slice(1)) {
    const key = unescaped(part);
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, key)) return undefined;
    at = Reflect.get(at, key);
  }
  return at;
}

/** The values at several JSON pointers, by the names of the pointers. */
export function readPointers<Name extends string>(
  value: unknown,
  pointers: Readonly<Record<Name, string>>,
): Record<Name, unknown> {
  const entries = Object.entries<string>(pointers).map(([name, pointer]) => [name, readPointer(value, pointer)]);
  return Object.fromEntries(entries) as Record<Name, unknown>;
}

function unescaped(part: string): string {
  return part.replaceAll("~1", "/").replaceAll("~0", "~");
}

/** A value that begins somewhere in a text. */
type LooseValue = AnswerBody & { end: number; elements: LooseValue[] };

/** Beyond this depth only whole JSON is read. */
const deepest = 64;
const literals: Record<string, unknown> = {
  true: true,
  false: false,
  null: null,
  NaN: null,
  Infinity: null,
  "-Infinity": null,
};

/** One instance, since hostile texts cause it a million times. */
const noJson = new SyntaxError("no JSON");

const wordAt = /[\w.+-]{1,400}/y;

/**
 * The JSON value that begins at `start`; null: none does. Unlike `JSON.parse` it keeps every value of a name that is repeated, and it accepts
 * what some servers write: control characters in texts, a comma after the last value, NaN.
 */
function readLoosely(text: string, start: number, work = { left: Infinity }): LooseValue | null {
  const texts: { path: string; text: string }[] = [];
  let at = start;

  const take = (character: string): boolean => {
    while (" \t\r\n".includes(text.charAt(at)) && at < text.length) at++;
    if (text[at] !== character) return false;
    at++;
    return true;
  };

  const readText = (): string => {
    const from = at;
    for (let end = text.indexOf('"', from); ; end = text.indexOf('"', end + 1)) {
      if (end < 0) throw noJson;
      let backslashes = 0;
      while (text[end - 1 - backslashes] === "\\" && end - 1 - backslashes >= from) backslashes++;
      if (backslashes % 2 === 1) continue;
      at = end + 1;
      work.left -= end - from;
      const inner = text.slice(from, end);
      if (!/[\\\p{Cc}]/u.test(inner)) return inner;
      return JSON.parse(`"${inner.replaceAll(/\p{Cc}/gu, escaped)}"`) as string;
    }
  };

  const readMembers = (path: string, depth: number): Record<string, unknown> => {
    const members: [string, unknown][] = [];
    while (!take("}")) {
      if (!take('"')) throw noJson;
      const name = readText();
      if (!take(":")) throw noJson;
      members.push([name, readValue(`${path}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`, depth + 1).value]);
      if (take(",")) continue;
      if (take("}")) break;
      throw noJson;
    }
    return Object.fromEntries(members);
  };

  const readElements = (path: string, depth: number): LooseValue[] => {
    const elements: LooseValue[] = [];
    while (!take("]")) {
      elements.push(readValue(`${path}/${elements.length}`, depth + 1));
      if (take(",")) continue;
      if (take("]")) break;
      throw noJson;
    }
    return elements;
  };

  const within = (path: string, value: unknown, elements: LooseValue[] = []): LooseValue => ({
    value,
    end: at,
    elements,
    textsAt: (pointer) => texts.filter((one) => one.path === path + pointer).map((one) => one.text),
  });

  const readValue = (path: string, depth: number): LooseValue => {
    if (--work.left < 0 || depth > deepest) throw noJson;
    if (take("{")) return within(path, readMembers(path, depth));
    if (take("[")) {
      const elements = readElements(path, depth);
      return within(
        path,
        elements.map(({ value }) => value),
        elements,
      );
    }
    if (take('"')) {
      const read = readText();
      texts.push({ path, text: read });
      return within(path, read);
    }
    wordAt.lastIndex = at;
    const [literal] = wordAt.exec(text) ?? [];
    if (literal === undefined) throw noJson;
    at += literal.length;
    return within(path, Object.hasOwn(literals, literal) ? literals[literal] : (JSON.parse(literal) as unknown));
  };

  try {
    return readValue("", 0);
  } catch {
    return null;
  }
}

function escaped(control: string): string {
  return `\\u${control.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Bodies may be compressed twice: by the server, and by something in between. */
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

/** One reading of a body. `complete` false: there was more, and the text may end anywhere. */
export type BodyText = { text: string; complete: boolean };

/**
 * The text of a body as it should be: plain, or compressed once as its `content-encoding` says; UTF-8 (RFC 8259, section 8.1), or
 * bytes that agree with ASCII, as labelled. Null: it cannot be inflated (a bomb, an unknown or doubled encoding, a cut one).
 */
export function strictText(response: HttpResponse): BodyText | null {
  const [encoding, ...more] = encodingsOf(response);
  if (encoding === undefined || response.body.length === 0) {
    return { text: decode(response.body, charsetOf(response)), complete: isComplete(response) };
  }
  const bytes = more.length > 0 ? null : inflate(response.body, encoding, true);
  return bytes && { text: decode(bytes, charsetOf(response)), complete: isComplete(response) };
}

/**
 * Every text that a body may have been meant as, the likeliest first: where the label of its compression is wrong or missing, and
 * in UTF-16 or UTF-32. Each is at most as long as a body may be.
 */
function* possibleTexts(response: HttpResponse): Generator<BodyText> {
  const seen = new Set<string>();
  for (const { bytes, complete } of possibleBytes(response)) {
    for (const text of decodings(bytes, charsetOf(response))) {
      if (seen.has(text)) continue;
      seen.add(text);
      yield { text, complete };
    }
  }
}

/** Whether it is longer than 1 MiB, as sent or inflated by its label. */
export function isTooLong(response: HttpResponse): boolean {
  const [encoding = "", ...more] = encodingsOf(response);
  if (response.tooLong || more.length > 0 || !Object.hasOwn(inflaters, encoding)) return response.tooLong ?? false;
  try {
    inflaters[encoding]?.(response.body, true);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
  }
}

function isComplete(response: HttpResponse): boolean {
  return response.complete !== false;
}

/** As `content-encoding` names them, the outermost first (RFC 9110, section 8.4). */
function encodingsOf({ headers }: HttpResponse): string[] {
  const named = (headers["content-encoding"] ?? "").toLowerCase().split(",");
  const known = named
    .map((name) => name.trim().replace(/^x-/, ""))
    .filter((name) => name !== "" && name !== "identity");
  return known.toReversed();
}

function* possibleBytes(response: HttpResponse): Generator<{ bytes: Buffer; complete: boolean }> {
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

/** The compression, by the first bytes (RFC 1952, section 2.3.1; RFC 1950, section 2.2; RFC 8878, section 3.1.1); undefined: none of these. */
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

function charsetOf({ headers }: HttpResponse): string {
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

/** The text in the named charset; null: there is no such charset, or the bytes do not fit it. */
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
