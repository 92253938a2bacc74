import type {
  ApiDefinition,
  AuthorizationDefinition,
  ConnectionGrant,
  Exchange,
  Lifetime,
  ProviderDefinition,
  RefreshRules,
  ResponseRules,
} from "./definition.ts";
import type { ProviderFile } from "./provider-file.ts";

type TokenKnobs = NonNullable<ProviderFile["token"]>;
type GrantKnobs = NonNullable<NonNullable<TokenKnobs["grants"]>["password"]>;
type ExchangeKnobs = Omit<GrantKnobs, "refresh" | "client_id">;

/** A merged file with every default applied. What a file leaves out has the strict default. */
export function resolveDefinition(file: ProviderFile, isSandbox: boolean): ProviderDefinition {
  const grants = file.grants ?? ["authorization_code"];
  const offered = grants.filter((grant) => grant !== "import");
  const usable = file.token?.url !== undefined;
  const scope = file.authorization?.scope;
  return deepFreeze({
    id: file.id,
    name: file.name ?? file.id,
    docs: file.docs ?? null,
    usable,
    isSandbox,
    inputs: file.inputs ?? {},
    grants,
    authorization: grants.includes("authorization_code") ? resolveAuthorization(file) : null,
    scope: {
      param: scope?.param ?? "scope",
      separator: scope?.separator ?? " ",
      default: scope?.default ?? [],
      required: scope?.required ?? [],
    },
    scopeDescriptions: file.scopes ?? {},
    exchanges: byGrant(offered, (grant) => firstExchange(file.token ?? {}, grant)),
    refreshes: byGrant(grants, (grant) => laterExchange(file.token ?? {}, grant)),
    response: resolveResponse(file.response ?? {}),
    refresh: resolveRefresh(file.refresh ?? {}),
    errors: file.errors ?? [],
    api: resolveApi(file.api ?? {}),
    revocation: resolveRevocation(file),
    revocationKills: file.revocation?.kills ?? "all",
    file,
  });
}

function resolveAuthorization(file: ProviderFile): AuthorizationDefinition {
  const { authorization = {} } = file;
  return {
    url: authorization.url ?? "",
    issuer: authorization.issuer ?? null,
    params: authorization.params ?? {},
    pkce: authorization.pkce ?? "required",
    pkceMethod: authorization.pkce_method ?? "S256",
    challengeEncoding: authorization.challenge_encoding ?? "base64url",
    callback: { code: authorization.callback?.code ?? "code", capture: authorization.callback?.capture ?? {} },
    manualCode: authorization.manual_code ?? false,
    manualRedirectUri: authorization.manual_redirect_uri ?? null,
  };
}

function byGrant(
  grants: readonly ConnectionGrant[],
  resolve: (grant: ConnectionGrant) => Exchange | null,
): Partial<Record<ConnectionGrant, Exchange>> {
  const entries = grants.map((grant) => [grant, resolve(grant)] as const).filter((entry) => entry[1] !== null);
  return Object.fromEntries(entries);
}

function grantKnobs(token: TokenKnobs, grant: ConnectionGrant): GrantKnobs | undefined {
  return grant === "import" ? undefined : token.grants?.[grant];
}

function firstExchange(token: TokenKnobs, grant: ConnectionGrant): Exchange {
  const knobs = grantKnobs(token, grant);
  return resolveExchange({ token, layers: [knobs], name: grant, clientId: knobs?.client_id });
}

/** A client credentials grant has no refresh token (RFC 6749, section 4.4.3), unless the file describes its refresh. */
function laterExchange(token: TokenKnobs, grant: ConnectionGrant): Exchange | null {
  const knobs = grantKnobs(token, grant);
  if (grant === "client_credentials" && !knobs?.refresh) return null;
  const layers = [token.grants?.refresh_token, knobs?.refresh];
  return resolveExchange({ token, layers, name: "refresh_token", clientId: knobs?.client_id });
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
  const clientAuth = knobs.client_auth ?? "basic";
  return {
    url: knobs.url ?? "",
    method: knobs.method ?? "POST",
    encoding: knobs.encoding ?? "form",
    clientAuth,
    basicPercentEncoding: knobs.basic_percent_encoding ?? false,
    headers: withoutNull(Object.assign({}, ...layers.map((layer) => lowerCaseKeys(layer.headers ?? {})))),
    grantType: knobs.grant_type ?? name,
    fields: withoutNull(knobs.fields ?? standardFields(name, clientAuth)),
    fixedClientId: clientId ?? null,
  };
}

