import type { ConnectionGrant } from "../../grant-types.ts";
import type { ProviderFile } from "./file.ts";
import type { lifetimeSources, signingAlgorithms } from "./settings.ts";

export type { ConnectionGrant } from "../../grant-types.ts";

/** An input: a value that is asked for when a connection, or its client, is made. */
export type InputDefinition = Readonly<{
  generate?: "uuid";
  pattern?: string;
  enum?: readonly string[];
  /** For an `enum` that stands in a host: all its domains belong to one owner. */
  hosts_of_one_owner?: boolean;
  default?: string;
  /** It may be missing: a header, field or parameter with it is then left out. */
  optional?: boolean;
  /** Stored sealed, and never shown. */
  secret?: boolean;
  description?: string;
}>;

/** How a client authenticates (RFC 6749, section 2.3; RFC 7523, section 2.2; RFC 8705, section 2). */
export type ClientAuth =
  | Readonly<{ kind: "none" | "body" | "tls" }>
  /** `pair`: a template. `percentEncoding`: its values are encoded as forms do; few servers undo it. */
  | Readonly<{ kind: "basic"; pair: string; percentEncoding: boolean }>
  /** `audience` null: the issuer where the definition knows one, else the address of the request. `type` null: as the audience asks. */
  | Readonly<{
      kind: "private_key_jwt";
      algorithm: SigningAlgorithm;
      audience: string | null;
      type: string | null;
      lifeSeconds: number;
    }>
  /** `value`: a template. */
  | Readonly<{ kind: "header"; header: string; value: string }>;

type SigningAlgorithm = (typeof signingAlgorithms)[number];

/** One kind of request to a provider, all layers of the file applied. */
export type ProviderRequest = Readonly<{
  url: string;
  method: "POST" | "GET" | "DELETE";
  encoding: "form" | "json" | "query";
  clientAuth: ClientAuth;
  headers: Readonly<Record<string, string>>;
  /** The fields beside those of `clientAuth`, as templates. */
  fields: Readonly<Record<string, string>>;
}>;

/** One kind of request to a token endpoint (RFC 6749, section 3.2). */
export type Exchange = ProviderRequest &
  Readonly<{
    /** Null: none is sent. */
    grantType: string | null;
    /** The client id that the definition fixes for this grant; null: the client's own. */
    fixedClientId: string | null;
  }>;

/**
 * Where a value for later templates is, and what it must look like, or be one of; both null: anything that can stand in a URL or
 * header. `default`: the template that stands in where there is none.
 */
export type Capture = Readonly<{
  from: string;
  pattern: string | null;
  allowed: readonly string[] | null;
  default: string | null;
}>;
export type Captures = Readonly<Record<string, Capture>>;

export type AuthorizationDefinition = Readonly<{
  url: string;
  /** What `iss` must be in a callback (RFC 9207); null: not stated. */
  issuer: string | null;
  /** Whether a callback must carry it. `as_announced`: if the metadata say that it will. */
  iss: "required" | "if_present" | "as_announced";
  /** Templates of further parameters; under the name of a standard one, its new name, or null to leave it out. */
  params: Readonly<Record<string, string | null>>;
  /** Scope → parameters that are sent while it is asked for, as they stand; null: not that one. */
  paramsWithScope: Readonly<Record<string, Readonly<Record<string, string | null>>>>;
  pkce: "off" | "optional" | "required";
  pkceMethod: "S256" | "plain";
  challengeEncoding: "base64url" | "base64";
  /** The `response_mode` that is sent; null: none, and the answer comes in the query. */
  responseMode: "query" | "form_post" | null;
  /** `denied`: error codes for a person's refusal, in lower case. */
  callback: Readonly<{
    code: string;
    denied: readonly string[];
    capture: Captures;
    verify: "hmac_sha256_query" | null;
  }>;
  manualCode: boolean;
  /** The `redirect_uri` of a code that a person copies; null: none is sent, and the provider uses its default. */
  manualRedirectUri: string | null;
  /** Null: not known; it lives for a minute at least. */
  codeLifetimeSeconds: number | null;
  /** Where the parameters are pushed to (RFC 9126); null: they stand in the address. */
  pushed: ProviderRequest | null;
}>;

