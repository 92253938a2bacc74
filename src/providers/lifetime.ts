import type { Lifetime } from "./definition.ts";
import { readPointer } from "./answer-body.ts";
import type { Expiry } from "./grant.ts";

/** No life is taken to be longer: some providers answer with a number that means "for ever". */
const longestSeconds = 10 * 365 * 86_400;

/**
 * How long a token lives, by the definition's rule. What an answer states counts, as a number or a string of one; zero or
 * less is already over, more than ten years is ten years. What it does not state, or not readably, is the fallback.
 */
export function readLifetime(lifetime: Lifetime, body: unknown): Expiry {
  const stated = lifetime.from === "fixed" ? null : readNumber(readPointer(body, lifetime.pointer));
  if (stated !== null) {
    const seconds = Math.floor(lifetime.unit === "ms" ? stated / 1000 : stated);
    return { kind: "in", seconds: Math.min(Math.max(seconds, 0), longestSeconds) };
  }
  if (lifetime.from === "never") return { kind: "never" };
  if (lifetime.fallbackSeconds === null) return { kind: "unstated" };
  return { kind: "in", seconds: Math.min(lifetime.fallbackSeconds, longestSeconds) };
}

function readNumber(value: unknown): number | null {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  return typeof number === "number" && !Number.isNaN(number) ? number : null;
}
