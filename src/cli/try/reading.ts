import type { ProviderDefinition } from "../../providers/format/definition.ts";
import { missingScopes } from "../../providers/format/requirements.ts";
import type { HttpResponse } from "../../providers/http/exchange.ts";
import { parseAnswer, readPointer } from "../../providers/oauth/answer-body.ts";
import { explainRefusal, meanings } from "../../providers/oauth/classify.ts";
import type { Expiry, Failure, Grant } from "../../providers/oauth/token-answer.ts";
import { readPollState } from "../../providers/oauth/side-requests.ts";
import { readLifetime } from "../../providers/oauth/token-response.ts";
import type { Resource } from "../resource.ts";

/** The last moment that a date can hold. */
const latestMs = 8.64e15;

/** How an answer was read, for programs and for people. Holds no token. */
export type Reading = { resource: Resource; lines: string[] };

type Asked = { definition: ProviderDefinition; response: HttpResponse | null };

/** What a token endpoint granted. `spent`: the refresh token that was sent for it; null: none. */
export function readGrant(grant: Grant, given: Asked & { scopes: readonly string[]; spent: string | null }): Reading {
  const { definition } = given;
  const missing = missingScopes(given.scopes, {
    granted: grant.scopes ?? null,
    hasRefreshToken: grant.refreshToken !== undefined,
  });
  const successor = describeSuccessor(grant.refreshToken, given.spent);
  const captured = Object.keys(grant.captured).length > 0 ? [`= captured: ${pairs(grant.captured)}`] : [];
  const notCaptured = Object.keys(definition.response.capture).filter((name) => grant.captured[name] === undefined);
  const furtherTokens = Object.entries(grant.furtherTokens ?? {}).map(
    ([name, extra]) => [name, { ...countTokens(extra), scopes: extra.scopes ?? null }] as const,
  );
  const isFallback = given.response !== null && usesFallback(definition, given.response);
  return {
    resource: {
      result: "granted",
      ...countTokens(grant),
      ...(isFallback && { expires_from: "fallback" }),
      ...(successor !== null && { successor }),
      scopes: grant.scopes ?? null,
      missing_scopes: missing,
      captured: grant.captured,
      not_captured: notCaptured,
      extra_tokens: Object.fromEntries(furtherTokens),
    },
    lines: [
      `= ${describeTokens(grant)}`,
      ...(isFallback
        ? [`= its end is the fallback: nothing readable stands at ${definition.response.expires.pointer}`]
        : []),
      ...(successor === null ? [] : [`= the refresh token that was sent: ${successor}`]),
      `= scopes: ${grant.scopes?.join(" ") ?? "none named, so those that were asked for"}`,
      ...(missing.length > 0 ? [`= asked for and not granted: ${missing.join(" ")}`] : []),
      ...captured,
      ...(notCaptured.length > 0 ? [`= not there, or not as its pattern says: ${notCaptured.join(", ")}`] : []),
      ...Object.entries(grant.furtherTokens ?? {}).map(
        ([name, extra]) => `= further token ${name}: ${describeTokens(extra)}`,
      ),
    ],
  };
}

/** How a refusal was classified, and why. */
export function readRefusal(failure: Failure, { definition, response }: Asked): Reading {
  const waiting = readPollState(definition, failure.oauthError);
  const meaning = waiting ?? meanings[failure.code] ?? failure.code;
  const decidedBy = response === null ? "the lack of an answer" : explainRefusal(definition, response);
  const retry = failure.retryAfterSeconds;
  return {
    resource: {
      result: "refused",
      class: failure.class,
      code: failure.code,
      means: meaning,
      decided_by: decidedBy,
      detail: failure.detail,
      ...(retry !== undefined && { retry_after: retry }),
    },
    lines: [
      `= refused: means ${meaning} (class ${failure.class}, code ${failure.code})`,
      ...(waiting === null ? [`= decided by ${decidedBy}`] : []),
      `= ${failure.detail}`,
      ...(retry === undefined ? [] : [`= wants to be asked again after ${retry} s`]),
    ],
  };
}

/** When a token runs out, in words. */
export function describeExpiry(expiry: Expiry): string {
  switch (expiry.kind) {
    case "never":
      return "never expires";
    case "in":
      return `expires in ${expiry.seconds} s`;
    case "at":
      return `expires at ${new Date(Math.min(expiry.epochSeconds * 1000, latestMs)).toISOString()}`;
    default:
      return "its end is not said";
  }
}

/** Name=value of a map, for a line. */
export function pairs(map: Readonly<Record<string, string>>): string {
  return Object.entries(map)
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");
}

function describeTokens({ accessToken, refreshToken, accessExpiry, refreshExpiry, tokenType }: Grant): string {
  const access =
    accessToken === undefined
      ? "none"
      : `${accessToken.length} characters, ${describeExpiry(accessExpiry)}, type ${tokenType}`;
  const refresh =
    refreshToken === undefined ? "no" : `yes, ${refreshToken.length} characters, ${describeExpiry(refreshExpiry)}`;
  return `access token: ${access}; refresh token: ${refresh}`;
}

/** The same for programs. */
function countTokens({ accessToken, refreshToken, accessExpiry, refreshExpiry, tokenType }: Grant): Resource {
  const access = { characters: accessToken?.length, type: tokenType, expires: accessExpiry };
  const refresh = { characters: refreshToken?.length, expires: refreshExpiry };
  return {
    access_token: accessToken === undefined ? null : access,
    refresh_token: refreshToken === undefined ? null : refresh,
  };
}

function describeSuccessor(refreshToken: string | undefined, spent: string | null): string | null {
  if (spent === null) return null;
  if (refreshToken === undefined) return "stays in force, no new one came";
  return refreshToken === spent ? "stays in force, the same came again" : "replaced by a new one";
}

function usesFallback({ response: rules }: ProviderDefinition, response: HttpResponse): boolean {
  const body = parseAnswer(response, rules.format);
  if (rules.expires.fallbackSeconds === null || rules.expires.from === "fixed") return false;
  if (readPointer(body, rules.accessToken) === undefined) return false;
  return (
    readLifetime({ ...rules.expires, fallbackSeconds: null }, readPointer(body, rules.expires.pointer)).kind ===
    "unstated"
  );
}
