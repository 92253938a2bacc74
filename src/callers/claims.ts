import { readPointer } from "../providers/oauth/answer-body.ts";
import { matchesStars } from "./principal.ts";

/**
 * What the claims of a token must be: a pattern, or a list of which one must fit. A name that begins with `/` is a JSON pointer (RFC 6901).
 * In a pattern, `*` stands for any characters but `/`, `:` and control characters.
 */
export type Match = Readonly<Record<string, string | readonly string[]>>;

/** Whether every claim is there and fits. A claim that is a list fits if one of its members does; numbers and booleans are compared as JSON writes them. */
export function isMatched(match: Match, claims: unknown): boolean {
  return Object.entries(match).every(([name, patterns]) => {
    const values = textsOf(name.startsWith("/") ? readPointer(claims, name) : readOwn(claims, name));
    return patternsOf(patterns).some((pattern) => values.some((value) => fits(pattern, value)));
  });
}

/** Whether every token that fits `narrow` certainly fits `wide`, too. */
export function coversMatch(wide: Match, narrow: Match): boolean {
  return Object.entries(wide).every(([name, patterns]) => {
    if (!Object.hasOwn(narrow, name)) return false;
    // A star of the narrow pattern is a character like any other here, so only a star of the wide one fits it.
    return patternsOf(narrow[name]).every((inner) => patternsOf(patterns).some((outer) => fits(outer, inner)));
  });
}

export function patternsOf(patterns: string | readonly string[] = []): readonly string[] {
  return typeof patterns === "string" ? [patterns] : patterns;
}

/** Whether a pattern fits a whole text. */
export function fits(pattern: string, text: string): boolean {
  const [wanted, given] = [partsOf(pattern), partsOf(text)];
  return (
    wanted.length === given.length &&
    wanted.every((part, at) => part === given[at] || (matchesStars(part, given[at] ?? "") && !/\p{Cc}/u.test(text)))
  );
}

/** The pieces between `/` and `:`, and these. */
function partsOf(text: string): string[] {
  return text.split(/([/:])/);
}

function readOwn(claims: unknown, name: string): unknown {
  const isThere = typeof claims === "object" && claims !== null && Object.hasOwn(claims, name);
  return isThere ? (claims as Record<string, unknown>)[name] : undefined;
}

function textsOf(claim: unknown): string[] {
  return [claim].flat().flatMap((one) => {
    if (typeof one === "string") return [one];
    return typeof one === "number" || typeof one === "boolean" ? [JSON.stringify(one)] : [];
  });
}
