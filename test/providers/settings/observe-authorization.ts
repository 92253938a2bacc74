import { copiedCodeRequest, csrfToken } from "../../../src/consent/links.ts";
import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import { authorizationParams, buildAuthorizationUrl } from "../../../src/providers/oauth/authorization-request.ts";
import { describeApiRequest } from "../../../src/providers/oauth/side-requests.ts";
import { buildTokenRequest } from "../../../src/providers/oauth/token-request.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { tokenRow } from "../../unit/tokens/token-row.ts";
import { authorizationRequest, type Observed, plainValues, valuesFor } from "./values.ts";

/** What a person is sent to, and which codes are taken. */
export function observeAuthorization(definition: ProviderDefinition): Observed {
  if (definition.authorization === null) return {};
  const request = authorizationRequest(definition);
  const params = authorizationParams(request).map(([name, value]) => [`authorize: ${name}`, value] as const);
  const { codeVerifier: _, ...values } = valuesFor(definition, "authorization_code");
  const grant = "authorization_code";
  return {
    "authorize: address": buildAuthorizationUrl(request).replace(/\?.*/, ""),
    ...Object.fromEntries(params),
    "a code that is copied": refusalOf(() => copiedCode(definition)),
    "a code that was not asked for": refusalOf(() =>
      buildTokenRequest({ definition, grant, obtainedBy: grant, values }),
    ),
  };
}

/** What callers are told to send. */
export function observeApi(definition: ProviderDefinition): Observed {
  const { base_url: baseUrl, headers, expired_when: expired } = describeApiRequest({ definition, values: plainValues });
  const named = Object.entries(headers).map(([name, value]) => [`api: ${name}`, value] as const);
  return { "api: address": baseUrl ?? "", ...Object.fromEntries(named), "api: expired when": JSON.stringify(expired) };
}

/** As the page for it shows the address. */
function copiedCode(definition: ProviderDefinition): string {
  const row = tokenRow({ provider: definition.id });
  const destination = { provider: definition.id, clientRef: null, clientId: "app-1", inputs: {} };
  const context = {
    connection: { row, client: null },
    connectionId: "",
    connectionName: "",
    clientId: "app-1",
    clientSecrets: () => [],
    account: null,
    endsSoon: false,
    redirectUri: "https://broker.example/callback/own",
    destination,
    definition,
    inputs: {},
    scopes: [],
    disabled: false,
    grant: "authorization_code",
  };
  const formKeys = createKeyring([{ id: "k1", key: Buffer.alloc(32) }]);
  const at = { browser: "b", link: "l" };
  const form = { ...at, csrf: csrfToken(formKeys, at) };
  const given = { formKeys, organisation: { name: null, contact: null } };
  const { authorizationUrl } = copiedCodeRequest(given, { row: { manual: true, purpose: null }, context }, form);
  return `goes to ${new URL(authorizationUrl).searchParams.get("redirect_uri") ?? "no page"}`;
}

function refusalOf(act: () => unknown): string {
  try {
    const done = act();
    return typeof done === "string" ? done : "is exchanged";
  } catch {
    return "is refused";
  }
}
