import { createPrivateKey, type KeyObject, randomUUID, X509Certificate } from "node:crypto";
import { SignJWT } from "jose";
import { BrokerError } from "../../errors.ts";
import { type TokenGrant } from "../../grant-types.ts";
import type {
  ClientAuth,
  ConnectionGrant,
  Exchange,
  ProviderDefinition,
  ProviderRequest,
} from "../format/definition.ts";
import type { HttpRequest } from "../http/exchange.ts";
import { fill, fillRequest, fillUrl, type RequestTemplates, type TemplateValues } from "../format/template.ts";

export type TokenRequestOptions = {
  definition: ProviderDefinition;
  grant: TokenGrant;
  /** The connection's grant type, which decides how its sets are refreshed. */
  obtainedBy: ConnectionGrant;
  values: TemplateValues;
};

/**
 * The request for a token (RFC 6749, sections 4.1.3, 4.3.2, 4.4.2 and 6), exactly as the definition says.
 * @throws BrokerError `grant_not_applicable` when the definition does not offer it, or naming a value that is missing.
 */
export function buildTokenRequest(options: TokenRequestOptions): HttpRequest {
  const exchange = exchangeFor(options);
  const values = withClient(exchange, options.values);
  requireVerifier(options, values);
  const grantType: [string, string][] = exchange.grantType === null ? [] : [["grant_type", exchange.grantType]];
  return buildRequest(exchange, values, { first: grantType });
}

/** The definition's exchange for a grant type. @throws BrokerError `grant_not_applicable` when it has none */
export function exchangeFor({ definition, grant, obtainedBy }: Omit<TokenRequestOptions, "values">): Exchange {
  const exchange = grant === "refresh_token" ? definition.refreshes[obtainedBy] : definition.exchanges[grant];
  if (exchange) return exchange;
  throw new BrokerError("grant_not_applicable", `provider ${definition.id} does not offer ${grant} for ${obtainedBy}`);
}

/**
 * The host (and port) of the token endpoint that refreshes or fetches this connection's tokens: its limits are shared.
 * @throws BrokerError naming an input that is missing
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

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/**
 * Writes a request as its definition says.
 * @param more `first`: fields in front of those of the definition, as they are sent. `isClientNamed`: the client's id is among them
 * @throws BrokerError naming a value that is missing, or that stands in a header and cannot
 */
export function buildRequest(
  request: ProviderRequest,
  values: TemplateValues,
  more: { first?: readonly (readonly [string, string])[]; isClientNamed?: boolean } = {},
): HttpRequest {
  const { clientAuth, encoding } = request;
  const { first = [], isClientNamed = Object.hasOwn(request.fields, "client_id") } = more;
  const own = clientAuth.kind === "header" ? [{ [clientAuth.header]: clientAuth.value }] : [];
  const filled = fillRequest(
    {
      fields: [request.fields, clientFields(clientAuth, isClientNamed)],
      url: request.url,
      headers: [request.headers, ...own],
      credential: clientCredential(clientAuth),
    },
    values,
  );
  const { url, credential } = filled;
  const fields = [...first, ...filled.fields].map(([name, value]): [string, string] => [name, value]);
  const [headers = {}, ownHeader] = filled.headers;
  // RFC 7617; with the form encoding of RFC 6749, section 2.3.1, where the definition says so.
  if (clientAuth.kind === "basic") headers["authorization"] = `Basic ${Buffer.from(credential).toString("base64")}`;
  if (clientAuth.kind === "header") Object.assign(headers, { [clientAuth.header]: "" }, ownHeader);
  let body: string | undefined;
  if (encoding === "query") {
    for (const [name, value] of fields) url.searchParams.append(name, value);
  } else if (encoding === "json") {
    headers["content-type"] = "application/json";
    body = JSON.stringify(Object.fromEntries(fields));
  } else {
    headers["content-type"] = "application/x-www-form-urlencoded";
    body = new URLSearchParams(fields).toString();
  }
  const tls = clientAuth.kind === "tls" ? credential : undefined;
  return conceal({ method: request.method, url: url.href, headers, body, tls, secrets: secretsOf(values, headers) });
}

/** What client authentication adds. A field that the file lists itself is not added again. */
function clientFields({ kind }: ClientAuth, isClientNamed: boolean): Record<string, string> {
  const id: Record<string, string> = isClientNamed ? {} : { client_id: "{client.id}" };
  switch (kind) {
    case "body":
      return { ...id, client_secret: "{client.secret}" };
    case "tls":
      return id;
    case "private_key_jwt":
      return { ...id, client_assertion_type: assertionType, client_assertion: "{client.assertion}" };
    default:
      return {};
  }
}

function clientCredential(clientAuth: ClientAuth): RequestTemplates["credential"] {
  if (clientAuth.kind === "tls") return { template: "{client.secret}" };
  if (clientAuth.kind !== "basic") return null;
  const { pair, percentEncoding } = clientAuth;
  return { template: pair, ...(percentEncoding && { encode: formEncode }) };
}

function formEncode(value: string): string {
  return new URLSearchParams({ v: value }).toString().slice(2);
}

function secretsOf(values: TemplateValues, headers: Record<string, string>): string[] {
  const { client, credentials, secretInputs, code, codeVerifier, refreshToken, accessToken, deviceCode } = values;
  const authorization = headers["authorization"]?.replace(/^\w+ /, "");
  const plain = [
    client?.secret,
    client?.assertion,
    code,
    codeVerifier,
    deviceCode,
    refreshToken,
    accessToken,
    values.token?.value,
    authorization,
    ...Object.values(credentials ?? {}),
    ...Object.values(secretInputs ?? {}),
  ];
  return plain.filter((secret): secret is string => typeof secret === "string" && secret !== "");
}

