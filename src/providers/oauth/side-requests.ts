import { invisible, readableName } from "../../text.ts";
import { consentTimes } from "../../time.ts";
import type {
  ErrorRule,
  IntrospectionDefinition,
  Lookup,
  ProviderDefinition,
  ProviderRequest,
  RevocationDefinition,
} from "../format/definition.ts";
import { fill, fillHeaders, fillUrl, readCaptured, type TemplateValues } from "../format/template.ts";
import { readPointer } from "./answer-body.ts";
import { isDenial } from "./authorization-request.ts";
import type { Expiry } from "./token-answer.ts";
import { buildRequest } from "./token-request.ts";
import { readLifetime } from "./token-response.ts";
import type { HttpRequest } from "../http/exchange.ts";

/** A token that a request is about. */
export type NamedToken = { value: string; hint: "access_token" | "refresh_token" };

/**
 * The revocation of a token (RFC 7009, section 2.1); null: the definition names no endpoint, or does not revoke tokens
 * of this kind.
 */
export function buildRevocationRequest(options: {
  definition: ProviderDefinition;
  token: NamedToken;
  values: TemplateValues;
}): HttpRequest | null {
  const { revocation } = options.definition;
  if (!revocation || (revocation.token !== "both" && revocation.token !== options.token.hint)) return null;
  return naming(revocation, options);
}

/** The introspection of a token (RFC 7662, section 2.1); null: the definition has no endpoint. */
export function buildIntrospectionRequest(options: {
  definition: ProviderDefinition;
  token: NamedToken;
  values: TemplateValues;
}): HttpRequest | null {
  const { introspection } = options.definition;
  return introspection?.token === options.token.hint ? naming(introspection, options) : null;
}

/** Templates for the token, also under the name of its kind: some endpoints want it in a header or in another field. */
function naming(
  request: RevocationDefinition | IntrospectionDefinition,
  { token, values }: { token: NamedToken; values: TemplateValues },
): HttpRequest {
  const own = token.hint === "access_token" ? { accessToken: token.value } : { refreshToken: token.value };
  return buildRequest(request, { ...values, ...own, token });
}

/**
 * A call after connecting: with the access token, as every call of the API, unless it authenticates the client.
 * @throws BrokerError naming a value that is missing
 */
export function buildLookupRequest(
  { api }: ProviderDefinition,
  request: Omit<ProviderRequest, "clientAuth"> & { clientAuth: ProviderRequest["clientAuth"] | null },
  values: TemplateValues,
): HttpRequest {
  if (request.clientAuth !== null) return buildRequest({ ...request, clientAuth: request.clientAuth }, values);
  const { header, value } = api.authorization;
  return buildRequest({ ...request, clientAuth: { kind: "header", header, value } }, values);
}

/** An answer of the device authorization endpoint (RFC 8628, section 3.2). `deviceCode` is a secret. */
export type DeviceAuthorization = {
  deviceCode: string;
  userCode: string;
  verificationUri: string;
  /** The same address with the code in it. */
  verificationUriComplete: string | null;
  expiresInSeconds: number;
  intervalSeconds: number;
};

const shown = new RegExp(`^[^${invisible}]{1,2000}$`, "u");

/** Reads the answer of a device authorization endpoint; null: it lacks what is needed. */
export function readDeviceAuthorization(body: unknown): DeviceAuthorization | null {
  const text = (pointer: string) => {
    const value = readPointer(body, pointer);
    return typeof value === "string" && shown.test(value) ? value : null;
  };
  const seconds = (pointer: string, usual: number) => {
    const value = Number(readPointer(body, pointer) ?? usual);
    return Number.isFinite(value) && value > 0
      ? Math.min(Math.ceil(value), consentTimes.deviceLongestStatedSeconds)
      : usual;
  };
  const deviceCode = text("/device_code");
  const userCode = text("/user_code");
  // The second spelling is that of drafts before the RFC, which some servers still use.
  const verificationUri = webAddress(text("/verification_uri") ?? text("/verification_url"));
  if (deviceCode === null || userCode === null || verificationUri === null) return null;
  return {
    deviceCode,
    userCode,
    verificationUri,
    verificationUriComplete: webAddress(text("/verification_uri_complete") ?? text("/verification_url_complete")),
    expiresInSeconds: seconds("/expires_in", consentTimes.deviceCodeSeconds),
    intervalSeconds: seconds("/interval", consentTimes.deviceIntervalSeconds),
  };
}

