import { providerTimes } from "../../time.ts";
import type { Lifetime, ProviderDefinition, TokenPointers } from "../format/definition.ts";
import { readCaptured } from "../format/template.ts";
import type { HttpResponse } from "../http/exchange.ts";
import { type AnswerBody, findTokens, readBody, readPointer, readPointers } from "./answer-body.ts";
import { classifyRefusal } from "./classify.ts";
import type { Expiry, Grant, TokenAnswer } from "./token-answer.ts";
import { describeAnswer } from "./scrub.ts";
import { splitScopes, withAliases } from "../format/requirements.ts";

/**
 * Turns an answer of a token endpoint into a grant or a failure (RFC 6749, sections 5.1 and 5.2), classified for good:
 * nobody after this looks at an HTTP status. A 2xx that holds a token is a grant whatever else is odd about it, since the
 * old token is spent: where the strict reading finds none, a lenient one may, which can keep a token and never ends a grant.
 * Never throws.
 */
export function processTokenResponse(options: {
  definition: ProviderDefinition;
  response: HttpResponse;
  /** Every secret that was sent: none may stand in the failure's text. */
  secrets: readonly string[];
}): TokenAnswer {
  const { definition, response, secrets } = options;
  const strict = readBody(response, definition.response.format);
  const ok = response.status >= 200 && response.status < 300;
  // A body that is as it should be is not read in any other way.
  const strictGrant = ok && strict !== null ? readGrant(definition, strict) : null;
  if (strictGrant) return { kind: "granted", grant: strictGrant };
  const found = ok ? findTokens(response, (candidate) => readGrant(definition, candidate) !== null) : null;
  const grant = found === null || found === "several" ? null : readGrant(definition, found);
  if (grant) return { kind: "granted", grant };
  const body = strict?.value ?? null;
  const failure = classifyRefusal({ definition, response, body });
  const detail = describeAnswer({ definition, response, body, secrets, severalObjects: found === "several" });
  const whole = { ...failure, detail, status: response.status };
  if (failure.class === "unknown") {
    Object.defineProperty(whole, "rawAnswer", { value: rawAnswer(response), enumerable: false });
  }
  return { kind: "failed", failure: whole };
}

/** The whole answer as text, to be sealed. */
function rawAnswer({ status, headers, body, complete = true }: HttpResponse): string {
  const labels = ["content-type", "content-encoding"].flatMap((name) =>
    headers[name] === undefined ? [] : [[name, headers[name]] as const],
  );
  return JSON.stringify({ status, headers: Object.fromEntries(labels), complete, body: body.toString("base64") });
}

/** The tokens of a 2xx, further ones included; null when there is no token in it at all. */
function readGrant(definition: ProviderDefinition, { value: body, textsAt }: AnswerBody): Grant | null {
  const { response, furtherTokens } = definition;
  const further = furtherTokens
    .filter(({ exchange }) => exchange === null)
    .map(({ name, granted }) => [name, readTokens(definition, granted, readPointers(body, placesOf(granted)))] as const)
    .filter((entry): entry is [string, Grant] => entry[1] !== null);
  const stated = readPointers(body, { ...placesOf(response), idToken: "/id_token" });
  const refreshTokens = textsAt(response.refreshToken);
  const own = readTokens(definition, response, stated);
  const otherRefreshToken = own && otherThan(own.refreshToken, refreshTokens);
  if (own === null && further.length === 0) return null;
  const captured = readCaptured(response.capture, (pointer) => readPointer(body, pointer));
  const idToken = readToken(stated.idToken);
  return {
    ...(own ?? noTokens),
    ...(otherRefreshToken && { otherRefreshToken }),
    ...(idToken !== undefined && { idToken }),
    captured,
    ...(further.length > 0 && {
      furtherTokens: Object.fromEntries(further.map(([name, grant]) => [name, { ...grant, captured }])),
    }),
  };
}

/** The answer has only further tokens: they are stored, and the connection's own token counts as expired. */
const noTokens: Grant = {
  tokenType: "Bearer",
  accessExpiry: { kind: "unstated" },
  refreshExpiry: { kind: "unstated" },
  captured: {},
};

