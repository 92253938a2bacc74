import type { ClientAuth, Exchange, ProviderDefinition } from "../../src/providers/format/definition.ts";
import { clientInputs, requiredInputs } from "../../src/providers/format/requirements.ts";
import { redirectUriOf, wantsOwnRedirectUri } from "../../src/providers/oauth/authorization-request.ts";
import { code, list, plain, section, table } from "./markdown.ts";
import { grantName } from "./words.ts";

/** What to register, what to tell the broker, and how it asks. */
export function accessSections(definition: ProviderDefinition): string[] {
  return [
    ...section("## Registering", words(definition.file.guide?.register)),
    ...redirectSection(definition),
    ...inputSection(definition),
    ...section("## Grants", list(definition.grants.map((grant) => `\`${grant}\`: ${grantName(grant)}`))),
    ...scopeSection(definition),
    ...section("## How the client says who it is", clientAuthentication(definition), proof(definition)),
  ];
}

const words = (text: string | undefined) => (text === undefined ? null : plain(text));

function redirectSection(definition: ProviderDefinition): string[] {
  const { id, grants, file } = definition;
  if (!grants.includes("authorization_code")) return [];
  const isOwn = wantsOwnRedirectUri(definition);
  const uri = redirectUriOf("https://YOUR-BROKER", { provider: id, client: isOwn ? "YOUR-CLIENT" : null });
  const whose = isOwn ? "Each client has its own, which `freshet clients add` tells." : null;
  return section("## Redirect URI", `\`${uri}\``, whose, words(file.guide?.redirect_uri));
}

function inputSection(definition: ProviderDefinition): string[] {
  const onClient = clientInputs(definition);
  const required = new Set(definition.grants.flatMap((grant) => requiredInputs(definition, grant)));
  const rows = Object.entries(definition.inputs).map(([name, input]) => {
    const stands = input.default ?? (input.generate && "made by the broker");
    const needed = required.has(name) && !input.optional ? "required" : "optional";
    return [
      code(name),
      onClient.includes(name) ? "the client" : "the connection",
      stands === undefined ? needed : code(stands).replace("`made by the broker`", "made by the broker"),
      `${plain(input.description ?? "")}${input.secret ? " (secret)" : ""}`,
      input.enum ? input.enum.map(code).join(", ") : input.pattern === undefined ? "anything" : code(input.pattern),
    ];
  });
  return rows.length === 0 ? [] : section("## Inputs", table(["input", "set on", "default", "is", "allowed"], rows));
}

const named = (names: readonly string[]) => names.map(code).join(", ");

function scopeSection({ scope, scopeDescriptions, file }: ProviderDefinition): string[] {
  const described = Object.entries(scopeDescriptions).map(([name, meaning]) => [code(name), plain(meaning)]);
  return section(
    "## Scopes",
    words(file.guide?.scopes),
    scope.default.length > 0
      ? `Asked for where neither client nor connection names any: ${named(scope.default)}.`
      : null,
    scope.required.length > 0 ? `Always asked for: ${named(scope.required)}.` : null,
    scope.separator === " " ? null : `Between scopes stands ${code(scope.separator)}.`,
    described.length > 0 ? table(["scope", "lets one"], described) : null,
  );
}

/** One way for all requests, or each with its own. */
function clientAuthentication({ exchanges, refreshes }: ProviderDefinition): string | null {
  const ways = [
    ...Object.entries(exchanges).map(([grant, way]) => ({ request: `\`${grant}\``, way: wayOf(way) })),
    ...Object.entries(refreshes).map(([grant, way]) => ({ request: `refreshing after \`${grant}\``, way: wayOf(way) })),
  ];
  const different = [...new Set(ways.map(({ way }) => way))];
  if (different.length === 0) return null;
  if (different.length === 1) return `${different[0]}.`;
  const requestsOf = (way: string) => ways.filter((one) => one.way === way).map(({ request }) => request);
  return list(different.map((way) => `${requestsOf(way).join(", ")}: ${way.charAt(0).toLowerCase()}${way.slice(1)}.`));
}

function wayOf({ clientAuth, fixedClientId }: Exchange): string {
  const known = fixedClientId === null ? "" : ` Everybody's client id is \`${fixedClientId}\``;
  return fixedClientId === null ? authenticationWords(clientAuth) : `${authenticationWords(clientAuth)}.${known}`;
}

function authenticationWords(auth: ClientAuth): string {
  if (auth.kind === "header") return `With the header \`${auth.header}\``;
  if (auth.kind === "private_key_jwt") {
    return `With a signed JWT (RFC 7523, ${auth.algorithm}): give its private key, as PEM or JWK, as the secret`;
  }
  return {
    none: "Not at all: it sends no secret",
    basic: "With HTTP Basic",
    body: "With `client_id` and `client_secret` in the body",
    tls: "With a certificate (RFC 8705): give it and its private key, as PEM, as the secret",
  }[auth.kind];
}

function proof({ authorization }: ProviderDefinition): string | null {
  if (authorization === null) return null;
  const { pkce, pkceMethod } = authorization;
  if (pkce === "off") return "PKCE: not used.";
  const copied = pkce === "optional" ? ", save for codes that are copied by hand" : "";
  return `PKCE: always, with ${pkceMethod}${copied}.`;
}
