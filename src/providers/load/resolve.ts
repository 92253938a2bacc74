import { rulesOfGrant, type TokenGrant } from "../../grant-types.ts";
import { providerTimes, refreshTimes } from "../../time.ts";
import type {
  ApiDefinition,
  AuthorizationDefinition,
  Captures,
  ClientAuth,
  ConnectionGrant,
  Exchange,
  FurtherToken,
  IntrospectionDefinition,
  Lifetime,
  Limits,
  Lookup,
  ProviderDefinition,
  ProviderRequest,
  RefreshRules,
  ResponseRules,
  RevocationDefinition,
  TokenPointers,
} from "../format/definition.ts";
import type { ProviderFile } from "../format/file.ts";
import { lacksAddress } from "../oauth/discovery.ts";
import type { CaptureSettings } from "../format/settings.ts";
import { withoutNull } from "../format/template.ts";

/** A merged file with every default applied. What a file leaves out has the strict default. */
export function resolveDefinition(file: ProviderFile, isSandbox: boolean): ProviderDefinition {
  const grants = file.grants ?? ["authorization_code"];
  const offered = grants.filter((grant) => grant !== "import");
  const { token = {}, authorization, parallel_sets: sets } = file;
  const scope = authorization?.scope;
  const definition = {
    id: file.id,
    name: file.name ?? file.id,
    docs: file.docs ?? null,
    usable: token.url !== undefined || file.issuer !== undefined,
    formerly: file.formerly ?? [],
    isSandbox,
    networks: file.networks ?? null,
    inputs: file.inputs ?? {},
    grants,
    authorization: grants.includes("authorization_code") ? resolveAuthorization(file) : null,
    scope: {
      param: scope?.param ?? "scope",
      separator: scope?.separator ?? " ",
      default: scope?.default ?? [],
      required: scope?.required ?? [],
      aliases: scope?.aliases ?? {},
      byGrant: resolveScopes(file),
    },
    scopeDescriptions: file.scopes ?? {},
    exchanges: byGrant(offered, (grant) => firstExchange(token, grant)),
    refreshes: byGrant(grants, (grant) => laterExchange(token, grant)),
    response: resolveResponse(file.response ?? {}, scope?.separator ?? " "),
    refresh: resolveRefresh(file.refresh ?? {}),
    errors: file.errors ?? [],
    api: resolveApi(file.api ?? {}),
    revocation: resolveRevocation(file),
    introspection: resolveIntrospection(file),
    device: grants.includes("device_code") ? resolveDevice(file) : null,
    furtherTokens: resolveFurtherTokens(file),
    limits: resolveLimits(file.limits ?? {}),
    parallelSets: typeof sets === "object" ? { singlePer: sets.single_per, max: sets.max ?? 1 } : null,
    lookups: (file.after_connect ?? []).map((lookup) => resolveLookup(file, lookup)),
    lookupsByGrant: resolveLookups(file, offered),
    issuer: file.issuer ?? null,
    metadataUrl: file.discovery?.metadata_url ?? null,
    file,
  };
  return deepFreeze({ ...definition, isDiscovered: file.issuer !== undefined && lacksAddress(definition) });
}

/** The scopes of grant types that set some. */
function resolveScopes({ authorization, token }: ProviderFile): ProviderDefinition["scope"]["byGrant"] {
  const usual = authorization?.scope;
  const special = Object.entries(token?.grants ?? {}).flatMap(([grant, settings]) => {
    const scope = "scope" in settings ? settings.scope : undefined;
    if (scope === undefined) return [];
    const asked = {
      default: scope.default ?? usual?.default ?? [],
      required: scope.required ?? usual?.required ?? [],
    };
    return [[grant, asked]];
  });
  return Object.fromEntries(special);
}

/** The lookups of the offered grants that have their own. */
function resolveLookups(file: ProviderFile, offered: readonly ConnectionGrant[]): ProviderDefinition["lookupsByGrant"] {
  const special = offered.flatMap((grant) => {
    const lookups = grantSettings(file.token ?? {}, grant)?.after_connect;
    return lookups === undefined ? [] : [[grant, lookups.map((lookup) => resolveLookup(file, lookup))]];
  });
  return Object.fromEntries(special);
}