/** Where the parts of a token set are in a body. */
function placesOf(pointers: TokenPointers): Record<keyof TokenPointers, string> {
  const { accessToken, refreshToken, tokenType, scope, expires, refreshExpires } = pointers;
  return {
    accessToken,
    refreshToken,
    tokenType,
    scope,
    expires: expires.pointer,
    refreshExpires: refreshExpires.pointer,
  };
}

function readTokens(
  definition: ProviderDefinition,
  { expires, refreshExpires }: TokenPointers,
  stated: Readonly<Record<keyof TokenPointers, unknown>>,
): Grant | null {
  const accessToken = readToken(stated.accessToken);
  const refreshToken = readToken(stated.refreshToken);
  if (accessToken === undefined && refreshToken === undefined) return null;
  const tokens = [accessToken, refreshToken].filter((token) => token !== undefined);
  const scopes = readScopes(definition, stated.scope, tokens);
  const isUnreadable =
    (accessToken !== undefined && isUnreadableLifetime(expires, stated.expires)) ||
    (refreshToken !== undefined && isUnreadableLifetime(refreshExpires, stated.refreshExpires));
  return {
    ...(accessToken !== undefined && { accessToken }),
    ...(refreshToken !== undefined && { refreshToken }),
    tokenType: readTokenType(stated.tokenType, tokens),
    accessExpiry: readLifetime(expires, stated.expires),
    // Without a new refresh token the old one keeps its end.
    refreshExpiry:
      refreshToken === undefined ? { kind: "unstated" } : readRefreshLifetime(refreshExpires, stated.refreshExpires),
    ...(isUnreadable && { unreadableLifetime: true }),
    ...(scopes && { scopes }),
    captured: {},
  };
}

/** If there are several refresh tokens, the last one counts. The first different one may be the valid one, so it is a candidate. */
function otherThan(refreshToken: string | undefined, texts: readonly string[]): string | undefined {
  return texts.map((text) => text.trim()).find((text) => text !== "" && text !== refreshToken);
}

/** Removes white space around a token: RFC 6750, section 2.1, has none in tokens, and no header could carry it. */
function readToken(value: unknown): string | undefined {
  const token = typeof value === "string" ? value.trim() : "";
  return token === "" ? undefined : token;
}

/** Some APIs accept only `Bearer` in this spelling, although its case does not matter (RFC 6749, section 7.1). It is shown, so it must be no token. */
function readTokenType(value: unknown, tokens: readonly string[]): string {
  if (typeof value !== "string" || !/^[\w.~+-]{1,64}$/.test(value) || holdsAny(value, tokens)) return "Bearer";
  return value.toLowerCase() === "bearer" ? "Bearer" : value;
}

/** Shorter tokens are not searched for: they could be part of any word. */
const shortestInText = 8;

function holdsAny(text: string, tokens: readonly string[]): boolean {
  return tokens.some((token) => text === token || (token.length >= shortestInText && text.includes(token)));
}

/** Scopes are shown, so none of them may contain a token. */
function readScopes(definition: ProviderDefinition, value: unknown, tokens: readonly string[]): string[] | null {
  const scopes =
    typeof value === "string"
      ? splitScopes(definition, value)
      : Array.isArray(value)
        ? value.filter((scope) => typeof scope === "string" && scope !== "")
        : [];
  // Postgres cannot store the others.
  const readable = scopes.filter((scope) => !/[\p{Cc}\p{Cs}]/u.test(scope) && !holdsAny(scope, tokens));
  return readable.length > 0 ? withAliases(definition, [...new Set(readable)]) : null;
}

/** A larger number of seconds since 1970 would be after the year 5000, so it must be milliseconds, whatever the definition says. */
const leastMilliseconds = 100_000_000_000;

/**
 * How long a token lives, by the definition's rule. `value`: what the answer has at its pointer. What an answer states counts, as a number or a text: seconds, a date, a
 * duration. Zero or less is already over, more than ten years is ten years. What it does not state, or not readably, is the fallback.
 */
