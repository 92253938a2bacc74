import { possibleTexts, strictText, type BodyText } from "./body.ts";
import type { TokenResponse } from "./token-response.ts";

type Format = "auto" | "json" | "form";

/** What a body says. */
export type AnswerBody = {
  /** A JSON value, or the fields of a form. */
  value: unknown;
  /** Every text that stands at this pointer, in order: a name may stand there more than once, and `value` has the last. */
  textsAt: (pointer: string) => string[];
};

/**
 * Reads a body as it should be: whole JSON, or a form, in the charset of `strictText`. `auto` looks at the body; its label decides
 * only what is neither. Of a body that was cut off only whole JSON counts: a form that was cut reads as a shorter one, with a token
 * cut short in it. Null: it is neither. Only what is read so may say that a grant is over.
 */
export function readBody(response: TokenResponse, format: Format): AnswerBody | null {
  const read = strictText(response);
  if (read === null) return null;
  const text = read.text.trim();
  const json = format === "form" ? null : readJson(text);
  if (json !== null || format === "json") return json;
  const saysForm = /^application\/x-www-form-urlencoded/i.test(response.headers["content-type"] ?? "");
  // A form in a JSON string is none yet: its last field would end with the quote.
  const mayBeForm = format === "form" ? !text.startsWith('"') : saysForm && /^[^\s"<>{}]*=/.test(text);
  const isForm = mayBeForm || looksLikeForm(text);
  return read.complete && isForm ? readForm(trimmed(text)) : null;
}

/** The value of `readBody` alone. */
export function parseAnswer(response: TokenResponse, format: Format): unknown {
  return readBody(response, format)?.value ?? null;
}

/** What was found of tokens: the one value that bears them; `several`: nobody can tell which one counts. */
export type Found = AnswerBody | "several" | null;

/**
 * Looks for tokens where `readBody` found none, since the token that was sent for them is spent. Whatever the definition's `format`
 * and the labels say, it tries other charsets and compressions, a form, JSON in a JSON string, in a list of its own or in the call of
 * a function, and JSON behind a notice. `bears` says whether a value holds tokens where the definition looks for them. Exactly one
 * object may, and the body has to end with it: a notice may echo what somebody has typed. Never throws.
 */
export function findTokens(response: TokenResponse, bears: (body: AnswerBody) => boolean): Found {
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
  // Of what is too deep for that, whole JSON is read all the same.
  const json = readJson(text);
  const elements = Array.isArray(json?.value) ? json.value.map(valueAlone) : [];
  return json && { ...json, elements, end: text.length };
}

function valueAlone(value: unknown): LooseValue {
  return { value, end: 0, elements: [], textsAt: (pointer) => textAt(value, pointer) };
}

/** What a script calls a function with, where the text is such a call and nothing else. Empty: it is not. */
function argumentOf(text: string): string {
  const call = /^(?:\/\*\*\/)?\s*[\w$.]{1,100}\s*\(/.exec(text)?.[0];
  const end = text.endsWith(";") ? text.slice(0, -1).trimEnd() : text;
  return call !== undefined && end.endsWith(")") ? end.slice(call.length, -1).trim() : "";
}

function among(bodies: readonly AnswerBody[], bears: (body: AnswerBody) => boolean): Found {
  const bearing = bodies.filter(bears);
  return bearing.length > 1 ? "several" : (bearing[0] ?? null);
}

/** Of all objects in a text, the one that bears tokens, where it is the only one and the text ends with it. */
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

/** However often a hostile text makes the reader begin anew, it looks at so many characters and values, beside twice the text. */
const workOnNotices = 250_000;

/** Without what surrounds it and means nothing: white space, byte order marks, and NULs at its end. */
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
    return { value, textsAt: (pointer) => readLoosely(text, 0)?.textsAt(pointer) ?? textAt(value, pointer) };
  } catch {
    return null;
  }
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

function unescaped(part: string): string {
  return part.replaceAll("~1", "/").replaceAll("~0", "~");
}

/** A value that begins somewhere in a text. */
type LooseValue = AnswerBody & { end: number; elements: LooseValue[] };

/** Deeper than this nothing is looked at that is not whole JSON. */
const deepest = 64;
const literals: Record<string, unknown> = {
  true: true,
  false: false,
  null: null,
  NaN: null,
  Infinity: null,
  "-Infinity": null,
};

/** Made once: hostile texts have it thrown a million times. */
const noJson = new SyntaxError("no JSON");

const wordAt = /[\w.+-]{1,400}/y;

/**
 * The JSON value that begins at `start`. It keeps what `JSON.parse` drops, the values of a name that stands there twice, and reads
 * what servers write that is no JSON: control characters in texts, a comma behind the last value, NaN. Null: nothing begins here.
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
