import { readable } from "../../text.ts";
import type { ProviderDefinition } from "../format/definition.ts";
import { asksForPassword } from "../http/open-connection.ts";
import { isTooLong, readPointer, strictText } from "./answer-body.ts";
import type { HttpResponse } from "../http/exchange.ts";

const longestDetail = 300;
/** Limits for values that an answer itself calls tokens: shorter ones may be words, and more of them are an attack. */
const shortestToken = 4;
const mostTokens = 64;
/** Of a longer secret only the beginning is searched, and the text after it is hidden, too, since a regular expression must not get too long. */
const longestSpelt = 128;

/**
 * A provider's words for people: at most 300 characters, without control characters, secrets that were sent, and anything that looks like a
 * token. A body is never quoted, since its tokens could be anywhere. For a refusal the text has `error`, `error_description` (RFC 6749,
 * section 5.2), the values at the pointers of the definition's rules, and the texts for people beside them. For a 2xx it has only a code at
 * these pointers, or at `error`.
 */
export function describeAnswer(options: {
  definition: Pick<ProviderDefinition, "errors" | "response">;
  response: HttpResponse;
  /** As it is read strictly. */
  body: unknown;
  secrets: readonly string[];
  /** For a 2xx: it has more than one object with tokens. */
  severalObjects?: boolean;
}): string {
  const { definition, response, body, severalObjects = false } = options;
  const { status, relayedBy: proxy } = response;
  if (proxy !== undefined && status === 407) return cut(asksForPassword(proxy));
  const isGrant = status >= 200 && status < 300;
  const secrets = [...options.secrets, ...(proxy?.secrets ?? []), ...tokensIn(body)];
  const said = isGrant ? codesOf(definition, body, secrets) : scrub(wordsOf(definition, body), secrets);
  const parts = [
    isTooLong(response) ? "more than 1 MiB, which is too long" : "",
    severalObjects ? "several objects with tokens, so that nobody can tell which one counts" : "",
    said,
  ];
  const text = parts.filter((part) => part !== "").join(", ") || (looksLikePage(response) ? aPage : "");
  const isUncertain = proxy !== undefined && status >= 500;
  const who = isUncertain ? `the proxy ${proxy.name}, or the provider behind it,` : "the provider";
  return cut(`${who} answered ${status}${text === "" ? "" : `: ${text}`}`);
}

const aPage = "a page, not an OAuth answer";

/** Texts of a provider without the secrets named and without what looks like a token. */
export function scrub(text: string, secrets: readonly string[]): string {
  const masked = withoutSecrets(text, secrets).replaceAll(/[\w.~+/=|!$*@%-]{20,}/g, (run) =>
    /\d/.test(run) || run.length >= 40 ? "[…]" : run,
  );
  const said = readable(masked).replaceAll(/\s+/g, " ").trim();
  return isHinted(said.slice(0, longestLookedAt), secrets) ? "[…]" : said;
}

/** The longest text that is shown. */
const longestLookedAt = 2 * longestDetail;
const longestSkeleton = 4096;
/** So many letters and digits of a secret in a row cannot be a coincidence. */
const tellingLength = 10;

/**
 * Whether a text still contains a long part of a secret, in any spelling: only letters and digits are compared, after escapes have been undone.
 * If so, nothing of the text is shown.
 */
function isHinted(text: string, secrets: readonly string[]): boolean {
  const shown = skeleton(text);
  const windows = new Set(Array.from({ length: shown.length }, (_, at) => shown.slice(at, at + tellingLength)));
  return secrets.some((secret) => {
    const own = skeleton(secret.slice(0, longestSkeleton));
    for (let at = 0; at + tellingLength <= own.length; at++) {
      if (windows.has(own.slice(at, at + tellingLength))) return true;
    }
    return false;
  });
}

const entities: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: " " };