export type AskedScopes = Readonly<{ default: readonly string[]; required: readonly string[] }>;

type ScopeRules = Readonly<{
  param: string;
  separator: string;
  default: readonly string[];
  required: readonly string[];
  /** A scope's name → another name of it, which answers may use. */
  aliases: Readonly<Record<string, string>>;
  /** `default` and `required` of the grants that ask for other scopes. */
  byGrant: Readonly<Partial<Record<ConnectionGrant, AskedScopes>>>;
}>;

/** Where an answer says how long a token lives. `fallbackSeconds` is used if it does not say; null: no fallback. */
export type Lifetime = Readonly<{
  from: (typeof lifetimeSources)[number];
  pointer: string;
  unit: "s" | "ms" | "iso";
  fallbackSeconds: number | null;
}>;

/** Where the tokens of an answer are, as JSON pointers. */
export type TokenPointers = Readonly<{
  accessToken: string;
  refreshToken: string;
  tokenType: string;
  scope: string;
  expires: Lifetime;
  refreshExpires: Lifetime;
}>;

/** A further token of the same consent, in a row of its own. */
export type FurtherToken = Readonly<{
  name: string;
  /** In the answer that holds the connection's own token; in that of `exchange`, where there is one. */
  granted: TokenPointers;
  /** In the answer to its own refresh. */
  refreshed: TokenPointers;
  /** The token exchange by which it is requested (RFC 8693); null: it is in the connection's answer. */
  exchange: Exchange | null;
}>;

export type ResponseRules = TokenPointers &
  Readonly<{
    format: "auto" | "json" | "form";
    scopeSeparator: string;
    /** What a 2xx must contain so that it is no refusal; null: nothing. */
    okWhen: Readonly<{ pointer: string; equals: string }> | null;
    capture: Captures;
  }>;

export type RefreshRules = Readonly<{
  rotation: "never" | "always" | "auto";
  /** What a second use of a refresh token does: docs/refresh-protocol.md, "Replay and takeover". */
  reuse: "safe" | "grace" | "until_successor_used" | "dead" | "kills_family";
  graceSeconds: number;
  oldAccessTokenDies: boolean;
  /** The last part of a token's life, in which it is refreshed ahead. */
  aheadFraction: number;
  /** A younger token is not refreshed. */
  minAgeSeconds: number;
  idleLifeSeconds: number | null;
  absoluteLifeSeconds: number | null;
  /** The answers to a refresh when the grant is over; null: the file does not say. `errors` has the rules that read them. */
  deadGrant: readonly StatedAnswer[] | null;
}>;

/** An answer of the token endpoint, as a definition states it. */
export type StatedAnswer = Readonly<{ status: number; body: string | Readonly<Record<string, unknown>> }>;

export type ErrorRule = Readonly<{
  endpoint: "token" | "api";
  status?: number;
  pointer?: string;
  equals?: string;
  regex?: string;
  body?: string;
  means:
    | "access_token_expired"
    | "needs_reauthorization"
    | "client_rejected"
    | "rate_limited"
    | "blocked"
    | "transient";
}>;

export type ApiDefinition = Readonly<{
  baseUrl: string | null;
  authorization: Readonly<{ header: string; value: string }>;
  headers: Readonly<Record<string, string>>;
}>;

/** The limits of a token endpoint. Null, or 0: no limit. */
export type Limits = Readonly<{
  per: "token_host" | "client" | "connection";
  concurrency: number | null;
  spacingMs: number;
  coolDownSeconds: number;
  maxPerWindow: Readonly<{ requests: number; seconds: number }> | null;
}>;

/** Which token sets a provider counts together, and how many it keeps; null: they do not affect each other. */
type ParallelSets = Readonly<{ singlePer: readonly string[]; max: number }>;

/** A call after connecting. The account's name is at `pointer`, or is the template `value`; null: it names none. */
export type Lookup = Readonly<{
  request: (Omit<ProviderRequest, "clientAuth"> & Readonly<{ clientAuth: ClientAuth | null }>) | null;
  select: Readonly<{ list: string | null; where: string | null; equals: string | null }> | null;
  pointer: string | null;
  value: string | null;
  label: string | null;
  capture: Captures;
}>;

