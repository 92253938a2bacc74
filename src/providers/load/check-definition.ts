import { validateHeaderName } from "node:http";
import type net from "node:net";
import type { TObject } from "typebox";
import { Value } from "typebox/value";
import { nearest } from "../../text.ts";
import type { ProviderDefinition, StatedAnswer } from "../format/definition.ts";
import { placedLookups, type ProviderFile, providerFileSchema } from "../format/file.ts";
import { rulesOfValue, templatePlaces } from "../format/places.ts";
import { splitUrl, templateNames } from "../format/template.ts";
import { parseNetworks, whyNeverReached } from "../http/egress.ts";
import { standardParams } from "../oauth/authorization-request.ts";
import type { FailureClass } from "../oauth/token-answer.ts";
import { processTokenResponse } from "../oauth/token-response.ts";
import { checkAnswers, checkRequests } from "./check-requests.ts";
import { checkTemplates } from "./check-templates.ts";
import type { Problem } from "./yaml-source.ts";

/** Checks that a schema cannot express: settings that need or exclude each other, patterns, templates. */
export function checkDefinition(file: ProviderFile, definition: ProviderDefinition): Problem[] {
  return [
    ...checkTemplates(file),
    ...checkInputs(file),
    ...checkNetworks(file),
    ...checkErrors(file),
    ...checkSettingsTogether(file),
    ...checkHeaders(file),
    ...checkAnswers(file),
    ...checkFacts(file),
    ...(definition.usable ? checkRequests(definition) : []),
  ];
}

function checkInputs({ inputs = {} }: ProviderFile): Problem[] {
  return Object.entries(inputs).flatMap(([name, input]) => {
    const path = ["inputs", name];
    const fault = input.pattern === undefined ? null : patternFault(input.pattern);
    if (fault !== null) return [{ path: [...path, "pattern"], text: fault }];
    const fits =
      (input.enum?.includes(input.default ?? "") ?? true) &&
      (input.pattern === undefined || new RegExp(input.pattern, "u").test(input.default ?? ""));
    return input.default === undefined || fits
      ? []
      : [{ path: [...path, "default"], text: "does not fit this input's own pattern or enum" }];
  });
}

function checkNetworks({ networks = [] }: ProviderFile): Problem[] {
  return networks.flatMap((entry, index) => {
    try {
      parseNetworks(entry);
      return entry.includes(",") ? [{ path: ["networks", String(index)], text: "must be one CIDR block" }] : [];
    } catch (error) {
      return [{ path: ["networks", String(index)], text: error instanceof Error ? error.message : "is no CIDR block" }];
    }
  });
}

function patternFault(pattern: string): string | null {
  try {
    RegExp(pattern, "u");
    return null;
  } catch (error) {
    return `is not a regular expression (${error instanceof Error ? error.message : "syntax"})`;
  }
}

function checkErrors({ errors = [] }: ProviderFile): Problem[] {
  return errors.flatMap((rule, index) => {
    const path = ["errors", String(index)];
    const problems = (["regex", "body"] as const).flatMap((setting) => {
      const fault = rule[setting] === undefined ? null : patternFault(rule[setting]);
      return fault === null ? [] : [{ path: [...path, setting], text: fault }];
    });
    const fault = ruleFault(rule);
    return fault === null ? problems : [...problems, { path, text: fault }];
  });
}

function ruleFault(rule: NonNullable<ProviderFile["errors"]>[number]): string | null {
  const { endpoint, status, pointer, equals, regex, body, means } = rule;
  if (status === undefined && pointer === undefined && body === undefined) {
    return "a rule needs a `status`, a `pointer` or a `body`";
  }
  if ((pointer !== undefined) !== (equals !== undefined || regex !== undefined)) {
    return "`pointer` goes with `equals` or `regex`";
  }
  if (equals !== undefined && regex !== undefined) return "either `equals` or `regex`, not both";
  if (endpoint === "token") {
    return means === "access_token_expired" ? "access_token_expired is for `endpoint: api`" : null;
  }
  if (means !== "access_token_expired") return "`endpoint: api` goes with `means: access_token_expired`";
  return pointer === undefined ? null : "`endpoint: api` is told by `status` and `body`, not by `pointer`";
}

