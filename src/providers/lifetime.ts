import type { Lifetime } from "./definition.ts";
import { readPointer } from "./answer-body.ts";
import type { Expiry } from "./grant.ts";

/** No life is taken to be longer: some providers answer with a number that means "for ever". */
const longestSeconds = 10 * 365 * 86_400;

/** A moment as a number of seconds would lie after the year 5000: it is one of milliseconds, whatever the definition says. */
const leastMilliseconds = 100_000_000_000;

/**
 * How long a token lives, by the definition's rule. What an answer states counts, as a number or a text: seconds, a date, a
 * duration. Zero or less is already over, more than ten years is ten years. What it does not state, or not readably, is the fallback.
 */
export function readLifetime(lifetime: Lifetime, body: unknown): Expiry {
  const stated = readStated(lifetime, readPointer(body, lifetime.pointer));
  // Where tokens never end, some providers say so with a life of 0.
  const saysNever = lifetime.from === "never" && stated?.kind === "in" && stated.seconds === 0;
  return stated === null || saysNever ? fallbackOf(lifetime) : stated;
}

/**
 * The same for a refresh token. A life of zero or less says that the provider does not know it, or that it does not end: the token
 * has just been given to be used.
 */
export function readRefreshLifetime(lifetime: Lifetime, body: unknown): Expiry {
  const expiry = readLifetime(lifetime, body);
  return expiry.kind === "in" && expiry.seconds <= 0 ? { kind: "unstated" } : expiry;
}

/** Whether an answer states a life that cannot be read: the fallback counts, and a person should know that it does. */
export function isUnreadableLifetime(lifetime: Lifetime, body: unknown): boolean {
  const { from, pointer } = lifetime;
  // An opaque token states no end where one is looked for in a JWT.
  if (pointer === "" || from === "fixed" || from === "never" || from === "jwt_exp") return false;
  const value = readPointer(body, pointer);
  const isStated = value !== undefined && value !== null && !(typeof value === "string" && value.trim() === "");
  return isStated && readStated(lifetime, value) === null;
}

function fallbackOf({ from, fallbackSeconds }: Lifetime): Expiry {
  if (from === "never") return { kind: "never" };
  if (fallbackSeconds === null) return { kind: "unstated" };
  return { kind: "in", seconds: Math.min(fallbackSeconds, longestSeconds) };
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
      return life(readNumber(value) ?? readDuration(value), unit);
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

/** A number of seconds or milliseconds since 1970, or a date, whichever it looks like. */
function readMoment(value: unknown, unit: Lifetime["unit"]): number | null {
  const number = readNumber(value);
  if (number !== null) return unit === "ms" || number >= leastMilliseconds ? number / 1000 : number;
  const milliseconds = typeof value === "string" ? readDate(value.trim()) : NaN;
  return Number.isNaN(milliseconds) ? null : milliseconds / 1000;
}

const isoDate = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?) ?(.*))?$/;
/** `Sun, 06 Nov 1994 08:49:37 GMT` and the older forms of it (RFC 9110, section 5.6.7). */
const httpDate = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? .*\d\d:\d\d:\d\d/;
/** Microsoft's JSON: milliseconds since 1970. The zone behind them says how to show them, not when it is. */
const msDate = /^\/Date\((-?\d{1,16})(?:[+-]\d{4})?\)\/$/;

/** Milliseconds since 1970; NaN: it is no date. A date without a time zone is one of UTC: where this process runs says nothing about the provider. */
function readDate(text: string): number {
  const ms = msDate.exec(text);
  if (ms !== null) return Number(ms[1]);
  const iso = isoDate.exec(text);
  if (iso !== null) {
    const zone = readZone(iso[3] ?? "");
    return zone === null ? NaN : Date.parse(`${iso[1]}T${iso[2] ?? "00:00"}${zone}`);
  }
  if (!httpDate.test(text)) return NaN;
  return Date.parse(/(GMT|UTC|[+-]\d{4})$/.test(text) ? text : `${text} GMT`);
}

/** As `Date.parse` wants it; null: it is none. */
function readZone(zone: string): string | null {
  if (/^(|Z|UTC|GMT)$/i.test(zone)) return "Z";
  const offset = /^([+-]\d\d)(?::?(\d\d))?$/.exec(zone);
  return offset === null ? null : `${offset[1]}:${offset[2] ?? "00"}`;
}

/** `3600s` (Protocol Buffers' JSON) or `PT1H30M` (ISO 8601), in seconds; null: it is none. */
function readDuration(value: unknown): number | null {
  const text = typeof value === "string" ? value.trim() : "";
  const plain = /^(\d{1,12}(?:\.\d+)?) ?s$/.exec(text);
  if (plain !== null) return Number(plain[1]);
  const iso = /^P(?=.)(?:(\d{1,6})D)?(?:T(?=.)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,9})S)?)?$/.exec(text);
  if (iso === null) return null;
  const [days, hours, minutes, seconds] = iso.slice(1).map((part) => Number(part ?? 0));
  return (days ?? 0) * 86_400 + (hours ?? 0) * 3600 + (minutes ?? 0) * 60 + (seconds ?? 0);
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
