import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { BrokerError } from "../../errors.ts";
import type { AuthorizationDefinition, ProviderDefinition } from "../format/definition.ts";
import { clientInputs, joinScopes, whyUnsendable } from "../format/requirements.ts";
import { fill, fillAll, fillUrl, readCaptured, type TemplateValues, withoutNull } from "../format/template.ts";
import { readPointer } from "./answer-body.ts";
import { cut, scrub } from "./scrub.ts";
import { buildRequest } from "./token-request.ts";
import type { HttpRequest } from "../http/exchange.ts";

/** A code verifier and its challenge (RFC 7636, sections 4.1 and 4.2). The verifier is a secret. */
export type Pkce = { verifier: string; challenge: string; method: "S256" | "plain" };

/**
 * The parameters of RFC 6749, section 4.1.1, RFC 7636, section 4.3, and OpenID Connect Core, section 3.1.2.1, that `params`
 * may rename or leave out.
 */
export const standardParams = [
  "response_type",
  "client_id",
  "redirect_uri",
  "scope",
  "state",
  "nonce",
  "code_challenge",
  "code_challenge_method",
] as const;

/** The parts of an authorization request. Without `values.redirectUri` none is sent, and the provider uses the registered one. */
export type AuthorizationRequest = {
  definition: ProviderDefinition;
  values: TemplateValues;
  state: string;
  /** Comes back in the id_token (OpenID Connect Core, section 3.1.2.1); null: none is sent. */
  nonce: string | null;
  codeChallenge: Pick<Pkce, "challenge" | "method"> | null;
  scopes: readonly string[];
};

/**
 * The address to send the person to (RFC 6749, section 4.1.1).
 * @throws BrokerError `grant_not_applicable` where no code grant is offered, or naming a value that is missing
 */
export function buildAuthorizationUrl(request: AuthorizationRequest): string {
  const { definition, values } = request;
  const url = new URL(fillUrl(authorizationOf(definition).url, values));
  for (const [name, value] of authorizationParams(request)) url.searchParams.set(name, value);
  return url.href;
}

/** The parameters of an authorization request, as its definition names them. */
export function authorizationParams(request: AuthorizationRequest): [string, string][] {
  const { definition, state, nonce, codeChallenge, scopes } = request;
  const authorization = authorizationOf(definition);
  const values = { ...request.values, scope: joinScopes(definition, scopes) };
  const standard: Record<(typeof standardParams)[number], string | null> = {
    response_type: "code",
    client_id: fill("{client.id}", values),
    redirect_uri: values.redirectUri ?? null,
    scope: values.scope === "" ? null : values.scope,
    state,
    nonce,
    code_challenge: codeChallenge?.challenge ?? null,
    code_challenge_method: codeChallenge?.method ?? null,
  };
  const params = standardParams.flatMap((name): [string, string][] => {
    const sentAs = paramName(definition, authorization, name);
    const value = standard[name];
    return sentAs === null || value === null ? [] : [[sentAs, value]];
  });
  const { responseMode } = authorization;
  if (responseMode !== null) params.push(["response_mode", responseMode]); // OAuth 2.0 Form Post Response Mode, section 2
  const withScopes = Object.assign({}, ...scopes.map((scope) => ownEntry(authorization.paramsWithScope, scope)));
  const further = { ...furtherParams(authorization), ...withScopes } as Record<string, string | null>;
  return [...params, ...fillAll(withoutNull(further), values)];
}

/**
 * A nonce for a request that asks for an id_token; null for one that does not, and where the definition leaves it out by its
 * `params`, since its id_tokens repeat none.
 */
export function createNonce(options: {
  definition: ProviderDefinition;
  scopes: readonly string[];
  randomBytes: (size: number) => Uint8Array;
}): string | null {
  const { definition, scopes, randomBytes } = options;
  const isSent = scopes.includes("openid") && authorizationOf(definition).params["nonce"] !== null;
  return isSent ? Buffer.from(randomBytes(32)).toString("base64url") : null;
}

/** A fresh verifier and its challenge (RFC 7636); null where the definition turns PKCE off. */
export function createPkce(options: {
  definition: ProviderDefinition;
  randomBytes: (size: number) => Uint8Array;
}): Pkce | null {
  const authorization = authorizationOf(options.definition);
  if (authorization.pkce === "off") return null;
  const verifier = Buffer.from(options.randomBytes(32)).toString("base64url");
  const { pkceMethod: method, challengeEncoding } = authorization;
  const challenge =
    method === "plain" ? verifier : createHash("sha256").update(verifier, "ascii").digest(challengeEncoding);
  return { verifier, challenge, method };
}