/** The fields of RFC 6749 for a file that lists none; a client that does not authenticate names itself (section 3.2.1). */
function standardFields(name: string, clientAuth: Exchange["clientAuth"]): Record<string, string> {
  const fields: Record<string, Record<string, string>> = {
    authorization_code: { code: "{code}", redirect_uri: "{redirect_uri}", code_verifier: "{code_verifier}" },
    client_credentials: { scope: "{scope}" },
    password: { username: "{credentials.username}", password: "{credentials.password}", scope: "{scope}" },
    refresh_token: { refresh_token: "{refresh_token}" },
  };
  return { ...fields[name], ...(clientAuth === "none" && { client_id: "{client.id}" }) };
}

function resolveRevocation(file: ProviderFile): Exchange | null {
  if (!file.revocation) return null;
  const { url } = file.revocation;
  const token = { ...file.token, url, method: "POST", encoding: "form" } as const;
  return resolveExchange({ token, layers: [], name: "revocation", clientId: undefined });
}

function resolveResponse(response: NonNullable<ProviderFile["response"]>): ResponseRules {
  return {
    format: response.format ?? "auto",
    accessToken: response.access_token ?? "/access_token",
    refreshToken: response.refresh_token ?? "/refresh_token",
    tokenType: response.token_type ?? "/token_type",
    scope: response.scope ?? "/scope",
    expires: resolveLifetime(response.expires, { pointer: "/expires_in", fallbackSeconds: 3600 }),
    refreshExpires: resolveLifetime(response.refresh_expires, {
      pointer: "/refresh_token_expires_in",
      fallbackSeconds: null,
    }),
    capture: response.capture ?? {},
  };
}

function resolveLifetime(
  lifetime: NonNullable<ProviderFile["response"]>["expires"],
  defaults: { pointer: string; fallbackSeconds: number | null },
): Lifetime {
  return {
    from: lifetime?.from ?? "expires_in",
    pointer: lifetime?.pointer ?? defaults.pointer,
    unit: lifetime?.unit ?? "s",
    fallbackSeconds: lifetime?.fallback ?? defaults.fallbackSeconds,
  };
}

function resolveRefresh(refresh: NonNullable<ProviderFile["refresh"]>): RefreshRules {
  return {
    rotation: refresh.rotation ?? "auto",
    reuse: refresh.reuse ?? "kills_family",
    graceSeconds: refresh.grace_s ?? 0,
    oldAccessTokenDies: refresh.old_access_token_dies ?? true,
    aheadFraction: refresh.ahead ?? 0.25,
    minAgeSeconds: refresh.min_age_s ?? 0,
    idleLifeSeconds: refresh.idle_life_s ?? null,
    absoluteLifeSeconds: refresh.absolute_life_s ?? null,
  };
}

function resolveApi(api: NonNullable<ProviderFile["api"]>): ApiDefinition {
  const authorization = api.authorization ?? "Bearer {access_token}";
  const header = typeof authorization === "string" ? { header: "authorization", value: authorization } : authorization;
  return {
    baseUrl: api.base_url ?? null,
    authorization: { header: header.header.toLowerCase(), value: header.value },
    headers: withoutNull(lowerCaseKeys(api.headers ?? {})),
  };
}

function withoutNull(map: Readonly<Record<string, string | null>>): Record<string, string> {
  const entries = Object.entries(map).filter((entry): entry is [string, string] => entry[1] !== null);
  return Object.fromEntries(entries);
}

function lowerCaseKeys(map: Readonly<Record<string, string | null>>): Record<string, string | null> {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key.toLowerCase(), value]));
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}