export type RevocationDefinition = ProviderRequest &
  Readonly<{
    token: "refresh_token" | "access_token" | "both";
    /** What a revocation ends: the token that it names, or everything of the grant, newer sets included. */
    kills: "token" | "all";
  }>;

export type IntrospectionDefinition = ProviderRequest &
  Readonly<{ token: "access_token" | "refresh_token"; active: string; expires: Lifetime }>;

/** A provider, resolved: `extends` followed, defaults applied, frozen. What each part is for: docs/provider-format.md. */
export type ProviderDefinition = Readonly<{
  id: string;
  name: string;
  docs: string | null;
  /** False: no token endpoint, the definition is only there to be extended. */
  usable: boolean;
  /** Ids that it had before. Connections and clients may still have them. */
  formerly: readonly string[];
  /** The built-in sandbox, which alone may reach this broker's own origin. */
  isSandbox: boolean;
  /** CIDR blocks that only this provider may be in, beside the public internet; null: those of PROVIDER_NETWORKS. */
  networks: readonly string[] | null;
  inputs: Readonly<Record<string, InputDefinition>>;
  /** The grants offered, as listed. */
  grants: readonly ConnectionGrant[];
  /** Null where the authorization code grant is not offered. */
  authorization: AuthorizationDefinition | null;
  scope: ScopeRules;
  /** What scopes allow, in plain words, if the definition says. */
  scopeDescriptions: Readonly<Record<string, string>>;
  /** How each offered grant (`import` aside) gets its first token. */
  exchanges: Readonly<Partial<Record<ConnectionGrant | "token_exchange", Exchange>>>;
  /** How sets obtained by each offered grant are refreshed; absent: a new one is fetched instead. */
  refreshes: Readonly<Partial<Record<ConnectionGrant, Exchange>>>;
  response: ResponseRules;
  refresh: RefreshRules;
  errors: readonly ErrorRule[];
  api: ApiDefinition;
  revocation: RevocationDefinition | null;
  introspection: IntrospectionDefinition | null;
  /** The device authorization endpoint (RFC 8628, section 3.1); null where the grant is not offered. */
  device: ProviderRequest | null;
  furtherTokens: readonly FurtherToken[];
  limits: Limits;
  parallelSets: ParallelSets | null;
  /** The lookups of grant types without lookups of their own: use `lookupsOf`. */
  lookups: readonly Lookup[];
  lookupsByGrant: Readonly<Partial<Record<ConnectionGrant, readonly Lookup[]>>>;
  /** The issuer whose metadata supply the addresses that the file leaves out (empty here); null: none. */
  issuer: string | null;
  /** The address of the metadata; null: the one of RFC 8414 or OpenID Connect Discovery. */
  metadataUrl: string | null;
  /** The file leaves an address out, so the issuer's metadata decide where secrets go. It stays true after they have supplied it. */
  isDiscovered: boolean;
  /** The file in force: merged, as written, for showing. */
  file: ProviderFile;
}>;

/** The grant of a connection that names none: the authorization code where offered, else the first. */
export function defaultGrant(definition: ProviderDefinition): ConnectionGrant {
  return definition.grants.find((grant) => grant === "authorization_code") ?? definition.grants[0] ?? "import";
}

/** The client id that the definition fixes for this grant, so that a connection needs no client; null: it needs one. */
export function fixedClientId(definition: ProviderDefinition, grant: ConnectionGrant): string | null {
  return (definition.exchanges[grant] ?? definition.refreshes[grant])?.fixedClientId ?? null;
}

/**
 * The definition as a further token sees it: its answers are read, and its token is asked for, in its own way.
 * @throws Error when there is no such token
 */
export function forFurtherToken(definition: ProviderDefinition, name: string): ProviderDefinition {
  const further = definition.furtherTokens.find((candidate) => candidate.name === name);
  if (further === undefined) throw new Error(`provider ${definition.id} has no further token ${name}`);
  const { exchange, refreshed } = further;
  const exchanges = exchange === null ? {} : { token_exchange: exchange };
  const response = { ...definition.response, ...refreshed };
  return { ...definition, exchanges, response, furtherTokens: [], lookups: [], lookupsByGrant: {} };
}
