import type { ConnectionGrant, ProviderFile } from "./provider-file.ts";

export type { ConnectionGrant } from "./provider-file.ts";

/** What is known about a value that is asked for when a connection, or its client, is made. */
export type InputDefinition = Readonly<{
  generate?: "uuid";
  pattern?: string;
  enum?: readonly string[];
  default?: string;
  description?: string;
}>;

/** One kind of request to a token endpoint, all layers of the file applied (RFC 6749, section 3.2). */
export type Exchange = Readonly<{
  url: string;
  method: "POST" | "GET";
  encoding: "form" | "json" | "query";
  clientAuth: "none" | "basic" | "body";
  /** Encode id and secret as forms do before Basic joins them (RFC 6749, section 2.3.1); few servers undo it. */
  basicPercentEncoding: boolean;
  headers: Readonly<Record<string, string>>;
  grantType: string;
  /** The fields beside `grant_type` and those of `clientAuth: body`, as templates. */
  fields: Readonly<Record<string, string>>;
  /** The client id that the definition fixes for this grant; null: the client's own. */
  fixedClientId: string | null;
}>;

export type AuthorizationDefinition = Readonly<{
  url: string;
  /** What `iss` must be when a callback carries it (RFC 9207); null: anything of the authorization endpoint's origin. */
  issuer: string | null;
  /** Templates of further parameters; under the name of a standard one, its new name, or null to leave it out. */
  params: Readonly<Record<string, string | null>>;
  pkce: "off" | "optional" | "required";
  pkceMethod: "S256" | "plain";
  challengeEncoding: "base64url" | "base64";
  callback: Readonly<{ code: string; capture: Readonly<Record<string, string>> }>;
  manualCode: boolean;
  /** The `redirect_uri` of a code that a person copies; null: none is sent, and the provider uses its default. */
  manualRedirectUri: string | null;
}>;

type ScopeRules = Readonly<{
  param: string;
  separator: string;
  default: readonly string[];
  required: readonly string[];
}>;

/** Where an answer says how long a token lives. `seconds` stands in where it does not say; null: nothing does. */
export type Lifetime = Readonly<{
  from: "expires_in" | "fixed" | "never";
  pointer: string;
  unit: "s" | "ms";
  fallbackSeconds: number | null;
}>;

export type ResponseRules = Readonly<{
  format: "auto" | "json" | "form";
  accessToken: string;
  refreshToken: string;
  tokenType: string;
  scope: string;
  expires: Lifetime;
  refreshExpires: Lifetime;
  capture: Readonly<Record<string, string>>;
}>;

export type RefreshRules = Readonly<{
  rotation: "never" | "always" | "auto";
  /** What a second use of a refresh token does: refresh-protocol's `reuse`. */
  reuse: "safe" | "grace" | "until_successor_used" | "dead" | "kills_family";
  graceSeconds: number;
  oldAccessTokenDies: boolean;
  /** The share of a token's life, at its end, in which it is refreshed ahead of need. */
  aheadFraction: number;
  /** Nothing is refreshed that is younger. */
  minAgeSeconds: number;
  idleLifeSeconds: number | null;
  absoluteLifeSeconds: number | null;
}>;

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

/** A provider, resolved: `extends` followed, defaults applied, frozen. What each part is for: docs/provider-format.md. */
export type ProviderDefinition = Readonly<{
  id: string;
  name: string;
  docs: string | null;
  /** False: no token endpoint, the definition is only there to be extended. */
  usable: boolean;
  /** The built-in sandbox, which alone may reach this broker's own origin. */
  isSandbox: boolean;
  inputs: Readonly<Record<string, InputDefinition>>;
  /** The grants offered, as listed. */
  grants: readonly ConnectionGrant[];
  /** Null where the authorization code grant is not offered. */
  authorization: AuthorizationDefinition | null;
  scope: ScopeRules;
  /** What scopes let one do, in plain words, where the definition says. */
  scopeDescriptions: Readonly<Record<string, string>>;
  /** How each offered grant (`import` aside) gets its first token. */
  exchanges: Readonly<Partial<Record<ConnectionGrant, Exchange>>>;
  /** How sets obtained by each offered grant are refreshed; absent: a new one is fetched instead. */
  refreshes: Readonly<Partial<Record<ConnectionGrant, Exchange>>>;
  response: ResponseRules;
  refresh: RefreshRules;
  errors: readonly ErrorRule[];
  api: ApiDefinition;
  revocation: Exchange | null;
  /** What a revocation ends: the token that it names, or everything of the grant, newer sets included. */
  revocationKills: "token" | "all";
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