type Parts = Omit<HttpRequest, "body" | "tls"> & { body: string | undefined; tls: string | undefined };

function conceal({ method, url, headers, body, tls, secrets }: Parts): HttpRequest {
  const hidden = {
    headers,
    secrets,
    ...(body !== undefined && { body }),
    ...(tls !== undefined && { tls }),
  };
  const concealed = Object.entries(hidden).map(([name, value]) => [name, { value, enumerable: false }] as const);
  return Object.defineProperties({ method, url }, Object.fromEntries(concealed)) as HttpRequest;
}

/**
 * Adds the signed assertion of RFC 7523, section 2.2, if the client authenticates with one. Such a client has its private key, as PEM or JWK, in
 * place of a secret. It is for the issuer alone where the definition knows one, and says what it is (draft-ietf-oauth-rfc7523bis, section 4): an
 * assertion for an address could be made for one server and be used at another.
 * @throws BrokerError `client_rejected` when there is no key, or it does not fit the algorithm
 */
export async function withAssertion(
  request: ProviderRequest,
  values: TemplateValues,
  { definition, nowMs }: { definition: Pick<ProviderDefinition, "authorization" | "issuer">; nowMs: number },
): Promise<TemplateValues> {
  const { clientAuth } = request;
  if (clientAuth.kind !== "private_key_jwt") return values;
  const id = fill("{client.id}", values) ?? "";
  const key = readPrivateKey(fill("{client.secret}", values) ?? "");
  const issuer = definition.authorization?.issuer ?? definition.issuer;
  const audience = clientAuth.audience ?? (issuer === null ? "token_url" : "issuer");
  const typ = clientAuth.type ?? (audience === "issuer" ? "client-authentication+jwt" : "JWT");
  const seconds = Math.floor(nowMs / 1000);
  try {
    const assertion = await new SignJWT({ jti: randomUUID() })
      .setProtectedHeader({ ...key.header, alg: clientAuth.algorithm, typ })
      .setIssuer(id)
      .setSubject(id)
      .setAudience(fillAudience(audience, { issuer, url: request.url, values }))
      .setIssuedAt(seconds)
      .setExpirationTime(seconds + clientAuth.lifeSeconds)
      .sign(key.key);
    return { ...values, client: { ...values.client, id, assertion } };
  } catch {
    throw new BrokerError("client_rejected", `the client's private key does not fit ${clientAuth.algorithm}`);
  }
}

/** Always one text: a list would be for several servers. */
function fillAudience(
  audience: string,
  { issuer, url, values }: { issuer: string | null; url: string; values: TemplateValues },
): string {
  if (audience === "token_url") return fillUrl(url, values);
  return fillUrl(audience === "issuer" ? (issuer ?? "") : audience, values);
}

/** A private key as PEM, or as a JWK whose `kid`, `x5t` and `x5t#S256` go into the header (RFC 7515, section 4.1). */
function readPrivateKey(text: string): { key: KeyObject; header: Record<string, string> } {
  try {
    if (!text.trimStart().startsWith("{")) return { key: createPrivateKey(text), header: {} };
    const jwk = JSON.parse(text) as Record<string, unknown>;
    const named = ["kid", "x5t", "x5t#S256"].flatMap((name) =>
      typeof jwk[name] === "string" ? [[name, jwk[name]] as const] : [],
    );
    return { key: createPrivateKey({ key: jwk, format: "jwk" }), header: Object.fromEntries(named) };
  } catch {
    throw new BrokerError("client_rejected", "the client's private key cannot be read: a PEM or a JWK was expected");
  }
}

/** What is wrong with a client's secret for this kind of client authentication; null: nothing visible. */
export function secretFault(clientAuth: ClientAuth, secret: string): string | null {
  if (clientAuth.kind === "private_key_jwt") {
    const key = keyIn(secret);
    if (key === null) return "must be the client's private key, as PEM or JWK";
    return fits(key, clientAuth.algorithm) ? null : `must be a key that ${clientAuth.algorithm} can sign with`;
  }
  if (clientAuth.kind !== "tls") return null;
  const key = keyIn(secret.slice(Math.max(0, secret.search(/-----BEGIN [A-Z ]*PRIVATE KEY-----/))));
  const certificate = certificateIn(secret);
  if (key === null || certificate === null) {
    return "must be the client's certificate and its private key, as PEM, one after the other";
  }
  return certificate.checkPrivateKey(key) ? null : "holds a private key that is not that of the certificate";
}

function keyIn(text: string): KeyObject | null {
  try {
    return readPrivateKey(text).key;
  } catch {
    return null;
  }
}

function certificateIn(text: string): X509Certificate | null {
  try {
    return new X509Certificate(text.slice(Math.max(0, text.indexOf("-----BEGIN CERTIFICATE-----"))));
  } catch {
    return null;
  }
}

const curves: Readonly<Record<string, string>> = { ES256: "prime256v1", ES384: "secp384r1", ES512: "secp521r1" };
const leastRsaBits = 2048; // RFC 7518, sections 3.3 and 3.5

function fits({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject, algorithm: string): boolean {
  if (algorithm === "EdDSA") return type === "ed25519";
  const curve = curves[algorithm];
  if (curve !== undefined) return type === "ec" && details?.namedCurve === curve;
  return type === "rsa" && (details?.modulusLength ?? 0) >= leastRsaBits;
}