export function readLifetime(lifetime: Lifetime, value: unknown): Expiry {
  const stated = readStated(lifetime, value);
  // Some providers write a lifetime of 0 for tokens that never expire.
  const saysNever = lifetime.from === "never" && stated?.kind === "in" && stated.seconds === 0;
  return stated === null || saysNever ? fallbackOf(lifetime) : stated;
}

/**
 * The same for a refresh token. A lifetime of zero or less means that the provider does not know it, or that the token does not expire: it has
 * just been issued to be used.
 */
export function readRefreshLifetime(lifetime: Lifetime, value: unknown): Expiry {
  const expiry = readLifetime(lifetime, value);
  return expiry.kind === "in" && expiry.seconds <= 0 ? { kind: "unstated" } : expiry;
}

/** Whether an answer has a lifetime that cannot be read. The fallback counts then, and a person should know that. */
export function isUnreadableLifetime(lifetime: Lifetime, value: unknown): boolean {
  const { from, pointer } = lifetime;
  // An opaque token has no `exp`, so this is no unreadable lifetime.
  if (pointer === "" || from === "fixed" || from === "never" || from === "jwt_exp") return false;
  const isStated = value !== undefined && value !== null && !(typeof value === "string" && value.trim() === "");
  return isStated && readStated(lifetime, value) === null;
}

function fallbackOf({ from, fallbackSeconds }: Lifetime): Expiry {
  if (from === "never") return { kind: "never" };
  if (fallbackSeconds === null) return { kind: "unstated" };
  return { kind: "in", seconds: Math.min(fallbackSeconds, providerTimes.longestLifetimeSeconds) };
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
  return { kind: "in", seconds: Math.min(Math.max(seconds, 0), providerTimes.longestLifetimeSeconds) };
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

/** The claims of a JWT (RFC 7519, section 4). The signature is not checked, since only the broker's schedule uses them. */
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

/** What the id_token of a code must contain. Null: it is not compared. */
export type ExpectedIdToken = {
  /** Of the authorization request. */
  nonce: string | null;
  issuer: string | null;
};

/** `unchecked`: it does not say whether it belongs to the request. `foreign`: it belongs to another one; `claim` is the claim that shows it. */
export type IdTokenVerdict =
  | { kind: "fits" }
  | { kind: "unchecked"; why: "unreadable" | "no_nonce" }
  | { kind: "foreign"; claim: "nonce" | "iss" | "aud" };

/**
 * Whether an id_token belongs to the request that a code was asked for with (OpenID Connect Core, section 3.1.3.7, items 2, 3
 * and 11). Its signature is not looked at: it came straight from the token endpoint by TLS (item 6). Never throws.
 */
export function judgeIdToken(
  idToken: string | undefined,
  { nonce, issuer, clientId }: ExpectedIdToken & { clientId: string | null },
): IdTokenVerdict {
  if (idToken === undefined) return { kind: "fits" };
  const claims = readClaims(idToken);
  if (claims === null) return nonce === null ? { kind: "fits" } : { kind: "unchecked", why: "unreadable" };
  const { iss, aud } = claims;
  if (nonce !== null && typeof claims["nonce"] === "string" && claims["nonce"] !== nonce) {
    return { kind: "foreign", claim: "nonce" };
  }
  if (issuer !== null && typeof iss === "string" && iss !== issuer) return { kind: "foreign", claim: "iss" };
  const audiences = [aud].flat().filter((one) => typeof one === "string");
  if (clientId !== null && audiences.length > 0 && !audiences.includes(clientId)) {
    return { kind: "foreign", claim: "aud" };
  }
  return nonce === null || typeof claims["nonce"] === "string"
    ? { kind: "fits" }
    : { kind: "unchecked", why: "no_nonce" };
}

/** The claims of a signed JWT (RFC 7519, section 7.2); null where it is none, or an encrypted one. */
function readClaims(idToken: string): Record<string, unknown> | null {
  const [, payload, ...rest] = idToken.split(".");
  if (payload === undefined || rest.length !== 1) return null;
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, "base64url").toString("utf8"));
    const isObject = typeof claims === "object" && claims !== null && !Array.isArray(claims);
    return isObject ? (claims as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