/** Settings of `grants`, `authorization`, `discovery` and `refresh` that need or exclude each other. */
function checkSettingsTogether(file: ProviderFile): Problem[] {
  const problems: Problem[] = [];
  const grants = file.grants ?? ["authorization_code"];
  if (
    file.token?.url !== undefined &&
    file.issuer === undefined &&
    grants.includes("authorization_code") &&
    !file.authorization?.url
  ) {
    problems.push({ path: ["grants"], text: "authorization_code is offered, and `authorization.url` is missing" });
  }
  if (file.authorization?.params?.["state"] === null) {
    problems.push({
      path: ["authorization", "params", "state"],
      text: "state cannot be left out: it binds the callback to its browser",
    });
  }
  if (file.authorization?.params?.["response_mode"] === "form_post") {
    problems.push({
      path: ["authorization", "params", "response_mode"],
      text: "an answer that is posted is taken with `authorization.response_mode: form_post` only",
    });
  }
  for (const [name, value] of Object.entries(file.authorization?.params ?? {})) {
    if (!isStandard(name) || !value?.includes("{")) continue;
    const text = `the broker sends ${name} itself: give only the provider's name for it, or null to leave it out`;
    problems.push({ path: ["authorization", "params", name], text });
  }
  for (const [scope, params] of Object.entries(file.authorization?.params_with_scope ?? {})) {
    for (const name of Object.keys(params).filter((each) => isStandard(each) || each === "response_mode")) {
      const path = ["authorization", "params_with_scope", scope, name];
      problems.push({ path, text: `${name} is sent with every scope, or with none` });
    }
  }
  if (file.authorization?.iss === "required" && !(file.authorization.issuer ?? file.issuer)) {
    const text = "`iss: required` needs an `issuer` that it is compared with, here or at the top of the file";
    problems.push({ path: ["authorization", "iss"], text });
  }
  if (file.discovery?.metadata_url !== undefined && file.issuer === undefined) {
    const text = "metadata need an `issuer`: what they say counts only where they name it";
    problems.push({ path: ["discovery", "metadata_url"], text });
  }
  if (file.refresh?.reuse === "grace" && !file.refresh.grace_s) {
    problems.push({ path: ["refresh", "reuse"], text: "`reuse: grace` needs a `grace_s` above 0" });
  }
  return problems;
}

function isStandard(name: string): boolean {
  return standardParams.some((standard) => standard === name);
}

/** Headers that the HTTP client sets itself. */
const ownHeaders = new Set([
  "host",
  "connection",
  "content-length",
  "content-type",
  "transfer-encoding",
  "accept-encoding",
  "expect",
]);

function checkHeaders({ token, api }: ProviderFile): Problem[] {
  const maps: [string[], Readonly<Record<string, string | null>> | undefined][] = [
    [["token", "headers"], token?.headers],
    [["api", "headers"], api?.headers],
  ];
  for (const [grant, settings] of Object.entries(token?.grants ?? {})) {
    maps.push([["token", "grants", grant, "headers"], settings.headers]);
    if ("refresh" in settings) maps.push([["token", "grants", grant, "refresh", "headers"], settings.refresh?.headers]);
  }
  return maps.flatMap(([path, headers]) =>
    Object.entries(headers ?? {}).flatMap(([name, value]) => headerProblems([...path, name], name, value)),
  );
}

function headerProblems(path: string[], name: string, value: string | null): Problem[] {
  try {
    validateHeaderName(name);
  } catch {
    return [{ path, text: `\`${name}\` is not a header name` }];
  }
  if (path[0] === "token" && ownHeaders.has(name.toLowerCase())) {
    return [{ path, text: `\`${name}\` is set by the broker itself` }];
  }
  return /\p{Cc}/u.test(value ?? "") ? [{ path, text: "must not hold control characters" }] : [];
}

type Schema = Readonly<Record<string, unknown>>;
type ShapeError = ReturnType<typeof Value.Errors>[number];

/** Whether a parsed file has the shape of a provider file: known settings only, each of its type. */
export function checkShape(value: Record<string, unknown>): { file: ProviderFile } | { problems: Problem[] } {
  if (Value.Check(providerFileSchema, value)) return { file: value };
  return { problems: misfitsOf(providerFileSchema, value) };
}

/** Everything of a map that does not fit the schema of an object. */
export function misfitsOf({ properties, required }: TObject, value: Record<string, unknown>): Problem[] {
  const known = Object.keys(properties);
  const problems = Object.keys(value)
    .filter((key) => !known.includes(key))
    .map((key) => unknownSetting([], key, known));
  const missing = (required ?? []).filter((key) => !Object.hasOwn(value, key));
  problems.push(...missing.map((key) => ({ path: [], text: `\`${key}\` is missing` })));
  // One setting at a time, since the validator stops after a few errors.
  for (const [key, schema] of Object.entries(properties)) {
    if (!Object.hasOwn(value, key)) continue;
    for (const error of Value.Errors(schema, value[key])) problems.push(...toProblems(error, key, schema));
  }
  return problems;
}