export type Callback =
  | { kind: "code"; code: string; captured: Record<string, string>; iss?: string }
  /** `error` is the provider's code (RFC 6749, section 4.1.2.1), or `missing_code` for a callback with neither. */
  | { kind: "error"; error: string; description: string; iss?: string };

/**
 * Reads a callback. A parameter that comes twice counts as absent (section 3.1). If a signature is wrong, or a value does not fit its
 * pattern, the callback was tampered with.
 */
export function readCallback(
  definition: ProviderDefinition,
  query: Readonly<Record<string, unknown>>,
  clientSecrets: () => string | readonly string[] | null = () => null,
): Callback {
  const { callback } = authorizationOf(definition);
  const read = (name: string): string | undefined => {
    const value = Object.hasOwn(query, name) ? query[name] : undefined;
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  // An `iss` that is empty, or comes twice, matches no issuer.
  const issuer = Object.hasOwn(query, "iss") ? { iss: typeof query["iss"] === "string" ? query["iss"] : "" } : {};
  const error = read("error");
  if (error !== undefined) {
    return {
      kind: "error",
      error: plain(error).slice(0, 80),
      description: plain(read("error_description") ?? ""),
      ...issuer,
    };
  }
  if (callback.verify !== null && ![clientSecrets() ?? []].flat().some((secret) => isSigned(query, secret))) {
    const description = "the signature of the provider's answer is wrong";
    return { kind: "error", error: "invalid_signature", description, ...issuer };
  }
  const code = read(callback.code);
  if (code === undefined) return { kind: "error", error: "missing_code", description: "no code came back", ...issuer };
  const captured = readCaptured(callback.capture, read);
  const isOdd = (name: string, isBound: boolean): boolean => {
    const value = captured[name];
    if (value === undefined) return isBound;
    // Checked here, so that the page blames the answer, and does not say that the provider is away.
    return whyUnsendable(definition, `callback.${name}`, value) !== null;
  };
  const wrong = Object.entries(callback.capture).find(
    ([name, { from, pattern, allowed }]) => read(from) !== undefined && isOdd(name, (pattern ?? allowed) !== null),
  );
  if (wrong !== undefined) {
    const { from, allowed } = wrong[1];
    const description =
      allowed === null
        ? `${from} is not what this provider sends`
        : `${from} is none of those that this provider has: ${allowed.join(", ")}`;
    return { kind: "error", error: "unexpected_parameter", description, ...issuer };
  }
  return { kind: "code", code, captured, ...issuer };
}

/** Whether an error (RFC 6749, section 4.1.2.1; RFC 8628, section 3.5) means that the person has refused, in upper or lower case. */
export function isDenial({ authorization }: ProviderDefinition, error: string): boolean {
  return (authorization?.callback.denied ?? ["access_denied"]).includes(error.toLowerCase());
}

/** `hmac_sha256_query`: the other parameters, sorted and joined as they stand in a query, signed with the client's secret. */
function isSigned(query: Readonly<Record<string, unknown>>, clientSecret: string): boolean {
  const { hmac, ...others } = query;
  if (clientSecret === "" || typeof hmac !== "string" || !/^[0-9a-f]{64}$/i.test(hmac)) return false;
  const message = Object.keys(others)
    .sort()
    .map((name) => `${name}=${String(others[name])}`)
    .join("&");
  const expected = createHmac("sha256", clientSecret).update(message, "utf8").digest();
  return timingSafeEqual(expected, Buffer.from(hmac, "hex"));
}

function authorizationOf(definition: ProviderDefinition): AuthorizationDefinition {
  if (definition.authorization) return definition.authorization;
  throw new BrokerError(
    "grant_not_applicable",
    `provider ${definition.id} does not offer the authorization code grant`,
  );
}

function paramName(
  definition: ProviderDefinition,
  authorization: AuthorizationDefinition,
  name: string,
): string | null {
  const renamed = authorization.params[name];
  return renamed === undefined ? (name === "scope" ? definition.scope.param : name) : renamed;
}

function ownEntry<Value>(map: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(map, name) ? map[name] : undefined;
}

function furtherParams(authorization: AuthorizationDefinition): Record<string, string> {
  const further: Record<string, string> = {};
  for (const [name, value] of Object.entries(authorization.params)) {
    if (value !== null && !standardParams.some((standard) => standard === name)) further[name] = value;
  }
  return further;
}

function plain(text: string): string {
  return cut(scrub(text, []));
}

/**
 * The parameters of an authorization request, sent ahead of the person (RFC 9126, section 2.1).
 * @throws BrokerError `grant_not_applicable` where the definition pushes none, or naming a value that is missing
 */
export function buildPushedRequest(request: AuthorizationRequest): HttpRequest {
  const { authorization, id } = request.definition;
  if (!authorization?.pushed) {
    throw new BrokerError("grant_not_applicable", `provider ${id} takes no pushed authorization requests`);
  }
  const { pushed } = authorization;
  const params = authorizationParams(request);
  // The client id is among the parameters, so client authentication must not add it again.
  return buildRequest(pushed, request.values, { first: params, isClientNamed: true });
}

/** The address for the person, of the reference that came back (RFC 9126, sections 2.2 and 4). @throws BrokerError `provider_rejected` */
export function readPushedAnswer(given: {
  definition: ProviderDefinition;
  values: TemplateValues;
  body: unknown;
}): string {
  const { definition, values, body } = given;
  const reference = readPointer(body, "/request_uri");
  if (typeof reference !== "string" || reference === "") {
    throw new BrokerError(
      "provider_rejected",
      "The provider's answer to the pushed authorization request has no request_uri.",
    );
  }
  const url = new URL(fillUrl(definition.authorization?.url ?? "", values));
  url.searchParams.set("client_id", fill("{client.id}", values) ?? "");
  url.searchParams.set("request_uri", reference);
  return url.href;
}

/** Where a code may be sent, and by which client: as in its authorization request. `clientId` null: the definition fixes it. */
export type CodeDestination = {
  provider: string;
  /** The id of the client's row: a later client with the same name is another one. */
  clientRef: string | null;
  clientId: string | null;
  /** The inputs of connection and client together. */
  inputs: Record<string, string>;
};

/** Whether two destinations are the same. */
export function isSameCodeDestination(one: CodeDestination, other: CodeDestination): boolean {
  return isDeepStrictEqual(one, other);
}

/** The only way to build one, so that two can be compared. */
export function codeDestinationOf(
  { provider, inputs }: { provider: string; inputs: Record<string, string> },
  client: { id: string; clientId: string; inputs: Record<string, string> } | null,
): CodeDestination {
  return {
    provider,
    clientRef: client?.id ?? null,
    clientId: client?.clientId ?? null,
    inputs: { ...inputs, ...client?.inputs },
  };
}

/** The issuer whose answer a consent expects. It is fixed when the consent begins: metadata at the callback may be another server's. */
export type ExpectedIssuer = {
  /** Null: neither the definition nor metadata name one. */
  issuer: string | null;
  /** The authorize page, without its parameters. */
  authorizationUrl: string;
  /** Whether an answer without `iss` is refused. */
  required: boolean;
};

/** The issuer as it is known when the person leaves. @throws BrokerError naming a missing value */
export function expectedIssuer(definition: ProviderDefinition, values: TemplateValues): ExpectedIssuer {
  const { authorization } = definition;
  return {
    issuer: authorization?.issuer ? fillUrl(authorization.issuer, values) : null,
    authorizationUrl: authorization ? new URL(fillUrl(authorization.url, values)).href : "",
    required: authorization?.iss === "required",
  };
}

/**
 * Compares a callback's `iss` with the expected issuer (RFC 9207, section 2.4). `unsaid`: it is missing and must be there. The comparison is
 * letter by letter (RFC 3986, section 6.2.1): `…/other-tenant` is another issuer. If no issuer is known, `iss` must be an address that the
 * authorize page lies under.
 */
export function judgeIssuer(expected: ExpectedIssuer, iss: string | undefined): "ours" | "unsaid" | "other" {
  const { issuer, authorizationUrl, required } = expected;
  if (iss === undefined) return required ? "unsaid" : "ours";
  if (issuer !== null) return iss === issuer ? "ours" : "other";
  const url = URL.parse(iss);
  const isIssuer = url !== null && url.search === "" && url.hash === ""; // RFC 8414, section 2
  return isIssuer && authorizationUrl.startsWith(iss.endsWith("/") ? iss : `${iss}/`) ? "ours" : "other";
}

/** Whose redirect URI it is: one for all clients of a provider, or one client's own. */
type Returning = { provider: string; client: string | null };

/** Where a provider sends browsers back to (RFC 6749, section 3.1.2). A client's name has no character that a path would change. */
export function redirectUriOf(publicUrl: string, { provider, client }: Returning): string {
  return `${publicUrl}/callback/${provider}${client === null ? "" : `/${client}`}`;
}

/**
 * Whether clients of this provider have redirect URIs of their own: if an input of the client decides which server is asked, one server must
 * not be able to use another one's answer (RFC 9700, section 4.4.2.2).
 */
export function wantsOwnRedirectUri(definition: ProviderDefinition): boolean {
  return definition.authorization !== null && clientInputs(definition).length > 0;
}
