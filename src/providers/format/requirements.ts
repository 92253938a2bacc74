import { rulesOfGrant } from "../../grant-types.ts";
import { randomUUID } from "node:crypto";
import { BrokerError } from "../../errors.ts";
import {
  type AskedScopes,
  type ConnectionGrant,
  type Exchange,
  fixedClientId,
  type InputDefinition,
  type Lookup,
  type ProviderDefinition,
  type ProviderRequest,
} from "./definition.ts";
import { domainIsPinned } from "./hosts.ts";
import { isDots, isHeaderSafe, splitUrl, templateNames } from "./template.ts";

/** The inputs that a connection of this grant type needs: those that its templates use. */
export function requiredInputs(definition: ProviderDefinition, grant: ConnectionGrant): string[] {
  return named("inputs", templatesInForce(definition, grant), Object.keys(definition.inputs));
}

/** The credentials that a connection of this grant needs, such as `username` and `password`. */
export function requiredCredentials(definition: ProviderDefinition, grant: ConnectionGrant): string[] {
  const names = templatesInForce(definition, grant).flatMap(templateNames);
  return [...new Set(names.filter((name) => name.startsWith("credentials.")).map((name) => name.slice(12)))];
}

/** The values of lookups that a connection of this grant type needs, as `account.X`. */
export function requiredCaptures(definition: ProviderDefinition, grant: ConnectionGrant): string[] {
  const names = templatesInForce(definition, grant).flatMap(templateNames);
  return [...new Set(names.filter((name) => name.startsWith("account.")))];
}

/** Whether a token request of this grant type uses the client's secret. */
export function needsClientSecret(definition: ProviderDefinition, grant: ConnectionGrant): boolean {
  return exchangesOf(definition, grant).some(
    (exchange) =>
      exchange.clientAuth.kind !== "none" ||
      requestTemplates(exchange).flatMap(templateNames).includes("client.secret"),
  );
}

/** Whether a token request of this grant type names scopes. If not, the provider decides. */
function asksForScopes(definition: ProviderDefinition, grant: ConnectionGrant): boolean {
  if (grant === "authorization_code" || grant === "import") return true;
  const asking = grant === "device_code" ? definition.device : definition.exchanges[grant];
  return asking ? requestTemplates(asking).flatMap(templateNames).includes("scope") : false;
}

/** The scopes of this grant type: `default` if nobody names any, and `required` always. */
export function askedScopes({ scope }: ProviderDefinition, grant: ConnectionGrant): AskedScopes {
  return scope.byGrant[grant] ?? scope;
}

/** The scopes to ask for: the requested ones, else the grant type's defaults; and always the required ones. */
export function effectiveScopes(
  definition: ProviderDefinition,
  grant: ConnectionGrant,
  requested: readonly string[] | null,
): string[] {
  const scope = askedScopes(definition, grant);
  return [...new Set([...(requested && requested.length > 0 ? requested : scope.default), ...scope.required])];
}

/** The same, but empty by default if the request names no scopes, so that none can count as missing. */
export function scopesFor(
  definition: ProviderDefinition,
  grant: ConnectionGrant,
  requested: readonly string[] | null,
): string[] {
  return asksForScopes(definition, grant) ? effectiveScopes(definition, grant, requested) : [...new Set(requested)];
}

/** Joined as the provider writes them (RFC 6749, section 3.3, says a space; some say otherwise). */
export function joinScopes(definition: ProviderDefinition, scopes: readonly string[]): string {
  return scopes.join(definition.scope.separator);
}

/** Split at the provider's separator and at white space. */
export function splitScopes(definition: ProviderDefinition, text: string): string[] {
  return text
    .split(definition.response.scopeSeparator)
    .flatMap((part) => part.split(/\s+/))
    .filter((part) => part !== "");
}

/** The scopes of an answer. A scope with two names in the definition is listed under both. */
export function withAliases({ scope: { aliases } }: ProviderDefinition, answered: readonly string[]): string[] {
  const pairs = Object.entries(aliases).filter((names) => names.some((name) => answered.includes(name)));
  return [...new Set([...answered, ...pairs.flat()])];
}

/**
 * What was requested and not granted. `granted` null: the provider named none, which means all (RFC 6749, section 5.1). Whether
 * offline_access (OpenID Connect Core, section 11) was granted, a refresh token tells, too: many answers do not name it. Where the
 * client itself is asked for (RFC 6749, section 4.4.3) there is none to be had.
 */