/** It is shown as a link, so it must be a web address. */
function webAddress(text: string | null): string | null {
  const url = text === null ? null : URL.parse(text);
  return url && (url.protocol === "https:" || url.protocol === "http:") ? url.href : null;
}

/** How to go on after the answer to a poll (RFC 8628, section 3.5); null: the answer is not about waiting. */
export function readPollState(
  definition: ProviderDefinition,
  oauthError: string | undefined,
): "authorization_pending" | "slow_down" | "access_denied" | "expired_token" | null {
  if (oauthError !== undefined && isDenial(definition, oauthError)) return "access_denied";
  switch (oauthError) {
    case "authorization_pending":
    case "slow_down":
    case "expired_token":
      return oauthError;
    default:
      return null;
  }
}

/** What a lookup says about the connected account. */
export type Found = { account: string | null; label: string | null; captured: Record<string, string> };

/**
 * Reads the answer of a lookup. Null: it does not hold what the definition says, `select` finds nothing in it.
 * @throws BrokerError naming a value that `select.equals` lacks
 */
export function readLookup(lookup: Lookup, body: unknown, values: TemplateValues): Found | null {
  const entry = selectEntry(lookup, body, values);
  if (typeof entry !== "object" || entry === null) return null;
  const account = lookup.pointer === null ? null : readName(entry, lookup.pointer);
  if (lookup.pointer !== null && account === null) return null;
  return {
    account,
    label: lookup.label === null ? null : readableName(readName(entry, lookup.label)),
    captured: readCaptured(lookup.capture, (pointer) => readPointer(entry, pointer)),
  };
}

function selectEntry({ select }: Lookup, body: unknown, values: TemplateValues): unknown {
  if (select === null) return body;
  const list = select.list === null ? body : readPointer(body, select.list);
  if (!Array.isArray(list)) return null;
  const { where, equals } = select;
  if (where === null || equals === null) return list[0];
  const wanted = fill(equals, values);
  return list.find((entry: unknown) => readName(entry, where) === wanted) ?? null;
}

function readName(body: unknown, pointer: string): string | null {
  const value = readPointer(body, pointer);
  const text = typeof value === "number" || typeof value === "boolean" ? String(value) : value;
  return typeof text === "string" && /^[^\p{Cc}\p{Cs}]{1,300}$/u.test(text) ? text : null;
}

/** What an introspection endpoint says about a token (RFC 7662, section 2.2). */
export function readIntrospection(
  { active: activePointer, expires }: IntrospectionDefinition,
  body: unknown,
): { active: boolean; expiry: Expiry } {
  const active = readPointer(body, activePointer);
  return {
    active: active === true || active === "true",
    expiry: readLifetime(expires, readPointer(body, expires.pointer)),
  };
}

/** What to send with an API call, and on which answers to come back with `rejected_version`. Holds the access token. */
export type ApiRequest = {
  base_url: string | null;
  headers: Record<string, string>;
  /** `status` absent: any; `body`: a regular expression that the body matches. */
  expired_when: { status?: number; body?: string }[];
};

/**
 * The request that a definition describes (RFC 6750, section 2.1, unless it says otherwise), so that a caller needs to
 * know nothing about the provider. A 401 always counts as an access token that has run out (section 3.1).
 * @throws BrokerError naming a value that is missing, or that no header can carry
 */
export function describeApiRequest(options: { definition: ProviderDefinition; values: TemplateValues }): ApiRequest {
  const { definition, values } = options;
  const { api, errors } = definition;
  return {
    base_url: api.baseUrl === null ? null : fillUrl(api.baseUrl, values),
    headers: {
      [api.authorization.header]: "",
      ...fillHeaders({ [api.authorization.header]: api.authorization.value, ...api.headers }, values),
    },
    expired_when: [{ status: 401 }, ...errors.filter((rule) => rule.endpoint === "api").map(answerOf)],
  };
}

function answerOf(rule: ErrorRule): { status?: number; body?: string } {
  const { status, body } = rule;
  return { ...(status !== undefined && { status }), ...(body !== undefined && { body }) };
}
