import type {
  ErrorRule,
  Lookup,
  ProviderDefinition,
  RevocationDefinition,
} from "../../src/providers/format/definition.ts";
import { code, list, section, table } from "./markdown.ts";
import { duration } from "./words.ts";

/** What the provider bears, what is looked up, and what callers and people see of it. */
export function endpointSections(definition: ProviderDefinition): string[] {
  const { errors, lookups, revocation, furtherTokens } = definition;
  return [
    ...section("## Limits", limits(definition), parallelSets(definition)),
    ...section("## Further tokens", list(furtherTokens.map(({ name }) => `\`${name}\`: read with \`?token=${name}\``))),
    ...section("## Who was connected", list(lookups.map(lookupWords))),
    ...section(
      "## When a connection is deleted",
      revocation ? revocationWords(revocation) : "The provider is not told: people take the access back there.",
    ),
    ...section(
      "## Errors of its own",
      errors.length === 0 ? null : table(["endpoint", "answer", "means"], errors.map(errorRow)),
    ),
    ...section("## The API", apiWords(definition)),
  ];
}

function limits({
  limits: { per, concurrency, spacingMs, coolDownSeconds, maxPerWindow },
}: ProviderDefinition): string | null {
  const known = [
    ...(maxPerWindow ? [`at most ${maxPerWindow.requests} requests in ${duration(maxPerWindow.seconds)}`] : []),
    ...(concurrency ? [`at most ${concurrency} at a time`] : []),
    ...(spacingMs > 0 ? [`${spacingMs} ms from one to the next`] : []),
    ...(coolDownSeconds > 0 ? [`${duration(coolDownSeconds)} of silence after a refusal of this kind`] : []),
  ];
  if (known.length === 0) return null;
  const shared = {
    token_host: "all connections at the same host",
    client: "all connections of a client",
    connection: "each connection",
  };
  return `For ${shared[per]}: ${known.join("; ")}.`;
}

function parallelSets({ parallelSets: sets }: ProviderDefinition): string | null {
  if (sets === null) return null;
  const same = sets.singlePer
    .map((key) => (key.startsWith("inputs.") ? `input \`${key.slice(7)}\`` : key))
    .join(" and ");
  const count = sets.max === 1 ? "one token set" : `${sets.max} token sets`;
  return `The provider keeps ${count} for the same ${same}: one more ends the oldest.`;
}

function lookupWords({ request, select, pointer, value, label }: Lookup): string {
  if (request === null) return `The account is ${code(value ?? "")}.`;
  const entry = select === null ? "" : ` (an entry of ${select.list === null ? "the answer" : code(select.list)})`;
  const name = pointer === null ? "what it says" : code(pointer);
  const shown = label === null ? "" : `, shown as ${code(label)}`;
  return `${code(`${request.method} ${request.url}`)}${entry}: the account is ${name}${shown}.`;
}

function revocationWords({ url, method, token, kills }: RevocationDefinition): string {
  const tokens = {
    refresh_token: "the refresh token is",
    access_token: "the access token is",
    both: "both tokens are",
  }[token];
  const at = url === "" ? "at the address that the provider's metadata names" : `with ${code(`${method} ${url}`)}`;
  const end = kills === "all" ? " That ends everything of the grant." : " That ends this token alone.";
  return `${tokens.charAt(0).toUpperCase()}${tokens.slice(1)} revoked ${at}.${end}`;
}

function errorRow(rule: ErrorRule): string[] {
  return [rule.endpoint, answerOf(rule), `\`${rule.means}\``];
}

/** Which answers a rule is for. */
export function answerOf({ status, pointer, equals, regex, body }: ErrorRule): string {
  const parts = [
    ...(status === undefined ? [] : [String(status)]),
    ...(pointer !== undefined && equals !== undefined ? [`${code(pointer)} is ${code(equals)}`] : []),
    ...(pointer !== undefined && regex !== undefined ? [`${code(pointer)} matches ${code(regex)}`] : []),
    ...(body === undefined ? [] : [`the body matches ${code(body)}`]),
  ];
  return parts.join(", ");
}

function apiWords({ api }: ProviderDefinition): string {
  const headers = Object.entries({ [api.authorization.header]: api.authorization.value, ...api.headers });
  const sent = headers.map(([name, value]) => `\`${name}: ${value}\``).join(", ");
  return api.baseUrl === null ? `Send ${sent}.` : `${code(api.baseUrl)}, with ${sent}.`;
}
