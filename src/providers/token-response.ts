import { readCaptured } from "./captures.ts";
import { classifyRefusal } from "./classify.ts";
import type { ProviderDefinition, TokenPointers } from "./definition.ts";
import type { Grant, TokenAnswer } from "./grant.ts";
import { findTokens, readBody, readPointer, type AnswerBody } from "./answer-body.ts";
import { isUnreadableLifetime, readLifetime, readRefreshLifetime } from "./lifetime.ts";
import type { OutboundProxy } from "./outbound-proxy.ts";
import { splitScopes, withAliases } from "./scopes.ts";
import { describeAnswer } from "./scrub.ts";

/** An answer of a token endpoint. Header names in lower case. Its body, as it was sent, may hold tokens. */
export type TokenResponse = {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: Buffer;
  /** False: cut off or too long; then `body` is what there is of it. */
  complete?: boolean;
  /** Longer than 1 MiB as it was sent; then it is not `complete`. */
  tooLong?: true;
  /** The proxy that the request was given to in place of the provider. What it answers may be its own. */
  relayedBy?: OutboundProxy;
};

/**
 * Turns an answer of a token endpoint into a grant or a failure (RFC 6749, sections 5.1 and 5.2), classified for good:
 * nobody after this looks at an HTTP status. A 2xx that holds a token is a grant whatever else is odd about it, since the
 * old token is spent: where the strict reading finds none, a lenient one may, which can keep a token and never ends a grant.
 * Never throws.
 */
export function processTokenResponse(options: {
  definition: ProviderDefinition;
  response: TokenResponse;
  /** Every secret that was sent: none may stand in the failure's text. */
  secrets: readonly string[];
}): TokenAnswer {
  const { definition, response, secrets } = options;
  const strict = readBody(response, definition.response.format);
  const ok = response.status >= 200 && response.status < 300;
  const found = ok ? tokensOf(definition, response, strict) : null;
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

/** Strict first: what is as it should be is not looked at in any other way. */
function tokensOf(definition: ProviderDefinition, response: TokenResponse, strict: AnswerBody | null) {
  const bears = (body: AnswerBody) => readGrant(definition, body) !== null;
  return strict !== null && bears(strict) ? strict : findTokens(response, bears);
}

/** All that says how an answer is to be read, as text, to be sealed. */
function rawAnswer({ status, headers, body, complete = true }: TokenResponse): string {
  const labels = ["content-type", "content-encoding"].flatMap((name) =>
    headers[name] === undefined ? [] : [[name, headers[name]] as const],
  );
  return JSON.stringify({ status, headers: Object.fromEntries(labels), complete, body: body.toString("base64") });
}

/** The tokens of a 2xx, extra ones included; null when there is no token in it at all. */
function readGrant(definition: ProviderDefinition, { value: body, textsAt }: AnswerBody): Grant | null {
  const { response, extraTokens } = definition;
  const extras = extraTokens
    .filter(({ exchange }) => exchange === null)
    .map(({ name, granted }) => [name, readTokens(definition, granted, body)] as const)
    .filter((entry): entry is [string, Grant] => entry[1] !== null);
  const own = readTokens(definition, response, body);
  const otherRefreshToken = own && otherThan(own.refreshToken, textsAt(response.refreshToken));
  if (own === null && extras.length === 0) return null;
  const captured = readCaptured(response.capture, (pointer) => readPointer(body, pointer));
  const idToken = readToken(body, "/id_token");
  return {
    ...(own ?? noTokens),
    ...(otherRefreshToken && { otherRefreshToken }),
    ...(idToken !== undefined && { idToken }),
    captured,
    ...(extras.length > 0 && {
      extras: Object.fromEntries(extras.map(([name, extra]) => [name, { ...extra, captured }])),
    }),
  };
}

/** The answer held extra tokens alone: they are kept, and the connection's own token counts as run out. */
const noTokens: Grant = {
  tokenType: "Bearer",
  accessExpiry: { kind: "unstated" },
  refreshExpiry: { kind: "unstated" },
  captured: {},
};

function readTokens(definition: ProviderDefinition, pointers: TokenPointers, body: unknown): Grant | null {
  const accessToken = readToken(body, pointers.accessToken);
  const refreshToken = readToken(body, pointers.refreshToken);
  if (accessToken === undefined && refreshToken === undefined) return null;
  const tokens = [accessToken, refreshToken].filter((token) => token !== undefined);
  const scopes = readScopes(definition, readPointer(body, pointers.scope), tokens);
  const isUnreadable =
    (accessToken !== undefined && isUnreadableLifetime(pointers.expires, body)) ||
    (refreshToken !== undefined && isUnreadableLifetime(pointers.refreshExpires, body));
  return {
    ...(accessToken !== undefined && { accessToken }),
    ...(refreshToken !== undefined && { refreshToken }),
    tokenType: readTokenType(readPointer(body, pointers.tokenType), tokens),
    accessExpiry: readLifetime(pointers.expires, body),
    // Without a new refresh token the one in use keeps the end that it has.
    refreshExpiry:
      refreshToken === undefined ? { kind: "unstated" } : readRefreshLifetime(pointers.refreshExpires, body),
    ...(isUnreadable && { unreadableLifetime: true }),
    ...(scopes && { scopes }),
    captured: {},
  };
}

/** Of a refresh token that stands there more than once, the last one counts; the first that is another one may be the good one. */
function otherThan(refreshToken: string | undefined, texts: readonly string[]): string | undefined {
  return texts.map((text) => text.trim()).find((text) => text !== "" && text !== refreshToken);
}

/** White space around a token is none of it: no header could carry it, and RFC 6750, section 2.1, has none in tokens. */
function readToken(body: unknown, pointer: string): string | undefined {
  const value = readPointer(body, pointer);
  const token = typeof value === "string" ? value.trim() : "";
  return token === "" ? undefined : token;
}

/** `Bearer` is case-insensitive on the way in (RFC 6749, section 7.1) and not everywhere on the way out. It is shown, so no token counts as one. */
function readTokenType(value: unknown, tokens: readonly string[]): string {
  if (typeof value !== "string" || !/^[\w.~+-]{1,64}$/.test(value) || holdsAny(value, tokens)) return "Bearer";
  return value.toLowerCase() === "bearer" ? "Bearer" : value;
}

/** A short token may be a part of any word. */
const shortestInText = 8;

function holdsAny(text: string, tokens: readonly string[]): boolean {
  return tokens.some((token) => text === token || (token.length >= shortestInText && text.includes(token)));
}

/** They are shown, so none of them may hold a token. */
function readScopes(definition: ProviderDefinition, value: unknown, tokens: readonly string[]): string[] | null {
  const scopes =
    typeof value === "string"
      ? splitScopes(definition, value)
      : Array.isArray(value)
        ? value.filter((scope) => typeof scope === "string" && scope !== "")
        : [];
  // The store cannot keep the others.
  const readable = scopes.filter((scope) => !/[\p{Cc}\p{Cs}]/u.test(scope) && !holdsAny(scope, tokens));
  return readable.length > 0 ? withAliases(definition, [...new Set(readable)]) : null;
}
