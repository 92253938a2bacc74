import { BrokerError } from "../errors.ts";
import { assemble, type TokenRequest } from "./assemble.ts";
import type { ConnectionGrant, Exchange, ProviderDefinition } from "./definition.ts";
import { fillAll, fillUrl, type TemplateValues } from "./template.ts";

/** The grants that a token endpoint is asked for (RFC 6749, section 4.5 for the name; RFC 8628; RFC 8693). */
export type TokenGrant =
  | "authorization_code"
  | "refresh_token"
  | "client_credentials"
  | "password"
  | "device_code"
  | "token_exchange";

export type TokenRequestOptions = {
  definition: ProviderDefinition;
  grant: TokenGrant;
  /** The grant of the connection: sets are refreshed in the way of the grant that they were obtained by. */
  obtainedBy: ConnectionGrant;
  values: TemplateValues;
};

/**
 * The request for a token (RFC 6749, sections 4.1.3, 4.3.2, 4.4.2 and 6), exactly as the definition says.
 * @throws BrokerError `grant_not_applicable` when the definition does not offer it, or naming a value that is lacking.
 */
export function buildTokenRequest(options: TokenRequestOptions): TokenRequest {
  const exchange = exchangeFor(options);
  const values = withClient(exchange, options.values);
  requireVerifier(options, values);
  const grantType: [string, string][] = exchange.grantType === null ? [] : [["grant_type", exchange.grantType]];
  return assemble(exchange, values, [...grantType, ...fillAll(exchange.fields, values)]);
}

/** How the definition asks for a grant. @throws BrokerError `grant_not_applicable` when it does not */
export function exchangeFor({ definition, grant, obtainedBy }: Omit<TokenRequestOptions, "values">): Exchange {
  const exchange = grant === "refresh_token" ? definition.refreshes[obtainedBy] : definition.exchanges[grant];
  if (exchange) return exchange;
  throw new BrokerError("grant_not_applicable", `provider ${definition.id} does not offer ${grant} for ${obtainedBy}`);
}

/**
 * The host (and port) of the token endpoint that refreshes or fetches this connection's tokens: its limits are shared.
 * @throws BrokerError naming an input that is lacking
 */
export function tokenHost(
  definition: ProviderDefinition,
  grant: ConnectionGrant,
  values: TemplateValues,
): string | null {
  const exchange = definition.refreshes[grant] ?? definition.exchanges[grant];
  const url = exchange && URL.parse(fillUrl(exchange.url, values));
  return url ? url.host : null;
}

function withClient(exchange: Exchange, values: TemplateValues): TemplateValues {
  if (exchange.fixedClientId === null) return values;
  return { ...values, client: { ...values.client, id: exchange.fixedClientId } };
}

function requireVerifier({ definition, grant }: TokenRequestOptions, values: TemplateValues): void {
  if (grant !== "authorization_code" || definition.authorization?.pkce !== "required") return;
  if (!values.codeVerifier) {
    throw new BrokerError(
      "invalid_request",
      "this code was not asked for by this broker: PKCE needs the verifier of its request",
    );
  }
}