function toProblems(error: ShapeError, key: string, schema: object): Problem[] {
  const inner = error.instancePath
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  const path = [key, ...inner];
  switch (error.keyword) {
    case "boolean":
      return [];
    case "additionalProperties":
      return error.params.additionalProperties.map((name) =>
        unknownEntry({ path, name, schema: schemaAt(schema, inner) }),
      );
    case "required":
      return error.params.requiredProperties.map((name) => ({ path, text: `\`${name}\` is missing` }));
    case "enum":
      return [{ path, text: `must be one of: ${error.params.allowedValues.join(", ")}` }];
    case "type":
      return [
        {
          path,
          text: `must be ${[error.params.type]
            .flat()
            .map((type) => typeNames[type] ?? type)
            .join(" or ")}`,
        },
      ];
    case "pattern":
      return [{ path, text: patternText(String(error.params.pattern), path) }];
    default:
      return [{ path, text: error.message }];
  }
}

/** Maps that may stand in the place of a word. */
const mapForms: Record<string, string> = {
  client_auth: '{ header: NAME, value: "{client.secret}" } or { basic: "{client.id}:{client.secret}" }',
  parallel_sets: "{ single_per: [user, client, inputs.X], max: 1 }",
};

/** A pattern that consists of words is shown as a list of them. */
function patternText(pattern: string, path: readonly string[]): string {
  const words = /^\^\(?([a-z_|]+)\)?\$$/.exec(pattern)?.[1]?.split("|");
  if (words === undefined) return `must match ${pattern}`;
  const forms = mapForms[path.at(-1) ?? ""];
  return `must be one of: ${words.join(", ")}${forms === undefined ? "" : `; or a map: ${forms}`}`;
}

const typeNames: Record<string, string> = {
  string: "a text (in quotes, if it looks like something else)",
  integer: "a whole number",
  number: "a number",
  boolean: "true or false",
  array: "a list",
  object: "a map",
  null: "empty",
};

/** Why a dotted path leads to no setting; null: it leads to one, or to an entry that a file may name itself. */
function settingFault(path: string): string | null {
  const steps = path.split(".");
  let at: Schema = asSchema(providerFileSchema);
  // Names of scopes, headers and error rules may contain dots, so paths below a free map are not checked.
  for (const [depth, step] of steps.entries()) {
    if (at["properties"] === undefined) return null;
    const known = Object.keys(asSchema(at["properties"]));
    if (!known.includes(step)) {
      const prefix = steps
        .slice(0, depth)
        .map((above) => `${above}.`)
        .join("");
      return `\`${path}\` is no setting; ${adviceOn(step, known, prefix)}`;
    }
    at = asSchema(asSchema(at["properties"])[step]);
  }
  return null;
}

function schemaAt(schema: object, path: readonly string[]): Schema {
  let at = asSchema(schema);
  for (const step of path) at = child(at, step);
  return at;
}

function child(schema: Schema, step: string): Schema {
  const properties = asSchema(schema["properties"]);
  const patterns = Object.values(asSchema(schema["patternProperties"]));
  return asSchema(properties[step] ?? schema["items"] ?? patterns[0]);
}

