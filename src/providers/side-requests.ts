import { assemble, type TokenRequest } from "./assemble.ts";
import type {
  IntrospectionDefinition,
  ProviderDefinition,
  ProviderRequest,
  RevocationDefinition,
} from "./definition.ts";
import { fillAll, type TemplateValues } from "./template.ts";

/** A token that is named to the provider. */
export type NamedToken = { value: string; hint: "access_token" | "refresh_token" };

/**
 * The revocation of a token (RFC 7009, section 2.1); null: the definition names no endpoint, or does not revoke tokens
 * of this kind.
 */
export function buildRevocationRequest(options: {
  definition: ProviderDefinition;
  token: NamedToken;
  values: TemplateValues;
}): TokenRequest | null {
  const { revocation } = options.definition;
  if (!revocation || (revocation.token !== "both" && revocation.token !== options.token.hint)) return null;
  return naming(revocation, options);
}

/** The question what a token is worth (RFC 7662, section 2.1); null: there is nowhere to ask. */
export function buildIntrospectionRequest(options: {
  definition: ProviderDefinition;
  token: NamedToken;
  values: TemplateValues;
}): TokenRequest | null {
  const { introspection } = options.definition;
  return introspection?.token === options.token.hint ? naming(introspection, options) : null;
}

/** The token stands in place of the kind that it is, too: some endpoints want it in a header or under another name. */
function naming(
  request: RevocationDefinition | IntrospectionDefinition,
  { token, values }: { token: NamedToken; values: TemplateValues },
): TokenRequest {
  const own = token.hint === "access_token" ? { accessToken: token.value } : { refreshToken: token.value };
  return sideRequest(request, { ...values, ...own, token });
}

/** A request whose fields are all in its definition. @throws BrokerError naming a value that is lacking */
export function sideRequest(request: ProviderRequest, values: TemplateValues): TokenRequest {
  return assemble(request, values, fillAll(request.fields, values));
}

/**
 * A call after connecting: with the access token, as every call of the API, unless it authenticates the client.
 * @throws BrokerError naming a value that is lacking
 */
export function buildLookupRequest(
  { api }: ProviderDefinition,
  request: Omit<ProviderRequest, "clientAuth"> & { clientAuth: ProviderRequest["clientAuth"] | null },
  values: TemplateValues,
): TokenRequest {
  if (request.clientAuth !== null) return sideRequest({ ...request, clientAuth: request.clientAuth }, values);
  const { header, value } = api.authorization;
  return sideRequest({ ...request, clientAuth: { kind: "header", header, value } }, values);
}
