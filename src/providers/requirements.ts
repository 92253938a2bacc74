import type { ConnectionGrant, Exchange, ProviderDefinition } from "./definition.ts";
import { domainIsPinned } from "./host-position.ts";
import { splitUrl, templateNames } from "./template.ts";

/** The inputs that a connection of this grant cannot do without: those that a template in force uses, as declared. */
export function requiredInputs(definition: ProviderDefinition, grant: ConnectionGrant): string[] {
  return named("inputs", templatesInForce(definition, grant), Object.keys(definition.inputs));
}

/** The credentials that a connection of this grant needs, such as `username` and `password`. */
export function requiredCredentials(definition: ProviderDefinition, grant: ConnectionGrant): string[] {
  const names = templatesInForce(definition, grant).flatMap(templateNames);
  return [...new Set(names.filter((name) => name.startsWith("credentials.")).map((name) => name.slice(12)))];
}

/** Whether a request for this grant's tokens holds the client's secret; if not, a secret is unused. */
export function needsClientSecret(definition: ProviderDefinition, grant: ConnectionGrant): boolean {
  return exchangesOf(definition, grant).some(
    (exchange) =>
      exchange.clientAuth !== "none" || exchangeTemplates(exchange).flatMap(templateNames).includes("client.secret"),
  );
}

/** The inputs that stand in a host position of any URL of the definition: who sets one decides where secrets go. */
export function hostInputs(definition: ProviderDefinition): string[] {
  return named("inputs", authorities(definition), Object.keys(definition.inputs));
}

/** Whether every URL that an input decides the host of stays within one registrable domain, whatever its value. */
export function pinsDomain(definition: ProviderDefinition, input: string): boolean {
  const known = definition.inputs[input];
  if (!known) return false;
  return authorities(definition)
    .filter((authority) => templateNames(authority).includes(`inputs.${input}`))
    .every((authority) => domainIsPinned({ authority, name: `inputs.${input}`, input: known }));
}

/**
 * Which inputs are set on the client and which on the connection: those that decide a host, unless pinned to a domain,
 * are the client's where there is one, since whoever creates connections must not choose where its secret is sent.
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

/** The inputs that a client of this provider may hold. */
export function clientInputs(definition: ProviderDefinition): string[] {
  return hostInputs(definition).filter((name) => !pinsDomain(definition, name));
}

function named(root: string, texts: readonly string[], declared: readonly string[]): string[] {
  const used = new Set(texts.flatMap(templateNames));
  return declared.filter((name) => used.has(`${root}.${name}`));
}

function exchangesOf(definition: ProviderDefinition, grant: ConnectionGrant): Exchange[] {
  return [definition.exchanges[grant], definition.refreshes[grant]].filter((exchange) => exchange !== undefined);
}

function exchangeTemplates(exchange: Exchange): string[] {
  return [exchange.url, ...Object.values(exchange.headers), ...Object.values(exchange.fields)];
}

function templatesInForce(definition: ProviderDefinition, grant: ConnectionGrant): string[] {
  const { authorization, api, revocation } = definition;
  const exchanges = exchangesOf(definition, grant);
  return [
    ...(grant === "authorization_code" && authorization
      ? [authorization.url, ...Object.values(authorization.params)]
      : []),
    ...[...exchanges, ...(revocation ? [revocation] : [])].flatMap(exchangeTemplates),
    api.baseUrl ?? "",
    api.authorization.value,
    ...Object.values(api.headers),
  ].filter((text) => text !== null);
}

function authorities(definition: ProviderDefinition): string[] {
  const exchanges = [
    ...Object.values(definition.exchanges),
    ...Object.values(definition.refreshes),
    definition.revocation,
  ];
  const urls = [definition.authorization?.url, ...exchanges.map((exchange) => exchange?.url), definition.api.baseUrl];
  return urls.filter((url) => typeof url === "string").map((url) => splitUrl(url).authority);
}
