import { generateKeyPairSync } from "node:crypto";
import {
  type ClientAuth,
  type ConnectionGrant,
  forFurtherToken,
  type Lookup,
  type ProviderDefinition,
  type ProviderRequest,
} from "../../../src/providers/format/definition.ts";
import { lookupsOf } from "../../../src/providers/format/requirements.ts";
import type { TemplateValues } from "../../../src/providers/format/template.ts";
import type { HttpRequest } from "../../../src/providers/http/exchange.ts";
import { buildPushedRequest } from "../../../src/providers/oauth/authorization-request.ts";
import {
  buildIntrospectionRequest,
  buildLookupRequest,
  buildRevocationRequest,
} from "../../../src/providers/oauth/side-requests.ts";
import { buildRequest, buildTokenRequest, withAssertion } from "../../../src/providers/oauth/token-request.ts";
import { observeApi, observeAuthorization } from "./observe-authorization.ts";
import { authorizationRequest, type Observed, valuesFor } from "./values.ts";

const rsaKey = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
const ecKey = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
export const grantLabels = {
  authorization_code: "exchange",
  client_credentials: "fetch",
  password: "login",
  device_code: "poll",
} as const;

/** Every request that the definition describes, as it would be written. */
export async function observeRequests(definition: ProviderDefinition): Promise<Observed> {
  const parts = [
    ...(await Promise.all(
      Object.entries(grantLabels).flatMap(([grant, label]) => [
        firstRequest(definition, grant as keyof typeof grantLabels, label),
        refreshRequest(definition, grant as ConnectionGrant, label),
      ]),
    )),
    await refreshRequest(definition, "import", "import"),
    ...(await sideRequests(definition)),
    observeAuthorization(definition),
    observeApi(definition),
  ];
  return Object.assign({}, ...parts);
}

async function firstRequest(
  definition: ProviderDefinition,
  grant: keyof typeof grantLabels,
  label: string,
): Promise<Observed> {
  const exchange = definition.exchanges[grant];
  if (!exchange) return {};
  return await observe(label, exchange, {
    definition,
    grant,
    build: (values) => buildTokenRequest({ definition, grant, obtainedBy: grant, values }),
  });
}

async function refreshRequest(
  definition: ProviderDefinition,
  grant: ConnectionGrant,
  label: string,
): Promise<Observed> {
  const exchange = definition.refreshes[grant];
  if (!exchange) return {};
  const build = (values: TemplateValues) =>
    buildTokenRequest({ definition, grant: "refresh_token", obtainedBy: grant, values });
  return await observe(`refresh after ${label}`, exchange, { definition, build });
}

async function sideRequests(definition: ProviderDefinition): Promise<Observed[]> {
  const { authorization, device, introspection, revocation, furtherTokens } = definition;
  const pushed = authorization?.pushed;
  const accessToken = { value: "at-0", hint: "access_token" } as const;
  const refreshToken = { value: "rt-0", hint: "refresh_token" } as const;
  const all: [string, ProviderRequest | null | undefined, (values: TemplateValues) => HttpRequest | null][] = [
    [
      "pushed",
      pushed,
      (values) => {
        const scope = { scope: valuesFor(definition, "authorization_code").scope };
        return buildPushedRequest({ ...authorizationRequest(definition), values: { ...values, ...scope } });
      },
    ],
    ["device", device, (values) => device && buildRequest(device, values)],
    [
      "ask about access token",
      introspection,
      (values) => buildIntrospectionRequest({ definition, token: accessToken, values }),
    ],
    [
      "ask about refresh token",
      introspection,
      (values) => buildIntrospectionRequest({ definition, token: refreshToken, values }),
    ],
    ["revoke access token", revocation, (values) => buildRevocationRequest({ definition, token: accessToken, values })],
    [
      "revoke refresh token",
      revocation,
      (values) => buildRevocationRequest({ definition, token: refreshToken, values }),
    ],
    ...furtherTokens.map(({ name, exchange }): (typeof all)[number] => [
      `get ${name}`,
      exchange,
      (values) =>
        buildTokenRequest({
          definition: forFurtherToken(definition, name),
          grant: "token_exchange",
          obtainedBy: "import",
          values,
        }),
    ]),
    ...lookupLists(definition).map(({ label, lookup: { request } }): (typeof all)[number] => [
      `lookup${label}`,
      request && { ...request, clientAuth: request.clientAuth ?? { kind: "none" } },
      (values) => request && buildLookupRequest(definition, request, values),
    ]),
  ];
  return await Promise.all(
    all.map(async ([label, request, build]) => {
      if (!request) return {};
      const grant = label === "device" ? "device_code" : "import";
      return await observe(label, request, { definition, grant, build });
    }),
  );
}

/** What is looked up after connecting, and by which grant where that one has lookups of its own. */
export function lookupLists(definition: ProviderDefinition): { label: string; lookup: Lookup }[] {
  const special = Object.entries(grantLabels).flatMap(([grant, label]) => {
    const own = lookupsOf(definition, grant as ConnectionGrant);
    return own === definition.lookups ? [] : own.map((lookup) => ({ label: ` after ${label}`, lookup }));
  });
  return [...definition.lookups.map((lookup) => ({ label: "", lookup })), ...special];
}

async function observe(
  label: string,
  request: ProviderRequest,
  {
    definition,
    grant,
    build,
  }: {
    definition: ProviderDefinition;
    grant?: ConnectionGrant;
    build: (values: TemplateValues) => HttpRequest | null;
  },
): Promise<Observed> {
  const given = { ...valuesFor(definition, grant), client: { id: "app-1", secret: secretFor(request.clientAuth) } };
  const written = build(await withAssertion(request, given, { definition, nowMs: 1_700_000_000_000 }));
  if (written === null) return {};
  const { method, url, headers, body, tls } = written;
  const named = Object.entries(headers).map(([name, value]) => [`${label}: ${name}`, plainHeader(value)] as const);
  const { text, assertion } = plainBody(body ?? "");
  return {
    [`${label}: address`]: `${method} ${url}`,
    ...Object.fromEntries(named),
    ...(body !== undefined && { [`${label}: body`]: text }),
    ...(assertion !== null && { [`${label}: assertion`]: assertion }),
    ...(tls !== undefined && { [`${label}: certificate`]: tls }),
  };
}

function secretFor(auth: ClientAuth): string {
  if (auth.kind === "tls") return "the client's certificate";
  if (auth.kind !== "private_key_jwt") return "s3/cret";
  return (auth.algorithm === "ES256" ? ecKey : rsaKey).export({ format: "pem", type: "pkcs8" }).toString();
}

const plainHeader = (value: string) =>
  value.replace(/^Basic (.+)$/, (_whole, pair: string) => `Basic ${Buffer.from(pair, "base64").toString("utf8")}`);

/** Without the signature, which differs each time. */
function plainBody(body: string): { text: string; assertion: string | null } {
  const jwt = /eyJ[\w-]+\.([\w-]+)\.[\w-]+/.exec(body);
  if (jwt === null) return { text: body, assertion: null };
  const [header, payload] = jwt[0].split(".").map((part) => Buffer.from(part, "base64url").toString("utf8"));
  const { alg, typ } = JSON.parse(header ?? "{}") as { alg: string; typ: string };
  const { aud, iat, exp } = JSON.parse(payload ?? "{}") as { aud: string; iat: number; exp: number };
  return { text: body.replace(jwt[0], "JWT"), assertion: `${typ} ${alg} for ${aud}, ${exp - iat} s` };
}
