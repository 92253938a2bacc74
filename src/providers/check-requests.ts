import { checkLookupOrder, placedLists } from "./check-lookup-order.ts";
import { isSecretParameter, isSecretTemplate } from "./check-templates.ts";
import type { ProviderDefinition, ProviderRequest } from "./definition.ts";
import { templateNames } from "./template.ts";
import type { Problem } from "./yaml-source.ts";

type PlacedRequest = { path: string[]; request: ProviderRequest };

/** Every request that a definition describes: an address, and no secret in it. */
export function checkRequests(definition: ProviderDefinition): Problem[] {
  const requests = [...exchanges(definition), ...sideRequests(definition)];
  const problems = [
    ...requests.flatMap((placed) => checkRequest(definition, placed)),
    ...checkVerifier(definition),
    ...checkParams(definition),
    ...checkLookupOrder(definition),
  ];
  // Grants that are refreshed alike have the same problem: it is told once.
  return [...new Map(problems.map((problem) => [`${problem.path.join("/")} ${problem.text}`, problem])).values()];
}

function checkRequest(definition: ProviderDefinition, placed: PlacedRequest): Problem[] {
  return [...checkSecrets(definition, placed), ...checkAddress(definition, placed)];
}

function exchanges(definition: ProviderDefinition): PlacedRequest[] {
  const grants = definition.file.token?.grants;
  const first = Object.entries(definition.exchanges).map(([grant, request]) => ({
    path: ["token", "grants", grant],
    request,
  }));
  const later = Object.entries(definition.refreshes).map(([grant, request]) => {
    const special = Object.entries(grants ?? {}).some(([name, knobs]) => name === grant && "refresh" in knobs);
    return { path: special ? ["token", "grants", grant, "refresh"] : ["token", "grants", "refresh_token"], request };
  });
  return [...first, ...later];
}

function sideRequests(definition: ProviderDefinition): PlacedRequest[] {
  const { authorization, device, revocation, introspection, extraTokens } = definition;
  const all: [string[], ProviderRequest | null | undefined][] = [
    [["authorization", "pushed"], authorization?.pushed],
    [["device"], device],
    [["revocation"], revocation],
    [["introspection"], introspection],
    ...extraTokens.map(({ exchange }, index): [string[], ProviderRequest | null] => [
      ["response", "extra_tokens", String(index), "exchange"],
      exchange,
    ]),
    ...placedLists(definition).flatMap(({ path, lookups }) =>
      lookups.map(({ request }, index): [string[], ProviderRequest | null] => [
        [...path, String(index), "request"],
        request && { ...request, clientAuth: request.clientAuth ?? { kind: "none" } },
      ]),
    ),
  ];
  return all.flatMap(([path, request]) => (request ? [{ path, request }] : []));
}

/** An address that is left out comes from the issuer's metadata, or not at all. */
function checkAddress({ issuer }: ProviderDefinition, { path, request }: PlacedRequest): Problem[] {
  if (request.url !== "" || (issuer !== null && !path.includes("after_connect"))) return [];
  return [{ path, text: "`url` is missing" }];
}

/** A challenge without its verifier makes the provider refuse every code (RFC 7636, section 4.6). */
function checkVerifier({ authorization, exchanges: byGrant }: ProviderDefinition): Problem[] {
  const templates = Object.values(byGrant.authorization_code?.fields ?? {}).flatMap(templateNames);
  const sendsChallenge = authorization !== null && authorization.pkce !== "off";
  if (!sendsChallenge || templates.includes("code_verifier")) return [];
  const text = 'must hold {code_verifier}, since a challenge is sent: add it, or say `authorization.pkce: "off"`';
  return [{ path: ["token", "grants", "authorization_code", "fields"], text }];
}

/** Parameters of the authorize page stand in its address, unless they are pushed. */
function checkParams({ authorization }: ProviderDefinition): Problem[] {
  if (authorization === null || authorization.pushed !== null) return [];
  const named = Object.entries(authorization.params).filter(
    ([name, value]) => value !== null && isSecretParameter(name),
  );
  return named.map(([name]) => ({
    path: ["authorization", "params", name],
    text: `\`${name}\` names a secret, and a secret never stands in a URL`,
  }));
}

/** Secrets never stand in a URL: URLs are logged on the way. */
function checkSecrets({ inputs }: ProviderDefinition, { path, request }: PlacedRequest): Problem[] {
  const { encoding, method, clientAuth, fields } = request;
  if (method === "GET" && encoding !== "query") {
    return [{ path, text: "`method: GET` has no body: it goes with `encoding: query`" }];
  }
  if (encoding !== "query") return [];
  const isSecret = (name: string) => isSecretTemplate(name) || inputs[name.replace(/^inputs\./, "")]?.secret;
  const secret = Object.entries(fields).filter(
    ([name, value]) => isSecretParameter(name) || templateNames(value).some(isSecret),
  );
  const problems = secret.map(([name]) => ({
    path: [...path, "fields", name],
    text: `\`${name}\` is a secret, and secrets are refused in \`encoding: query\``,
  }));
  if (clientAuth.kind !== "body" && clientAuth.kind !== "private_key_jwt") return problems;
  return [
    ...problems,
    {
      path: [...path, "client_auth"],
      text: `\`client_auth: ${clientAuth.kind}\` would put the secret in the URL with \`encoding: query\``,
    },
  ];
}