export function missingScopes(
  requested: readonly string[],
  given: { granted: readonly string[] | null; hasRefreshToken: boolean; grant?: string },
): string[] {
  const { granted, hasRefreshToken, grant } = given;
  const isOffline = hasRefreshToken || (grant !== undefined && !rulesOfGrant(grant).hasRefreshToken);
  const isGranted = (scope: string) =>
    granted === null || granted.includes(scope) || (scope === "offline_access" && isOffline);
  return requested.filter((scope) => !isGranted(scope));
}

/** The lookups after connecting by this grant type: its own if it lists some, else those of the definition. */
export function lookupsOf(
  { lookups, lookupsByGrant }: Pick<ProviderDefinition, "lookups" | "lookupsByGrant">,
  grant: ConnectionGrant,
): readonly Lookup[] {
  return lookupsByGrant[grant] ?? lookups;
}

/**
 * The inputs that stand in the host of a URL of the definition, or decide whose metadata supply its addresses. Somebody who sets one decides
 * where secrets are sent.
 */
export function hostInputs(definition: ProviderDefinition): string[] {
  const found = hostInputsOf.get(definition);
  if (found !== undefined) return found;
  const texts = [...withDefaults(definition, authorities(definition)), ...decidingAddresses(definition)];
  const inputs = named("inputs", texts, Object.keys(definition.inputs));
  hostInputsOf.set(definition, inputs);
  return inputs;
}

/** Definitions are frozen, and this is asked of each token set that is sealed. */
const hostInputsOf = new WeakMap<ProviderDefinition, string[]>();

/**
 * Whether an input, whatever its value, keeps each URL whose host it decides within one registrable domain. False for an input that
 * decides whose metadata are read, since metadata may name any host.
 */
export function pinsDomain(definition: ProviderDefinition, input: string): boolean {
  const known = definition.inputs[input];
  if (!known || decidingAddresses(definition).flatMap(templateNames).includes(`inputs.${input}`)) return false;
  return withDefaults(definition, authorities(definition))
    .filter((authority) => templateNames(authority).includes(`inputs.${input}`))
    .every((authority) => domainIsPinned({ authority, name: `inputs.${input}`, input: known }));
}

/**
 * Which inputs are set on the client and which on the connection. Inputs that decide a host, unless they keep it within a domain, belong to
 * the client if there is one, since somebody who creates connections must not choose where the client's secret is sent.
 */
export function inputOwners(options: { definition: ProviderDefinition; grant: ConnectionGrant; hasClient: boolean }): {
  client: string[];
  connection: string[];
} {
  const { definition, grant, hasClient } = options;
  const required = requiredInputs(definition, grant);
  const client = hasClient ? clientInputs(definition).filter((name) => required.includes(name)) : [];
  return { client, connection: required.filter((name) => !client.includes(name)) };
}

/** What must be given to make a connection of a grant type: the names of inputs without a default, and of credentials. */
export type Needs = {
  /** False: the definition fixes the client id, and no client is needed. */
  client: boolean;
  clientSecret: boolean;
  /** Inputs that are set on the client. */
  clientInputs: string[];
  /** Inputs that are set on the connection. */
  inputs: string[];
  credentials: string[];
};

/** What a person must know to connect an account by this grant. */
export function needsOf(definition: ProviderDefinition, grant: ConnectionGrant): Needs {
  const client = fixedClientId(definition, grant) === null;
  const owners = inputOwners({ definition, grant, hasClient: client });
  const hasNoValue = (name: string) => {
    const known = definition.inputs[name];
    return known?.default === undefined && known?.generate === undefined && known?.optional !== true;
  };
  return {
    client,
    clientSecret: client && needsClientSecret(definition, grant),
    clientInputs: owners.client, // a client's inputs have no defaults
    inputs: owners.connection.filter(hasNoValue),
    credentials: requiredCredentials(definition, grant),
  };
}

/** The inputs that a client of this provider may hold. */
export function clientInputs(definition: ProviderDefinition): string[] {
  return hostInputs(definition).filter((name) => !pinsDomain(definition, name));
}

/**
 * Why a value cannot be sent where the definition puts it; null: it can. `name`: as in templates, `inputs.shop`, `client.id`. Without this
 * check the error would come only after a person has consented.
 */