function asSchema(value: unknown): Schema {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function unknownEntry(entry: { path: readonly string[]; name: string; schema: Schema }): Problem {
  const { path, name, schema } = entry;
  const [pattern] = Object.keys(asSchema(schema["patternProperties"]));
  if (pattern !== undefined) {
    return { path: [...path, name], text: `\`${name}\` is not a name; one must match ${pattern}` };
  }
  return unknownSetting(path, name, Object.keys(asSchema(schema["properties"])));
}

function unknownSetting(path: readonly string[], name: string, known: readonly string[]): Problem {
  return { path: [...path, name], text: `unknown setting \`${name}\`; ${adviceOn(name, known)}` };
}

/** The name that may have been meant, or all that are known. `prefix` goes before the first. */
function adviceOn(name: string, known: readonly string[], prefix = ""): string {
  const near = nearest(name, known);
  return near ? `did you mean \`${prefix}${near}\`?` : `known here: ${known.join(", ")}`;
}

type Fact = NonNullable<ProviderFile["facts"]>[string];

/** How well a fact is known: by sources of different origins that agree, by one, or by none. */
export type Grade = "confirmed" | "documented" | "guessed";

/** What a file says of one of its facts: the grade, the names of the sources, and a note, if there is one. */
export function readFact(
  fact: Fact,
  known: Readonly<Record<string, string>> = {},
): { grade: Grade; sources: string[]; note: string | null } {
  if (typeof fact === "object" && !Array.isArray(fact) && "guessed" in fact) {
    return { grade: "guessed", sources: [], note: fact.guessed };
  }
  const given = typeof fact === "object" && !Array.isArray(fact) ? fact : { from: fact };
  const sources = [given.from].flat();
  const origins = new Set(sources.map((name) => originOf(known[name] ?? name)));
  return { grade: origins.size > 1 ? "confirmed" : "documented", sources, note: given.note ?? null };
}

/** Two pages of one site count as one source. */
function originOf(source: string): string {
  const host = /https?:\/\/([^/\s]+)/.exec(source)?.[1]?.toLowerCase();
  return host === undefined ? source : host.split(".").slice(-2).join(".");
}

/** Checks that facts name existing settings and listed sources. */
function checkFacts({ facts = {}, sources = {} }: ProviderFile): Problem[] {
  return Object.entries(facts).flatMap(([setting, fact]) => {
    const path = ["facts", setting];
    const fault = settingFault(setting);
    if (fault !== null) return [{ path, text: fault }];
    if (typeof fact === "object" && !Array.isArray(fact) && !("from" in fact) && !("guessed" in fact)) {
      return [{ path, text: "needs `from`, or `guessed`" }];
    }
    return readFact(fact)
      .sources.filter((source) => !Object.hasOwn(sources, source))
      .map((source) => ({ path, text: `\`${source}\` is not in \`sources\`; ${adviceOnSource(source, sources)}` }));
  });
}

function adviceOnSource(name: string, sources: Readonly<Record<string, string>>): string {
  const known = Object.keys(sources);
  return known.length > 0 ? adviceOn(name, known) : "there are none";
}

type Settings = { client_auth?: string | { header?: string; basic?: string } };
type Placed = [path: string[], settings: Settings | null | undefined];

/** Finds maps of `client_auth` with no way to authenticate, or with two. Merging with an extended file can cause that. */
export function checkClientAuth(file: ProviderFile): Problem[] {
  return placesOf(file).flatMap(([path, settings]) => {
    const auth = settings?.client_auth;
    if (typeof auth !== "object" || (auth.header === undefined) !== (auth.basic === undefined)) return [];
    const text =
      auth.header === undefined
        ? "needs `header`, or `basic`"
        : "has both `header` and `basic`, of which one counts; a map merges with that of the extended file";
    return [{ path: [...path, "client_auth"], text }];
  });
}

function placesOf(file: ProviderFile): Placed[] {
  const { token, authorization, device, revocation, introspection, response } = file;
  const grants = Object.entries(token?.grants ?? {});
  const furtherTokens = response?.extra_tokens ?? [];
  return [
    [["token"], token],
    ...grants.map(([grant, settings]): Placed => [["token", "grants", grant], settings]),
    ...grants.map(([grant, settings]): Placed => [["token", "grants", grant, "refresh"], refreshOf(settings)]),
    [["authorization", "pushed"], authorization?.pushed],
    [["device"], device],
    [["revocation"], revocation],
    [["introspection"], introspection],
    ...placedLookups(file).map(({ path, lookup: { request } }): Placed => [[...path, "request"], request]),
    ...furtherTokens.map(({ exchange }, index): Placed => [
      ["response", "extra_tokens", String(index), "exchange"],
      exchange,
    ]),
  ];
}

function refreshOf(settings: Settings & { refresh?: Settings }): Settings | undefined {
  return settings.refresh;
}

/** Addresses to which only browsers and callers send requests, never this broker. */
const neverRequested = new Set([
  "authorization.url",
  "authorization.issuer",
  "authorization.manual_redirect_uri",
  "api.base_url",
]);
/** Addresses that this broker requests only for discovery: where the definition takes its endpoints from metadata. */
const requestedOnlyForDiscovery = new Set(["issuer", "discovery.metadata_url"]);

/**
 * The URLs of a definition that the egress rules always refuse, whatever the inputs are and whatever a name resolves to. `shared`:
 * PROVIDER_NETWORKS, for definitions that name no networks.
 */
export function checkEgress(definition: ProviderDefinition, shared: net.BlockList | null): Problem[] {
  const { file, isDiscovered } = definition;
  const networks = definition.networks === null ? shared : parseNetworks(definition.networks.join(","));
  const isRequested = (place: string) =>
    !neverRequested.has(place) && (isDiscovered || !requestedOnlyForDiscovery.has(place));
  return templatePlaces(file)
    .filter(({ path, isUrl }) => isUrl && isRequested(path.join(".")))
    .flatMap(({ path, text }) => {
      const urls = samplesOf(file, text).map((sample) => URL.parse(sample));
      const fault = urls.map((url) => url && whyNeverReached(url, networks)).find((why) => why !== null);
      return fault === undefined ? [] : [{ path, text: fault }];
    });
}

/** A URL for each value that the file allows in its host. `x` stands for a value that may be anything. */
function samplesOf(file: ProviderFile, text: string): string[] {
  const { authority, rest } = splitUrl(text);
  const [name] = templateNames(authority);
  if (name === undefined) return [authority + rest.replaceAll(/\{[^{}]*\}/g, "x")];
  const allowed = rulesOfValue(file, name).flatMap((rule) => rule.enum ?? []);
  const values = allowed.length > 0 ? allowed : ["x"];
  return values.flatMap((value) => samplesOf(file, authority.replaceAll(`{${name}}`, value) + rest));
}

const deadGrantPath = ["refresh", "dead_grant"] as const;

/** How the broker reads an answer to a refresh; null: as a grant. */
export function readingOf(definition: ProviderDefinition, answer: StatedAnswer): FailureClass | null {
  const isText = typeof answer.body === "string";
  const response = {
    status: answer.status,
    headers: { "content-type": isText ? "text/plain" : "application/json" },
    body: Buffer.from(typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body)),
  };
  const read = processTokenResponse({ definition, response, secrets: [] });
  return read.kind === "granted" ? null : read.failure.class;
}

