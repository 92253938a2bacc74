import type {
  AuthorizationDefinition,
  ClientAuth,
  ConnectionGrant,
  Exchange,
  IntrospectionDefinition,
  Lookup,
  ProviderRequest,
  RevocationDefinition,
} from "./definition.ts";
import type { ProviderFile } from "./provider-file.ts";
import { resolveCaptures, resolveLifetime } from "./resolve-answer.ts";

type TokenKnobs = NonNullable<ProviderFile["token"]>;
type GrantKnobs = NonNullable<NonNullable<TokenKnobs["grants"]>["password"]>;
export type ExchangeKnobs = Omit<GrantKnobs, "refresh" | "client_id" | "scope" | "after_connect">;
type SideKnobs = Omit<ExchangeKnobs, "grant_type" | "method"> & { method?: "POST" | "GET" | "DELETE" };
type LookupKnobs = NonNullable<ProviderFile["after_connect"]>[number];

export function resolveAuthorization(file: ProviderFile): AuthorizationDefinition {
  const { authorization = {} } = file;
  const { callback = {}, pushed } = authorization;
  return {
    url: authorization.url ?? "",
    issuer: authorization.issuer ?? file.issuer ?? null,
    iss: authorization.iss ?? "as_announced",
    params: authorization.params ?? {},
    paramsWithScope: authorization.params_with_scope ?? {},
    pkce: authorization.pkce ?? "required",
    pkceMethod: authorization.pkce_method ?? "S256",
    challengeEncoding: authorization.challenge_encoding ?? "base64url",
    responseMode: authorization.response_mode ?? null,
    callback: {
      code: callback.code ?? "code",
      denied: ["access_denied", ...(callback.denied ?? []).map((code) => code.toLowerCase())],
      capture: resolveCaptures(callback.capture ?? {}),
      verify: callback.verify ?? null,
    },
    manualCode: authorization.manual_code ?? false,
    manualRedirectUri: authorization.manual_redirect_uri ?? null,
    pushed: pushed ? resolveSide(file, pushed, {}) : null,
  };
}

/** How a grant's first token is asked for. */
export function firstExchange(token: TokenKnobs, grant: ConnectionGrant): Exchange {
  const knobs = grantKnobs(token, grant);
  return resolveExchange({ token, layers: [knobs], name: grant, clientId: knobs?.client_id });
}

/** A client credentials grant has no refresh token (RFC 6749, section 4.4.3), unless the file describes its refresh. */
export function laterExchange(token: TokenKnobs, grant: ConnectionGrant): Exchange | null {
  const knobs = grantKnobs(token, grant);
  if (grant === "client_credentials" && !knobs?.refresh) return null;
  const layers = [token.grants?.refresh_token, knobs?.refresh];
  return resolveExchange({ token, layers, name: "refresh_token", clientId: knobs?.client_id });
}

/** The exchange of an access token for another one (RFC 8693, section 2.1). */
export function tokenExchange(token: TokenKnobs, knobs: ExchangeKnobs): Exchange {
  return resolveExchange({ token, layers: [knobs], name: "token_exchange", clientId: undefined });
}

export function resolveDevice(file: ProviderFile): ProviderRequest {
  return resolveSide(file, file.device ?? {}, { client_id: "{client.id}", scope: "{scope}" });
}

const namedToken = { token: "{token}", token_type_hint: "{token_type_hint}" };

export function resolveRevocation(file: ProviderFile): RevocationDefinition | null {
  const { revocation } = file;
  if (!revocation) return null;
  const side = resolveSide(file, revocation, namedToken);
  return { ...side, token: revocation.token ?? "both", kills: revocation.kills ?? "all" };
}

export function resolveIntrospection(file: ProviderFile): IntrospectionDefinition | null {
  const { introspection } = file;
  if (!introspection) return null;
  const expires = { from: "expires_at", pointer: "/exp", ...introspection.expires } as const;
  return {
    ...resolveSide(file, introspection, namedToken),
    token: introspection.token ?? "access_token",
    active: introspection.active ?? "/active",
    expires: resolveLifetime(expires, { pointer: "/exp", fallbackSeconds: null }),
  };
}

export function resolveLookup(file: ProviderFile, lookup: LookupKnobs): Lookup {
  const { request, select } = lookup;
  return {
    request: request ? resolveLookupRequest(file, request) : null,
    select: select ? { list: select.list ?? null, where: select.where ?? null, equals: select.equals ?? null } : null,
    pointer: lookup.pointer ?? null,
    value: lookup.value ?? null,
    label: lookup.label ?? null,
    capture: resolveCaptures(lookup.capture ?? {}),
  };
}

