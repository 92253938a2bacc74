import { askedScopes, type ConnectionGrant, type ProviderDefinition } from "./definition.ts";
import { asksForScopes } from "./requirements.ts";

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
  const isOffline = hasRefreshToken || grant === "client_credentials";
  const isGranted = (scope: string) =>
    granted === null || granted.includes(scope) || (scope === "offline_access" && isOffline);
  return requested.filter((scope) => !isGranted(scope));
}