export function whyUnsendable(definition: ProviderDefinition, name: string, value: string): string | null {
  const { api, authorization, issuer, metadataUrl } = definition;
  const all = [...allRequests(definition), { url: authorization?.url, headers: api.headers, clientAuth: null }];
  const holds = (text: string | null | undefined) => templateNames(text ?? "").includes(name);
  const inHeader = all.some(
    ({ headers, clientAuth }) =>
      Object.values(headers).some(holds) || (clientAuth?.kind === "header" && holds(clientAuth.value)),
  );
  if ((inHeader || holds(api.authorization.value)) && !isHeaderSafe(value)) {
    return "is sent in a header, which can carry ASCII and Latin-1 characters only";
  }
  const inUrl = [issuer, metadataUrl, api.baseUrl, ...all.map(({ url }) => url)].some((url) =>
    holds(splitUrl(url ?? "").rest),
  );
  return inUrl && isDots(value) ? "is a part of an address, and must not be dots alone" : null;
}

function allRequests(definition: ProviderDefinition) {
  const { exchanges, refreshes, lookups, lookupsByGrant } = definition;
  return [
    ...Object.values(exchanges),
    ...Object.values(refreshes),
    ...sideRequests(definition),
    ...[lookups, ...Object.values(lookupsByGrant)].flat().flatMap(({ request }) => request ?? []),
  ];
}

/** The issuer and the URL of the metadata, if discovery supplies the addresses. */
function decidingAddresses({ isDiscovered, issuer, metadataUrl }: ProviderDefinition): string[] {
  return isDiscovered ? [issuer ?? "", metadataUrl ?? ""] : [];
}

function named(root: string, texts: readonly string[], declared: readonly string[]): string[] {
  const used = new Set(texts.flatMap(templateNames));
  return declared.filter((name) => used.has(`${root}.${name}`));
}

function exchangesOf(definition: ProviderDefinition, grant: ConnectionGrant): Exchange[] {
  return [definition.exchanges[grant], definition.refreshes[grant]].filter((exchange) => exchange !== undefined);
}

function requestTemplates(request: Omit<ProviderRequest, "clientAuth">): string[] {
  return [request.url, ...Object.values(request.headers), ...Object.values(request.fields)];
}

function lookupTemplates({ request, value, select }: Lookup): string[] {
  return [...(request ? requestTemplates(request) : []), value ?? "", select?.equals ?? ""];
}

/** Beside the grant's own exchanges. */
function sideRequests({ authorization, device, revocation, introspection, furtherTokens }: ProviderDefinition) {
  return [
    authorization?.pushed,
    device,
    revocation,
    introspection,
    ...furtherTokens.map((further) => further.exchange),
  ].filter((request) => request !== null && request !== undefined);
}

function templatesInForce(definition: ProviderDefinition, grant: ConnectionGrant): string[] {
  const { authorization, api, issuer, metadataUrl } = definition;
  const requests = [...exchangesOf(definition, grant), ...sideRequests(definition)];
  const texts = [
    ...(grant === "authorization_code" && authorization
      ? [authorization.url, ...Object.values(authorization.params)]
      : []),
    ...requests.flatMap(requestTemplates),
    ...lookupsOf(definition, grant).flatMap(lookupTemplates),
    issuer ?? "",
    metadataUrl ?? "",
    api.baseUrl ?? "",
    api.authorization.value,
    ...Object.values(api.headers),
  ];
  return withDefaults(
    definition,
    texts.filter((text) => text !== null),
  );
}

/** The same, and the defaults of the captured values that they use. */
function withDefaults({ authorization, response }: ProviderDefinition, texts: readonly string[]): string[] {
  const used = new Set(texts.flatMap(templateNames));
  const captures = { callback: authorization?.callback.capture ?? {}, response: response.capture };
  const defaults = Object.entries(captures).flatMap(([root, all]) =>
    Object.entries(all).flatMap(([name, { default: text }]) => (used.has(`${root}.${name}`) ? (text ?? []) : [])),
  );
  return [...texts, ...defaults];
}

function authorities(definition: ProviderDefinition): string[] {
  const urls = [
    definition.issuer,
    definition.metadataUrl,
    definition.authorization?.url,
    ...allRequests(definition).map(({ url }) => url),
    definition.api.baseUrl,
  ];
  return urls.filter((url) => typeof url === "string").map((url) => splitUrl(url).authority);
}

type Given = Readonly<Record<string, unknown>>;

const longestInput = 2_000;

/**
 * The inputs of a new connection, to be stored with it: the given ones, checked, and generated or default values for others that a template
 * uses. Inputs of its client are not included.
 * @throws BrokerError `invalid_request` naming the input and what is allowed
 */
