import { BrokerError } from "../errors.ts";
import type { ConnectionGrant, Exchange, ProviderDefinition } from "./definition.ts";
import { fill, fillAll, fillUrl, type TemplateValues } from "./template.ts";

/** A request to a token endpoint, ready to be written. All but method and URL holds secrets and is non-enumerable. */
export type TokenRequest = {
  readonly method: "POST" | "GET";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Absent: no body is sent. */
  readonly body?: string;
  /** Every secret in the request, to be kept out of error texts. */
  readonly secrets: readonly string[];
};

/** The grants that a token endpoint is asked for (RFC 6749, section 4.5 for the name). */
export type TokenGrant = "authorization_code" | "refresh_token" | "client_credentials" | "password";

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
  const { definition, grant, obtainedBy } = options;
  const exchange = grant === "refresh_token" ? definition.refreshes[obtainedBy] : definition.exchanges[grant];
  if (!exchange) {
    throw new BrokerError(
      "grant_not_applicable",
      `provider ${definition.id} does not offer ${grant} for ${obtainedBy}`,
    );
  }
  const values = withClient(exchange, options.values);
  requireVerifier(options, values);
  return assemble(exchange, values, [["grant_type", exchange.grantType], ...fillAll(exchange.fields, values)]);
}

/**
 * The revocation of a token (RFC 7009, section 2.1), authenticated as at the token endpoint; null: the definition names
 * no revocation endpoint.
 */
export function buildRevocationRequest(options: {
  definition: ProviderDefinition;
  token: string;
  tokenTypeHint: "access_token" | "refresh_token";
  values: TemplateValues;
}): TokenRequest | null {
  const { definition, token, tokenTypeHint } = options;
  if (!definition.revocation) return null;
  const values = { ...withClient(definition.revocation, options.values), refreshToken: token };
  const fields: [string, string][] = [
    ["token", token],
    ["token_type_hint", tokenTypeHint],
    ...fillAll(definition.revocation.fields, values),
  ];
  return assemble(definition.revocation, values, fields);
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

function assemble(exchange: Exchange, values: TemplateValues, given: [string, string][]): TokenRequest {
  const fields = exchange.clientAuth === "body" ? [...given, ...clientFields(values)] : given;
  const url = new URL(checkedUrl(fillUrl(exchange.url, values)));
  const headers: Record<string, string> = Object.fromEntries(fillAll(exchange.headers, values));
  if (exchange.clientAuth === "basic") headers["authorization"] = basic(exchange, values);
  let body: string | undefined;
  if (exchange.encoding === "query") {
    for (const [name, value] of fields) url.searchParams.append(name, value);
  } else if (exchange.encoding === "json") {
    headers["content-type"] = "application/json";
    body = JSON.stringify(Object.fromEntries(fields));
  } else {
    headers["content-type"] = "application/x-www-form-urlencoded";
    body = new URLSearchParams(fields).toString();
  }
  return conceal({ method: exchange.method, url: url.href, headers, body, secrets: secretsOf(values, headers) });
}

function checkedUrl(text: string): string {
  if (URL.canParse(text)) return text;
  throw new BrokerError(
    "invalid_request",
    "the inputs of this connection do not make a valid URL of the token endpoint",
  );
}

function clientFields(values: TemplateValues): [string, string][] {
  return fillAll({ client_id: "{client.id}", client_secret: "{client.secret}" }, values);
}

/** RFC 7617; with the form encoding of RFC 6749, section 2.3.1, where the definition says so. */
function basic(exchange: Exchange, values: TemplateValues): string {
  const encode = exchange.basicPercentEncoding ? formEncode : undefined;
  const pair = fill("{client.id}:{client.secret}", values, encode) ?? "";
  return `Basic ${Buffer.from(pair, "utf8").toString("base64")}`;
}

function formEncode(value: string): string {
  return new URLSearchParams({ v: value }).toString().slice(2);
}

function secretsOf(values: TemplateValues, headers: Record<string, string>): string[] {
  const { client, credentials, code, codeVerifier, refreshToken, accessToken } = values;
  const authorization = headers["authorization"]?.replace(/^\w+ /, "");
  const plain = [
    client?.secret,
    code,
    codeVerifier,
    refreshToken,
    accessToken,
    authorization,
    ...Object.values(credentials ?? {}),
  ];
  return plain.filter((secret): secret is string => typeof secret === "string" && secret !== "");
}

function conceal(parts: Omit<TokenRequest, "body"> & { body: string | undefined }): TokenRequest {
  const { method, url, headers, body, secrets } = parts;
  return Object.defineProperties(
    { method, url, headers, secrets, ...(body !== undefined && { body }) },
    {
      headers: { enumerable: false },
      secrets: { enumerable: false },
      ...(body !== undefined && { body: { enumerable: false } }),
    },
  );
}
