import { createHash } from "node:crypto";
import { BrokerError } from "../errors.ts";
import type { AuthorizationDefinition, ProviderDefinition } from "./definition.ts";
import { joinScopes } from "./scopes.ts";
import { cut, scrub } from "./scrub.ts";
import { fill, fillAll, fillUrl, type TemplateValues } from "./template.ts";

/** A code verifier and what is shown of it beforehand (RFC 7636, sections 4.1 and 4.2). The verifier is a secret. */
export type Pkce = { verifier: string; challenge: string; method: "S256" | "plain" };

/** The parameters of RFC 6749, section 4.1.1, and RFC 7636, section 4.3, that `params` may rename or leave out. */
const standardParams = [
  "response_type",
  "client_id",
  "redirect_uri",
  "scope",
  "state",
  "code_challenge",
  "code_challenge_method",
] as const;

/**
 * The address to send the person to (RFC 6749, section 4.1.1). Without `values.redirectUri` none is sent, and the
 * provider uses the one it knows.
 * @throws BrokerError `grant_not_applicable` where no code grant is offered, or naming a value that is lacking
 */
export function buildAuthorizationUrl(options: {
  definition: ProviderDefinition;
  values: TemplateValues;
  state: string;
  codeChallenge: Pick<Pkce, "challenge" | "method"> | null;
  scopes: readonly string[];
}): string {
  const { definition, state, codeChallenge, scopes } = options;
  const authorization = authorizationOf(definition);
  const values = { ...options.values, scope: joinScopes(definition, scopes) };
  const url = new URL(fillUrl(authorization.url, values));
  const standard: Record<(typeof standardParams)[number], string | null> = {
    response_type: "code",
    client_id: fill("{client.id}", values),
    redirect_uri: values.redirectUri ?? null,
    scope: values.scope === "" ? null : values.scope,
    state,
    code_challenge: codeChallenge?.challenge ?? null,
    code_challenge_method: codeChallenge?.method ?? null,
  };
  for (const name of standardParams) {
    const sentAs = paramName(definition, authorization, name);
    const value = standard[name];
    if (sentAs !== null && value !== null) url.searchParams.set(sentAs, value);
  }
  for (const [name, value] of fillAll(furtherParams(authorization), values)) url.searchParams.set(name, value);
  return url.href;
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

/** Reads what the provider sent back with the browser. A parameter that comes twice counts as absent (section 3.1). */
export function readCallback(definition: ProviderDefinition, query: Readonly<Record<string, unknown>>): Callback {
  const { callback } = authorizationOf(definition);
  const read = (name: string): string | undefined => {
    const value = Object.hasOwn(query, name) ? query[name] : undefined;
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const iss = read("iss");
  const issuer = iss === undefined ? {} : { iss };
  const error = read("error");
  if (error !== undefined) {
    return {
      kind: "error",
      error: plain(error).slice(0, 80),
      description: plain(read("error_description") ?? ""),
      ...issuer,
    };
  }
  const code = read(callback.code);
  if (code === undefined) return { kind: "error", error: "missing_code", description: "no code came back", ...issuer };
  const captured: Record<string, string> = {};
  for (const [name, param] of Object.entries(callback.capture)) {
    const value = read(param);
    if (value !== undefined && /^\P{Cc}{1,2000}$/u.test(value)) captured[name] = value;
  }
  return { kind: "code", code, captured, ...issuer };
}

/**
 * Whether a callback's `iss` names the server that was asked (RFC 9207, section 2.4): the definition's `issuer`, or where
 * it has none, anything of the authorization endpoint's origin.
 */
export function issuerMatches(options: {
  definition: ProviderDefinition;
  values: TemplateValues;
  iss: string;
}): boolean {
  const { definition, values, iss } = options;
  const authorization = authorizationOf(definition);
  if (authorization.issuer !== null) return iss === fillUrl(authorization.issuer, values);
  return URL.parse(iss)?.origin === new URL(fillUrl(authorization.url, values)).origin;
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
