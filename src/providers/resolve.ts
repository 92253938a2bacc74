import type {
  ApiDefinition,
  ConnectionGrant,
  Exchange,
  ExtraToken,
  Limits,
  ProviderDefinition,
  RefreshRules,
} from "./definition.ts";
import type { ProviderFile } from "./provider-file.ts";
import { lacksAddress } from "./requirements.ts";
import { resolveExtraToken, resolveResponse } from "./resolve-answer.ts";
import {
  firstExchange,
  grantKnobs,
  laterExchange,
  lowerCaseKeys,
  resolveAuthorization,
  resolveDevice,
  resolveIntrospection,
  resolveLookup,
  resolveRevocation,
  tokenExchange,
  withoutNull,
} from "./resolve-request.ts";

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
    extraTokens: resolveExtraTokens(file),
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

/** The scopes of the grants that say something of them. */
function resolveScopes({ authorization, token }: ProviderFile): ProviderDefinition["scope"]["byGrant"] {
  const usual = authorization?.scope;
  const special = Object.entries(token?.grants ?? {}).flatMap(([grant, knobs]) => {
    const scope = "scope" in knobs ? knobs.scope : undefined;
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
    const lookups = grantKnobs(file.token ?? {}, grant)?.after_connect;
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

function resolveExtraTokens({ token = {}, response = {} }: ProviderFile): ExtraToken[] {
  return (response.extra_tokens ?? []).map((knobs) =>
    resolveExtraToken(knobs, response, knobs.exchange ? tokenExchange(token, knobs.exchange) : null),
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