/**
 * The file's own rules must classify each answer that it lists in `dead_grant` as `refused_for_good`. A built-in file must list one if a
 * refresh token may be dead. For an inherited statement there is only a hint: the file's own `errors` replace those of the
 * file that it extends.
 */
export function checkDeadGrant(
  definition: ProviderDefinition,
  { own, builtin }: { own: ProviderFile; builtin: boolean },
): Problem[] {
  const { deadGrant } = definition.refresh;
  if (builtin && deadGrant === null && mayBeDead(definition)) {
    return [
      {
        path: deadGrantPath,
        text: "is missing: list each answer (`status`, `body`) that means that a refresh token is over",
      },
    ];
  }
  return builtin || own.refresh?.dead_grant !== undefined ? deadAnswersReadOtherwise(definition) : [];
}

/** Hints for a valid file, in plain words. */
export function hintsOn(definition: ProviderDefinition): string[] {
  if (!definition.usable) {
    return [
      "token.url: is not stated, and no issuer either, so no connection can use this file: it is there for others to extend",
    ];
  }
  if (!mayBeDead(definition)) return [];
  if (definition.refresh.deadGrant !== null) {
    return deadAnswersReadOtherwise(definition).map(({ path: where, text }) => `${where.join(".")}: ${text}`);
  }
  return [
    'refresh.dead_grant: is not stated, so {"error":"invalid_grant"} ends a connection, and nearly any other refusal is tried again; ' +
      "list what this provider answers to a refresh token that is over (docs/write-a-provider.md)",
  ];
}

/** Whether there is a refresh token that the provider may refuse. */
function mayBeDead({ usable, refreshes }: ProviderDefinition): boolean {
  return usable && Object.keys(refreshes).length > 0;
}

function deadAnswersReadOtherwise(definition: ProviderDefinition): Problem[] {
  return (definition.refresh.deadGrant ?? []).flatMap((answer, index) => {
    const reading = readingOf(definition, answer);
    if (reading === "refused_for_good") return [];
    const text = `is read as ${readings[reading ?? "granted"]}, not as the end of the grant: add a rule to \`errors\` that matches it, with \`means: needs_reauthorization\``;
    return [{ path: [...deadGrantPath, String(index)], text }];
  });
}

const readings: Record<Exclude<FailureClass, "refused_for_good"> | "granted", string> = {
  granted: "a new token",
  refused_for_now: "a refusal for now",
  client_rejected: "a refused client",
  not_sent: "a request that was not sent",
  unknown: "an answer that says nothing",
};