/** The letters and digits of a text, with escapes of URLs, HTML and JSON undone, even inside of each other. */
function skeleton(text: string): string {
  let plain = text;
  for (let round = 0; round < 4; round++) {
    const before = plain;
    plain = plain
      .replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
      .replaceAll(/\\u([0-9a-f]{4})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
      .replaceAll(/&#x([0-9a-f]{1,5});/gi, (_, hex: string) => String.fromCodePoint(Number.parseInt(hex, 16)))
      .replaceAll(/&#(\d{1,6});/g, (_, code: string) => String.fromCodePoint(Number(code)))
      .replaceAll(/&([a-z]{2,4});/gi, (whole, name: string) => entities[name.toLowerCase()] ?? whole);
    if (plain === before) break;
  }
  return plain.replaceAll(/[^\p{L}\p{N}]/gu, "");
}

/** In one pass: replaced parts are not searched again, since two secrets could otherwise make each other grow for ever. */
function withoutSecrets(text: string, secrets: readonly string[]): string {
  const longestFirst = [...new Set(secrets)].filter((secret) => secret !== "").sort((a, b) => b.length - a.length);
  // A secret that is longer than the text can only be there in part, which then looks like a token.
  const fitting = longestFirst.filter((secret) => secret.length <= text.length);
  if (fitting.length === 0) return text;
  return text.replaceAll(new RegExp(anyOf(fitting), "gu"), "[…]");
}

/** Cuts a text to the longest detail of a failure. */
export function cut(text: string): string {
  // Removes half surrogate pairs, which Postgres cannot store.
  return text.length <= longestDetail ? text.toWellFormed() : `${text.slice(0, longestDetail - 1).toWellFormed()}…`;
}

/** Secrets with the same beginning share it in the expression, so that many similar ones, as in an attack, cost little. */
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

/** How many backslashes may come before a character, in JSON inside of JSON. */
function escapedTwice(length: number): number {
  return 4 * length + 8;
}

/** No two spellings may match the same text, since that would double the work with each character. */
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

function looksLikePage(response: HttpResponse): boolean {
  return /^\s*</.test(strictText(response)?.text ?? "");
}

type Rules = Pick<ProviderDefinition, "errors" | "response">;

/** Where the definition's rules look for what went wrong; never where it looks for tokens. */
function namedPointers({ errors, response }: Rules): string[] {
  const tokens = new Set([response.accessToken, response.refreshToken]);
  return errors.flatMap(({ pointer }) => (pointer === undefined || tokens.has(pointer) ? [] : [pointer]));
}

/** Fields for people, in an object that a rule looks into (RFC 9457, section 3.1; JSON:API's error objects). */
const textNames = ["title", "detail", "message"];

/** What a refusal says, as it came. */
function wordsOf(definition: Rules, body: unknown): string {
  const named = namedPointers(definition);
  const beside = named.flatMap((pointer) => textNames.map((name) => pointer.replace(/[^/]*$/, name)));
  const words = [...new Set(["/error", "/error_description", ...named, ...beside])].map((pointer) => {
    const value = readPointer(body, pointer);
    // A number means nothing without its name.
    return typeof value === "number" ? `${pointer.split("/").at(-1)} ${value}` : value;
  });
  return words.filter((word) => typeof word === "string" && word !== "").join(", ");
}

/** The codes of a 2xx: short, of letters and digits, and nothing like a secret. */
function codesOf(definition: Rules, body: unknown, secrets: readonly string[]): string {
  const codes = [...new Set(["/error", ...namedPointers(definition)])].map((pointer) => readPointer(body, pointer));
  const short = codes.filter((code) => typeof code === "string" && /^[A-Za-z0-9_.-]{1,64}$/.test(code)) as string[];
  return short.filter((code) => !secrets.includes(code) && scrub(code, secrets) === code).join(", ");
}

function tokensIn(body: unknown): string[] {
  const values = new Set(tokenValues(body, { key: "", depth: 0 }).filter((value) => value.length >= shortestToken));
  return [...values].slice(0, mostTokens);
}

/** Fields with texts for people, or with values that are no tokens. */
const isForPeople = /^error|descr|message|title|detail|reason|code|status|type|ur[il]$|scope|expir|hint|_(at|in|id)$/i;

const looksLikeToken = /^(?=.*\d|.{20})\S{8,}$/;

/** The values that an answer itself calls tokens or secrets, and values under unknown names that look like tokens. */
function tokenValues(value: unknown, at: { key: string; depth: number }): string[] {
  if (typeof value === "string") {
    if (/token(?!_type)|secret|password|assertion|verifier/i.test(at.key)) return [value];
    return looksLikeToken.test(value) && !isForPeople.test(at.key) ? [value] : [];
  }
  if (typeof value !== "object" || value === null || at.depth > 8) return [];
  return Object.entries(value).flatMap(([name, inner]) =>
    tokenValues(inner, { key: Array.isArray(value) ? at.key : name, depth: at.depth + 1 }),
  );
}
