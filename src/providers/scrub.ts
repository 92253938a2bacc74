import { readPointer } from "./answer-body.ts";
import type { TokenResponse } from "./token-response.ts";

const longestDetail = 300;

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
  const said = response.complete === false ? "" : whatWasSaid(response, body);
  const text = scrub(said, [...secrets, ...tokenValues(body, { key: "", depth: 0 })]);
  return cut(`the provider answered ${response.status}${text === "" ? "" : `: ${text}`}`);
}

/** Texts of a provider without the secrets named and without what looks like a token. */
export function scrub(text: string, secrets: readonly string[]): string {
  let clean = text;
  for (const secret of secrets.filter((some) => some !== "").sort((a, b) => b.length - a.length)) {
    clean = clean.replaceAll(spellings(secret), "[…]");
  }
  return clean
    .replaceAll(/[\w.~+/=-]{20,}/g, (run) => (/\d/.test(run) || run.length >= 40 ? "[…]" : run))
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, " ")
    .trim();
}

/** Cut to what a failure's detail may be long. */
export function cut(text: string): string {
  // Half a surrogate pair, sent or cut here, is what the store cannot keep.
  return text.length <= longestDetail ? text.toWellFormed() : `${text.slice(0, longestDetail - 1).toWellFormed()}…`;
}

/** A secret as it may come back: each of its characters plain, as in a URL or form, or as in JSON. */
function spellings(secret: string): RegExp {
  const characters = Array.from(secret, (character) => {
    const point = (character.codePointAt(0) ?? 0).toString(16);
    if (/^[a-z0-9]$/i.test(character)) return character;
    const percent = Buffer.from(character, "utf8").toString("hex").replaceAll(/../g, "%$&");
    const others = [
      percent,
      percent.toUpperCase(),
      `\\\\u${point.padStart(4, "0")}`,
      ...(character === " " ? ["\\+"] : []),
    ];
    return `(?:\\\\?\\u{${point}}|${others.join("|")})`;
  });
  return new RegExp(characters.join(""), "gu");
}

function whatWasSaid(response: TokenResponse, body: unknown): string {
  const parts = ["/error", "/error_description", "/errors/0/title", "/errors/0/detail", "/title", "/detail", "/message"]
    .map((pointer) => readPointer(body, pointer))
    .filter((part) => typeof part === "string" && part !== "");
  if (parts.length > 0) return parts.join(", ");
  return /^\s*</.test(response.body) ? "a page, not an OAuth answer" : response.body;
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