export function resolveInputs(options: {
  definition: ProviderDefinition;
  grant: ConnectionGrant;
  given: Given;
  /** The inputs of the connection's client; null: it has no client. */
  clientInputs: Readonly<Record<string, string>> | null;
}): Record<string, string> {
  const { definition, grant, given, clientInputs: onClient } = options;
  const owners = inputOwners({ definition, grant, hasClient: onClient !== null });
  const inputs = checkInputs({ definition, given, onClient: onClient ? clientInputs(definition) : [] });
  for (const name of owners.client) {
    if (!onClient?.[name]) {
      throw invalid(name, `is missing on the client, where it is set${hint(definition.inputs[name])}`);
    }
  }
  for (const name of owners.connection) inputs[name] ??= standIn(definition, name);
  return inputs;
}

/**
 * The inputs of a client, checked: only those that decide a host and are not pinned to a domain, none of them required.
 * @throws BrokerError `invalid_request`
 */
export function resolveClientInputs(options: { definition: ProviderDefinition; given: Given }): Record<string, string> {
  const { definition, given } = options;
  const allowed = clientInputs(definition);
  for (const name of Object.keys(given)) {
    if (allowed.includes(name)) continue;
    const known =
      allowed.length > 0 ? `only ${allowed.join(", ")} is set there` : "this provider has none that is set there";
    throw invalid(name, `is not an input of a client: ${known}`);
  }
  return checkInputs({ definition, given, onClient: [] });
}

/**
 * Inputs to change on a connection, checked; nothing is added to them.
 * @throws BrokerError `invalid_request`
 */
export function checkInputChanges(options: {
  definition: ProviderDefinition;
  given: Given;
  hasClient: boolean;
}): Record<string, string> {
  const { definition, given, hasClient } = options;
  return checkInputs({ definition, given, onClient: hasClient ? clientInputs(definition) : [] });
}

/** Inputs apart from those that are secrets, which are kept sealed. */
export function splitInputs(
  definition: ProviderDefinition,
  inputs: Readonly<Record<string, string>>,
): { open: Record<string, string>; secret: Record<string, string> } {
  const isSecret = ([name]: [string, string]) => definition.inputs[name]?.secret === true;
  const entries = Object.entries(inputs);
  return {
    open: Object.fromEntries(entries.filter((entry) => !isSecret(entry))),
    secret: Object.fromEntries(entries.filter(isSecret)),
  };
}

function checkInputs(options: {
  definition: ProviderDefinition;
  given: Given;
  onClient: readonly string[];
}): Record<string, string> {
  const { definition, given, onClient } = options;
  const inputs: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    const known = Object.hasOwn(definition.inputs, name) ? definition.inputs[name] : undefined;
    if (!known) throw unknownInput(definition, name);
    if (onClient.includes(name)) {
      throw invalid(name, "decides where the client's secret is sent: set it on the client, not here");
    }
    const checked = checkValue({ name, value, known });
    const why = whyUnsendable(definition, `inputs.${name}`, checked);
    if (why !== null) throw invalid(name, why);
    inputs[name] = checked;
  }
  return inputs;
}

function checkValue({ name, value, known }: { name: string; value: unknown; known: InputDefinition }): string {
  if (typeof value !== "string" || value === "") throw invalid(name, "must be a string that is not empty");
  if (value.length > longestInput) throw invalid(name, `must not be longer than ${longestInput} characters`);
  if (/\p{Cc}/u.test(value) || !value.isWellFormed()) throw invalid(name, "must not hold control characters");
  if (known.enum && !known.enum.includes(value)) throw invalid(name, `must be one of: ${known.enum.join(", ")}`);
  if (known.pattern && !new RegExp(known.pattern, "u").test(value)) {
    throw invalid(name, `must match ${known.pattern}${hint(known)}`);
  }
  return value;
}

function standIn(definition: ProviderDefinition, name: string): string {
  const known = definition.inputs[name];
  if (known?.default !== undefined) return known.default;
  if (known?.generate === "uuid") return randomUUID(); // version 4 (RFC 9562, section 5.4)
  if (known?.optional === true) return "";
  const allowed = known?.enum ? `, one of: ${known.enum.join(", ")}` : "";
  throw invalid(name, `is required by provider ${definition.id}${allowed}${hint(known)}`);
}

function unknownInput(definition: ProviderDefinition, name: string): BrokerError {
  const names = Object.keys(definition.inputs);
  const known = names.length > 0 ? `it has ${names.join(", ")}` : "it has none";
  return new BrokerError(
    "invalid_request",
    `inputs: provider ${definition.id} has no input ${JSON.stringify(name.slice(0, 80))}; ${known}`,
  );
}

function invalid(name: string, text: string): BrokerError {
  return new BrokerError("invalid_request", `inputs.${name} ${text}`);
}

function hint(known: InputDefinition | undefined): string {
  return known?.description ? ` (${known.description})` : "";
}
