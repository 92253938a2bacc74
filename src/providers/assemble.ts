import { BrokerError } from "../errors.ts";
import type { ProviderRequest } from "./definition.ts";
import { fill, fillAll, fillHeaders, fillUrl, type TemplateValues } from "./template.ts";

/** A request to a provider, ready to be written. All but method and URL holds secrets and is non-enumerable. */
export type TokenRequest = {
  readonly method: ProviderRequest["method"];
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Absent: no body is sent. */
  readonly body?: string;
  /** A certificate and its key as PEM, to authenticate the connection with (RFC 8705, section 2). */
  readonly tls?: string;
  /** Every secret in the request, to be kept out of error texts. */
  readonly secrets: readonly string[];
};

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/**
 * Writes a request as its definition says, `given` before the client's own fields.
 * @throws BrokerError naming a value that is lacking, or that stands in a header and cannot
 */
export function assemble(
  request: ProviderRequest,
  values: TemplateValues,
  given: readonly (readonly [string, string])[],
): TokenRequest {
  const { clientAuth, encoding } = request;
  const fields = [...given, ...clientFields(request, values)].map(([name, value]): [string, string] => [name, value]);
  const url = new URL(checkedUrl(fillUrl(request.url, values)));
  const headers = fillHeaders(request.headers, values);
  if (clientAuth.kind === "basic") headers["authorization"] = basic(clientAuth, values);
  if (clientAuth.kind === "header") {
    const { header, value } = clientAuth;
    Object.assign(headers, { [header]: "" }, fillHeaders({ [header]: value }, values));
  }
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
  const tls = clientAuth.kind === "tls" ? (fill("{client.secret}", values) ?? "") : undefined;
  return conceal({ method: request.method, url: url.href, headers, body, tls, secrets: secretsOf(values, headers) });
}

function checkedUrl(text: string): string {
  if (URL.canParse(text)) return text;
  throw new BrokerError("invalid_request", "the inputs of this connection do not make a valid URL of the provider");
}

/** What the client adds to say who it is; a field that the file lists itself is not doubled. */
function clientFields({ clientAuth, fields }: ProviderRequest, values: TemplateValues): [string, string][] {
  const id = Object.hasOwn(fields, "client_id") ? {} : { client_id: "{client.id}" };
  switch (clientAuth.kind) {
    case "body":
      return fillAll({ ...id, client_secret: "{client.secret}" }, values);
    case "tls":
      return fillAll(id, values);
    case "private_key_jwt":
      return fillAll({ ...id, client_assertion_type: assertionType, client_assertion: "{client.assertion}" }, values);
    default:
      return [];
  }
}

/** RFC 7617; with the form encoding of RFC 6749, section 2.3.1, where the definition says so. */
function basic({ pair, percentEncoding }: { pair: string; percentEncoding: boolean }, values: TemplateValues): string {
  const filled = fill(pair, values, percentEncoding ? formEncode : undefined) ?? "";
  return `Basic ${Buffer.from(filled, "utf8").toString("base64")}`;
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

type Parts = Omit<TokenRequest, "body" | "tls"> & { body: string | undefined; tls: string | undefined };

function conceal({ method, url, headers, body, tls, secrets }: Parts): TokenRequest {
  const hidden = {
    headers,
    secrets,
    ...(body !== undefined && { body }),
    ...(tls !== undefined && { tls }),
  };
  const concealed = Object.entries(hidden).map(([name, value]) => [name, { value, enumerable: false }] as const);
  return Object.defineProperties({ method, url }, Object.fromEntries(concealed)) as TokenRequest;
}