function byGrant(
  grants: readonly ConnectionGrant[],
  resolve: (grant: ConnectionGrant) => Exchange | null,
): Partial<Record<ConnectionGrant, Exchange>> {
  const entries = grants.map((grant) => [grant, resolve(grant)] as const).filter((entry) => entry[1] !== null);
  return Object.fromEntries(entries);
}

function resolveFurtherTokens({ token = {}, response = {} }: ProviderFile): FurtherToken[] {
  return (response.extra_tokens ?? []).map((settings) =>
    resolveFurtherToken(settings, response, settings.exchange ? tokenExchange(token, settings.exchange) : null),
  );
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
    deadGrant: refresh.dead_grant ?? null,
  };
}

function resolveLimits(limits: NonNullable<ProviderFile["limits"]>): Limits {
  const [requests, seconds] = (limits.max_per_window ?? "").split(/ in | s$/).map(Number);
  return {
    per: limits.per ?? "token_host",
    concurrency: limits.concurrency ?? null,
    spacingMs: limits.spacing_ms ?? 0,
    coolDownSeconds: limits.cool_down_s ?? 0,
    maxPerWindow: requests && seconds ? { requests, seconds } : null,
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

function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}

type TokenSettings = NonNullable<ProviderFile["token"]>;
type GrantSettings = NonNullable<NonNullable<TokenSettings["grants"]>["password"]>;
type ExchangeSettings = Omit<GrantSettings, "refresh" | "client_id" | "scope" | "after_connect">;
type SideSettings = Omit<ExchangeSettings, "grant_type" | "method"> & { method?: "POST" | "GET" | "DELETE" };
type LookupSettings = NonNullable<ProviderFile["after_connect"]>[number];

function resolveAuthorization(file: ProviderFile): AuthorizationDefinition {
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
    codeLifetimeSeconds: authorization.code_lifetime_s ?? null,
    pushed: pushed ? resolveSide(file, pushed, {}) : null,
  };
}

/** The request for a grant type's first token; null: it is handed over by hand. */
function firstExchange(token: TokenSettings, grant: ConnectionGrant): Exchange | null {
  if (grant === "import") return null;
  const settings = grantSettings(token, grant);
  return resolveExchange({ token, layers: [settings], name: grant, clientId: settings?.client_id });
}

/** A client credentials grant has no refresh token (RFC 6749, section 4.4.3), unless the file describes its refresh. */
function laterExchange(token: TokenSettings, grant: ConnectionGrant): Exchange | null {
  const settings = grantSettings(token, grant);
  if (!rulesOfGrant(grant).hasRefreshToken && !settings?.refresh) return null;
  const layers = [token.grants?.refresh_token, settings?.refresh];
  return resolveExchange({ token, layers, name: "refresh_token", clientId: settings?.client_id });
}

/** The exchange of an access token for another one (RFC 8693, section 2.1). */
function tokenExchange(token: TokenSettings, settings: ExchangeSettings): Exchange {
  return resolveExchange({ token, layers: [settings], name: "token_exchange", clientId: undefined });
}

function resolveDevice(file: ProviderFile): ProviderRequest {
  return resolveSide(file, file.device ?? {}, { client_id: "{client.id}", scope: "{scope}" });
}

const namedToken = { token: "{token}", token_type_hint: "{token_type_hint}" };

function resolveRevocation(file: ProviderFile): RevocationDefinition | null {
  const { revocation } = file;
  if (!revocation) return null;
  const side = resolveSide(file, revocation, namedToken);
  return { ...side, token: revocation.token ?? "both", kills: revocation.kills ?? "all" };
}

