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
  const stated = readStated(lifetime, readPointer(body, lifetime.pointer));
  // Where tokens never end, some providers say so with a life of 0.
  const saysNever = lifetime.from === "never" && stated?.kind === "in" && stated.seconds === 0;
  if (stated !== null && !saysNever) return stated;
  if (lifetime.from === "never") return { kind: "never" };
  if (lifetime.fallbackSeconds === null) return { kind: "unstated" };
  return { kind: "in", seconds: Math.min(lifetime.fallbackSeconds, longestSeconds) };
}

function readStated({ from, unit }: Lifetime, value: unknown): Expiry | null {
  switch (from) {
    case "fixed":
      return null;
    case "jwt_exp":
      return at(readNumber(claimsOf(value)["exp"]));
    case "expires_at":
      return at(readMoment(value, unit));
    default:
      return life(readNumber(value), unit);
  }
}

function life(stated: number | null, unit: Lifetime["unit"]): Expiry | null {
  if (stated === null) return null;
  const seconds = Math.floor(unit === "ms" ? stated / 1000 : stated);
  return { kind: "in", seconds: Math.min(Math.max(seconds, 0), longestSeconds) };
}

function at(epochSeconds: number | null): Expiry | null {
  return epochSeconds === null ? null : { kind: "at", epochSeconds };
}

/** A number of seconds or milliseconds since 1970, or a date of ISO 8601, whichever it looks like. */
function readMoment(value: unknown, unit: Lifetime["unit"]): number | null {
  const number = readNumber(value);
  if (number !== null) return unit === "ms" ? number / 1000 : number;
  const isDate = typeof value === "string" && /^\d{4}-\d\d-\d\d[T ]\d/.test(value);
  const parsed = isDate ? Date.parse(hasZone(value) ? value : `${value.replace(" ", "T")}Z`) : NaN;
  return Number.isNaN(parsed) ? null : parsed / 1000;
}

/** A date without a time zone is one of UTC: where this process runs says nothing about the provider. */
function hasZone(date: string): boolean {
  return /(Z|[+-]\d\d:?\d\d)$/i.test(date);
}

/** What a JWT says of itself (RFC 7519, section 4). Nobody relies on it but this broker's own schedule: no signature is checked. */
function claimsOf(token: unknown): Record<string, unknown> {
  const payload = typeof token === "string" ? token.split(".")[1] : undefined;
  if (payload === undefined) return {};
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, "base64url").toString("utf8"));
    return typeof claims === "object" && claims !== null ? { ...claims } : {};
  } catch {
    return {};
  }
}

function readNumber(value: unknown): number | null {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  return typeof number === "number" && !Number.isNaN(number) ? number : null;
}
