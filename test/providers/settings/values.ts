import type { ConnectionGrant, ProviderDefinition } from "../../../src/providers/format/definition.ts";
import { effectiveScopes, joinScopes } from "../../../src/providers/format/requirements.ts";
import type { TemplateValues } from "../../../src/providers/format/template.ts";
import { createPkce } from "../../../src/providers/oauth/authorization-request.ts";

/** What can be seen of a definition from outside: a name for each thing, and how it is. */
export type Observed = Record<string, string>;

/** What templates are filled with. */
export const plainValues: TemplateValues = {
  client: { id: "app-1", secret: "s3/cret" },
  inputs: { shop: "berlin" },
  credentials: { username: "ann", password: "pw" },
  callback: { realm: "r1" },
  response: { host: "eu1" },
  account: { site: "s1" },
  redirectUri: "https://broker.example/callback/own",
  code: "code-1",
  codeVerifier: "verifier-1",
  refreshToken: "rt-0",
  accessToken: "at-0",
  deviceCode: "device-1",
};

/** The same, with the scopes that the definition asks for by this grant. */
export const valuesFor = (definition: ProviderDefinition, grant: ConnectionGrant = "import"): TemplateValues => ({
  ...plainValues,
  scope: joinScopes(definition, effectiveScopes(definition, grant, null)),
});

/** What an authorization request is made from. */
export function authorizationRequest(definition: ProviderDefinition) {
  const codeChallenge = createPkce({ definition, randomBytes: (size) => new Uint8Array(size).fill(251) });
  const { code: _code, codeVerifier: _verifier, ...values } = valuesFor(definition, "authorization_code");
  return {
    definition,
    values,
    state: "state-1",
    nonce: null,
    codeChallenge,
    scopes: effectiveScopes(definition, "authorization_code", null),
  };
}