function resolveIntrospection(file: ProviderFile): IntrospectionDefinition | null {
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

function resolveLookup(file: ProviderFile, lookup: LookupSettings): Lookup {
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
function resolveLookupRequest(file: ProviderFile, settings: NonNullable<LookupSettings["request"]>): Lookup["request"] {
  const asApi = { token: {}, api: {}, id: file.id };
  const request = resolveSide(asApi, { method: "GET", encoding: "query", ...settings }, {});
  const clientAuth = settings.client_auth === undefined ? null : request.clientAuth;
  const headers = withoutNull({ ...lowerCaseKeys(file.api?.headers ?? {}), ...lowerCaseKeys(settings.headers ?? {}) });
  return { ...request, headers, clientAuth };
}

/** A request beside the token endpoint: as at the top of `token`, in a form, where it does not say otherwise. */
function resolveSide(
  { token = {} }: ProviderFile,
  settings: SideSettings,
  fields: Readonly<Record<string, string>>,
): ProviderRequest {
  const { method = "POST", ...own } = settings;
  const layers: ExchangeSettings[] = [{ ...token, encoding: "form" }, own];
  const merged: ExchangeSettings = Object.assign({}, ...layers);
  return {
    url: own.url ?? "",
    method,
    encoding: merged.encoding ?? "form",
    clientAuth: resolveClientAuth(merged),
    headers: mergeHeaders(layers),
    fields: withoutNull(own.fields ?? fields),
  };
}

/** The settings of a grant type under `token.grants`. */
function grantSettings(token: TokenSettings, grant: ConnectionGrant): GrantSettings | undefined {
  return grant === "import" ? undefined : token.grants?.[grant];
}

function resolveExchange(options: {
  token: TokenSettings;
  layers: (ExchangeSettings | undefined)[];
  name: TokenGrant;
  clientId: string | undefined;
}): Exchange {
  const { token, name, clientId } = options;
  const layers: ExchangeSettings[] = [token, ...options.layers.filter((layer) => layer !== undefined)];
  const settings: ExchangeSettings = Object.assign({}, ...layers);
  const clientAuth = resolveClientAuth(settings);
  return {
    url: settings.url ?? "",
    method: settings.method ?? "POST",
    encoding: settings.encoding ?? "form",
    clientAuth,
    headers: mergeHeaders(layers),
    grantType: settings.grant_type === undefined ? grantTypes[name] : settings.grant_type,
    fields: withoutNull(settings.fields ?? standardFields(name, clientAuth)),
    fixedClientId: clientId ?? null,
  };
}

/** The `grant_type` of the RFCs for each grant. */
const grantTypes: Record<TokenGrant, string> = {
  authorization_code: "authorization_code",
  client_credentials: "client_credentials",
  password: "password",
  refresh_token: "refresh_token",
  device_code: "urn:ietf:params:oauth:grant-type:device_code",
  token_exchange: "urn:ietf:params:oauth:grant-type:token-exchange",
};

function resolveClientAuth(settings: ExchangeSettings): ClientAuth {
  const { client_auth: auth = "basic", assertion = {} } = settings;
  const percentEncoding = settings.basic_percent_encoding ?? false;
  if (typeof auth === "object" && "basic" in auth) return { kind: "basic", pair: auth.basic, percentEncoding };
  if (typeof auth === "object") {
    return { kind: "header", header: auth.header.toLowerCase(), value: auth.value ?? "{client.secret}" };
  }
  if (auth === "basic") return { kind: "basic", pair: "{client.id}:{client.secret}", percentEncoding };
  if (auth !== "private_key_jwt") return { kind: auth };
  return {
    kind: "private_key_jwt",
    algorithm: assertion.alg ?? "RS256",
    audience: assertion.audience ?? null,
    type: assertion.typ ?? null,
    lifeSeconds: assertion.life_s ?? providerTimes.assertionSeconds,
  };
}

/** The fields of the RFCs for a file that lists none; a client that does not authenticate names itself (RFC 6749, 3.2.1). */
function standardFields(name: TokenGrant, clientAuth: ClientAuth): Record<string, string> {
  const fields: Record<TokenGrant, Record<string, string>> = {
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

function mergeHeaders(layers: readonly ExchangeSettings[]): Record<string, string> {
  return withoutNull(Object.assign({}, ...layers.map((layer) => lowerCaseKeys(layer.headers ?? {}))));
}

function lowerCaseKeys(map: Readonly<Record<string, string | null>>): Record<string, string | null> {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key.toLowerCase(), value]));
}

type ResponseSettings = NonNullable<ProviderFile["response"]>;
type FurtherTokenSettings = NonNullable<ResponseSettings["extra_tokens"]>[number];
type PointerSettings = NonNullable<FurtherTokenSettings["refreshed"]>;
type LifetimeSettings = ResponseSettings["expires"];

/** Where RFC 6749, section 5.1, puts things. */
const standardPointers: TokenPointers = {
  accessToken: "/access_token",
  refreshToken: "/refresh_token",
  tokenType: "/token_type",
  scope: "/scope",
  expires: {
    from: "expires_in",
    pointer: "/expires_in",
    unit: "s",
    fallbackSeconds: refreshTimes.unstatedLifetimeSeconds,
  },
  refreshExpires: { from: "expires_in", pointer: "/refresh_token_expires_in", unit: "s", fallbackSeconds: null },
};

/** A further token must not share the connection's refresh token: two rows with the same one would end each other. */
const nowhere: TokenPointers = {
  accessToken: "",
  refreshToken: "",
  tokenType: "",
  scope: "",
  expires: { ...standardPointers.expires, pointer: "" },
  refreshExpires: { ...standardPointers.refreshExpires, pointer: "" },
};

function resolveResponse(response: ResponseSettings, separator: string): ResponseRules {
  return {
    ...resolvePointers(response, standardPointers),
    format: response.format ?? "auto",
    scopeSeparator: response.scope_separator ?? separator,
    okWhen: response.ok_when ?? null,
    capture: resolveCaptures(response.capture ?? {}),
  };
}

/** A further token in the connection's answer has its own pointers. One that comes by token exchange has those of an answer. */
function resolveFurtherToken(
  settings: FurtherTokenSettings,
  response: ResponseSettings,
  exchange: Exchange | null,
): FurtherToken {
  const usual = resolvePointers(response, standardPointers);
  const granted = resolvePointers(settings, exchange ? usual : nowhere);
  return {
    name: settings.name,
    exchange,
    granted,
    refreshed: resolvePointers(settings.refreshed ?? {}, exchange ? granted : usual),
  };
}

function resolvePointers(settings: PointerSettings, usual: TokenPointers): TokenPointers {
  return {
    accessToken: settings.access_token ?? usual.accessToken,
    refreshToken: settings.refresh_token ?? usual.refreshToken,
    tokenType: settings.token_type ?? usual.tokenType,
    scope: settings.scope ?? usual.scope,
    expires: resolveLifetime(settings.expires, usual.expires, settings.access_token ?? usual.accessToken),
    refreshExpires: resolveLifetime(
      settings.refresh_expires,
      usual.refreshExpires,
      settings.refresh_token ?? usual.refreshToken,
    ),
  };
}

/** `token`: where the token itself is, which may be a JWT. */
function resolveLifetime(
  settings: LifetimeSettings,
  usual: Pick<Lifetime, "pointer" | "fallbackSeconds"> & Partial<Lifetime>,
  token = "",
): Lifetime {
  const from = settings?.from ?? usual.from ?? "expires_in";
  const own: Partial<Record<Lifetime["from"], string>> = {
    expires_at: usual.pointer === "" ? "" : "/expires_at",
    jwt_exp: token,
  };
  const pointer = from === usual.from ? usual.pointer : (own[from] ?? usual.pointer);
  return {
    from,
    pointer: settings?.pointer ?? pointer,
    unit: settings?.unit ?? usual.unit ?? "s",
    fallbackSeconds: settings?.fallback ?? usual.fallbackSeconds,
  };
}

function resolveCaptures(captures: CaptureSettings): Captures {
  const entries = Object.entries(captures).map(([name, capture]) => {
    const { pointer, param, pattern, enum: allowed, default: standIn } = expandCapture(capture);
    const from = pointer ?? param ?? "";
    return [name, { from, pattern: pattern ?? null, allowed: allowed ?? null, default: standIn ?? null }] as const;
  });
  return Object.fromEntries(entries);
}

function expandCapture(capture: CaptureSettings[string]): Exclude<CaptureSettings[string], string> {
  return typeof capture === "string" ? { pointer: capture } : capture;
}
