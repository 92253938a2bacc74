import { readable } from "../readable.ts";
import { readPointer } from "./answer-body.ts";
import type { TokenResponse } from "./token-response.ts";

const longestDetail = 300;
/** Of what an answer itself calls tokens: shorter ones are words, and more of them are an attack. */
const shortestToken = 4;
const mostTokens = 64;
/** Of a longer secret its beginning is looked for, and what it goes on with is hidden too: expressions have an end. */
const longestSpelt = 128;

/**
 * What a provider said, for people: at most 300 characters, no control characters, and neither a secret that was sent nor
 * anything in the answer that looks like a token.
 */
export function describeAnswer(options: {
  response: TokenResponse;
  body: unknown;
  secrets: readonly string[];
}): string {
  const { response, body, secrets } = options;
  // A 2xx that cannot be read may hold tokens that nobody can find in it.
  const isReadable = response.complete !== false && (body !== null || response.status >= 300);
  const said = isReadable ? whatWasSaid(response, body) : looksLikePage(response) ? "a page, not an OAuth answer" : "";
  const text = scrub(said, [...secrets, ...tokensIn(body)]);
  return cut(`the provider answered ${response.status}${text === "" ? "" : `: ${text}`}`);
}

/** Texts of a provider without the secrets named and without what looks like a token. */
export function scrub(text: string, secrets: readonly string[]): string {
  const masked = withoutSecrets(text, secrets).replaceAll(/[\w.~+/=-]{20,}/g, (run) =>
    /\d/.test(run) || run.length >= 40 ? "[…]" : run,
  );
  return readable(masked).replaceAll(/\s+/g, " ").trim();
}

/** In one pass: what is hidden is not looked at again, or two secrets could make each other grow for ever. */
function withoutSecrets(text: string, secrets: readonly string[]): string {
  const longestFirst = [...new Set(secrets)].filter((secret) => secret !== "").sort((a, b) => b.length - a.length);
  // What is longer than the text can only stand in it in part, and then looks like a token.
  const fitting = longestFirst.filter((secret) => secret.length <= text.length);
  if (fitting.length === 0) return text;
  return text.replaceAll(new RegExp(anyOf(fitting), "gu"), "[…]");
}

/** Cut to what a failure's detail may be long. */
export function cut(text: string): string {
  // Half a surrogate pair, sent or cut here, is what the store cannot keep.
  return text.length <= longestDetail ? text.toWellFormed() : `${text.slice(0, longestDetail - 1).toWellFormed()}…`;
}

/** Secrets that begin alike share their beginning, as hostile ones do: it is then looked for once, not once for each. */
type Beginnings = Map<string, Beginnings>;

/** An expression for any of these secrets, in whatever spelling; of two at one place the longer, given before the other. */
function anyOf(secrets: readonly string[]): string {
  const root: Beginnings = new Map();
  for (const secret of secrets) {
    let at = root;
    for (const part of spellings(secret)) {
      const next: Beginnings = at.get(part) ?? new Map();
      at.set(part, next);
      at = next;
    }
  }
  return expressionOf(root);
}

function expressionOf(beginnings: Beginnings): string {
  const branches = [...beginnings].map(([part, next]) => part + expressionOf(next));
  return branches.length > 1 ? `(?:${branches.join("|")})` : (branches[0] ?? "");
}

/**
 * A secret as it may come back: each of its characters plain, or as in a URL, a form, HTML, or JSON, even inside of JSON.
 * Backslashes go with the character behind them, and have a bound: no text can be taken apart in many ways.
 */
function spellings(secret: string): string[] {
  const parts = secret
    .slice(0, longestSpelt)
    .toWellFormed()
    .matchAll(/(\\*)([^\\]|$)/gsu);
  const spelt = Array.from(parts, ([, backslashes = "", character = ""], index) => {
    if (backslashes === "") return character === "" ? "" : oneOf(character, index === 0 ? "" : escapes);
    const { length } = backslashes;
    const before = String.raw`(?:\\(?:u005c)?|%5[cC]|&#92;){${length},${escapedTwice(length)}}`;
    return character === "" ? before : `${before}${oneOf(character, "")}`;
  });
  return [...spelt.filter((part) => part !== ""), secret.length <= longestSpelt ? "" : String.raw`\S*`];
}

/** In front of a character that JSON inside of JSON escapes; those in front of the first may stay. */
const escapes = String.raw`\\{0,8}`;

/** So many backslashes, and one before what follows them, in JSON inside of JSON. */
function escapedTwice(length: number): number {
  return 4 * length + 8;
}

/** No two of its spellings may match the same text: that would double the work with each character. */
function oneOf(character: string, before: string): string {
  if (/^[a-z0-9]$/i.test(character)) return character;
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  const percent = Buffer.from(character, "utf8").toString("hex").replaceAll(/../g, "%$&");
  const spelt = [
    `&#${code};`,
    inEitherCase(percent),
    `\\\\u${inEitherCase(hex.padStart(4, "0"))}`,
    ...(character === " " ? ["\\+"] : []),
    `${before}\\u{${hex}}`,
  ];
  return `(?:${spelt.join("|")})`;
}

function inEitherCase(hex: string): string {
  return hex.replaceAll(/[a-f]/g, (digit) => `[${digit}${digit.toUpperCase()}]`);
}

function looksLikePage({ body }: TokenResponse): boolean {
  return /^\s*</.test(body);
}

function whatWasSaid(response: TokenResponse, body: unknown): string {
  const parts = ["/error", "/error_description", "/errors/0/title", "/errors/0/detail", "/title", "/detail", "/message"]
    .map((pointer) => readPointer(body, pointer))
    .filter((part) => typeof part === "string" && part !== "");
  if (parts.length > 0) return parts.join(", ");
  return looksLikePage(response) ? "a page, not an OAuth answer" : response.body;
}

function tokensIn(body: unknown): string[] {
  const values = new Set(tokenValues(body, { key: "", depth: 0 }).filter((value) => value.length >= shortestToken));
  return [...values].slice(0, mostTokens);
}

/** The values that an answer itself calls tokens or secrets. */
function tokenValues(value: unknown, at: { key: string; depth: number }): string[] {
  if (typeof value === "string") {
    return /token(?!_type)|secret|password|assertion|verifier/i.test(at.key) ? [value] : [];
  }
  if (typeof value !== "object" || value === null || at.depth > 8) return [];
  return Object.entries(value).flatMap(([name, inner]) =>
    tokenValues(inner, { key: Array.isArray(value) ? at.key : name, depth: at.depth + 1 }),
  );
}