/** A GET without a body, by the access token, unless it says otherwise. */
function resolveLookupRequest(file: ProviderFile, knobs: NonNullable<LookupKnobs["request"]>): Lookup["request"] {
  const asApi = { token: {}, api: {}, id: file.id };
  const request = resolveSide(asApi, { method: "GET", encoding: "query", ...knobs }, {});
  const clientAuth = knobs.client_auth === undefined ? null : request.clientAuth;
  const headers = withoutNull({ ...lowerCaseKeys(file.api?.headers ?? {}), ...lowerCaseKeys(knobs.headers ?? {}) });
  return { ...request, headers, clientAuth };
}

/** A request beside the token endpoint: as at the top of `token`, in a form, where it does not say otherwise. */
function resolveSide(
  { token = {} }: ProviderFile,
  knobs: SideKnobs,
  fields: Readonly<Record<string, string>>,
): ProviderRequest {
  const { method = "POST", ...own } = knobs;
  const layers: ExchangeKnobs[] = [{ ...token, encoding: "form" }, own];
  const merged: ExchangeKnobs = Object.assign({}, ...layers);
  return {
    url: own.url ?? "",
    method,
    encoding: merged.encoding ?? "form",
    clientAuth: resolveClientAuth(merged),
    headers: mergeHeaders(layers),
    fields: withoutNull(own.fields ?? fields),
  };
}

/** What the file says of a grant under `token.grants`. */
export function grantKnobs(token: TokenKnobs, grant: ConnectionGrant): GrantKnobs | undefined {
  return grant === "import" ? undefined : token.grants?.[grant];
}

function resolveExchange(options: {
  token: TokenKnobs;
  layers: (ExchangeKnobs | undefined)[];
  name: string;
  clientId: string | undefined;
}): Exchange {
  const { token, name, clientId } = options;
  const layers: ExchangeKnobs[] = [token, ...options.layers.filter((layer) => layer !== undefined)];
  const knobs: ExchangeKnobs = Object.assign({}, ...layers);
  const clientAuth = resolveClientAuth(knobs);
  return {
    url: knobs.url ?? "",
    method: knobs.method ?? "POST",
    encoding: knobs.encoding ?? "form",
    clientAuth,
    headers: mergeHeaders(layers),
    grantType: knobs.grant_type === undefined ? (urnOf[name] ?? name) : knobs.grant_type,
    fields: withoutNull(knobs.fields ?? standardFields(name, clientAuth)),
    fixedClientId: clientId ?? null,
  };
}

const urnOf: Record<string, string> = {
  device_code: "urn:ietf:params:oauth:grant-type:device_code",
  token_exchange: "urn:ietf:params:oauth:grant-type:token-exchange",
};

function resolveClientAuth(knobs: ExchangeKnobs): ClientAuth {
  const { client_auth: auth = "basic", assertion = {} } = knobs;
  const percentEncoding = knobs.basic_percent_encoding ?? false;
  if (typeof auth === "object" && "basic" in auth) return { kind: "basic", pair: auth.basic, percentEncoding };
  if (typeof auth === "object") {
    return { kind: "header", header: auth.header.toLowerCase(), value: auth.value ?? "{client.secret}" };
  }
  if (auth === "basic") return { kind: "basic", pair: "{client.id}:{client.secret}", percentEncoding };
  if (auth !== "private_key_jwt") return { kind: auth };
  return {
    kind: "private_key_jwt",
    algorithm: assertion.alg ?? "RS256",
    audience: assertion.audience ?? "token_url",
    lifeSeconds: assertion.life_s ?? 60,
  };
}

/** The fields of the RFCs for a file that lists none; a client that does not authenticate names itself (RFC 6749, 3.2.1). */
function standardFields(name: string, clientAuth: ClientAuth): Record<string, string> {
  const fields: Record<string, Record<string, string>> = {
    authorization_code: { code: "{code}", redirect_uri: "{redirect_uri}", code_verifier: "{code_verifier}" },
    client_credentials: { scope: "{scope}" },
    password: { username: "{credentials.username}", password: "{credentials.password}", scope: "{scope}" },
    device_code: { device_code: "{device_code}" },
    token_exchange: {
      subject_token: "{access_token}",
      subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
    },
    refresh_token: { refresh_token: "{refresh_token}" },
  };
  return { ...fields[name], ...(clientAuth.kind === "none" && { client_id: "{client.id}" }) };
}

function mergeHeaders(layers: readonly ExchangeKnobs[]): Record<string, string> {
  return withoutNull(Object.assign({}, ...layers.map((layer) => lowerCaseKeys(layer.headers ?? {}))));
}

export function withoutNull(map: Readonly<Record<string, string | null>>): Record<string, string> {
  const entries = Object.entries(map).filter((entry): entry is [string, string] => entry[1] !== null);
  return Object.fromEntries(entries);
}

export function lowerCaseKeys(map: Readonly<Record<string, string | null>>): Record<string, string | null> {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key.toLowerCase(), value]));
}
