import type {
  ApiDefinition,
  ClientAuth,
  ConnectionGrant,
  Lookup,
  ProviderDefinition,
  ProviderRequest,
} from "../format/definition.ts";
import { placedLookups, type ProviderFile } from "../format/file.ts";
import { lookupsOf, requiredCaptures } from "../format/requirements.ts";
import type { CaptureSettings } from "../format/settings.ts";
import { fitsCapture, templateNames } from "../format/template.ts";
import { isSecretParameter, isSecretTemplate } from "./check-templates.ts";
import type { Problem } from "./yaml-source.ts";

type PlacedRequest = { path: string[]; request: ProviderRequest };

/** Checks every request of a definition: it has an address, without a secret in it. */
export function checkRequests(definition: ProviderDefinition): Problem[] {
  const requests = [...exchanges(definition), ...sideRequests(definition)];
  const problems = [
    ...requests.flatMap((placed) => checkRequest(definition, placed)),
    ...checkVerifier(definition),
    ...checkParams(definition),
    ...checkLookupOrder(definition),
  ];
  // Grant types with the same refresh have the same problem. It is reported once.
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
    const special = Object.entries(grants ?? {}).some(([name, settings]) => name === grant && "refresh" in settings);
    return { path: special ? ["token", "grants", grant, "refresh"] : ["token", "grants", "refresh_token"], request };
  });
  return [...first, ...later];
}

function sideRequests(definition: ProviderDefinition): PlacedRequest[] {
  const { authorization, device, revocation, introspection, furtherTokens } = definition;
  const all: [string[], ProviderRequest | null | undefined][] = [
    [["authorization", "pushed"], authorization?.pushed],
    [["device"], device],
    [["revocation"], revocation],
    [["introspection"], introspection],
    ...furtherTokens.map(({ exchange }, index): [string[], ProviderRequest | null] => [
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

/** A missing address must come from the issuer's metadata. */
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

/** A URL must not contain secrets, since servers log URLs. */
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

/** A template of a lookup, its path, and the advice if its value does not exist yet. */
type Need = { path: string[]; template: string; advice: string };

/** Lookups that follow one another, and where their list stands in the file. */
type PlacedList = { path: string[]; lookups: readonly Lookup[] };

/** Every list of lookups: the one at the top of the file, and those of single grants. */
function placedLists({ lookups, lookupsByGrant }: ProviderDefinition): PlacedList[] {
  const special = Object.entries(lookupsByGrant).map(([grant, own]) => ({
    path: ["token", "grants", grant, "after_connect"],
    lookups: own,
  }));
  return [{ path: ["after_connect"], lookups }, ...special];
}

/** A lookup can use values that earlier lookups of its list have captured. Other requests of a grant type can use those of its list. */
function checkLookupOrder(definition: ProviderDefinition): Problem[] {
  const lists = placedLists(definition);
  // A name that no lookup captures has been reported already.
  const known = new Set(lists.flatMap(({ lookups }) => namesCaptured(lookups)));
  return [
    ...lists.flatMap((list) => checkList(list, definition.api, known)),
    ...definition.grants.flatMap((grant) => checkGrant(definition, grant, known)),
  ];
}

function checkList({ path: place, lookups }: PlacedList, api: ApiDefinition, known: ReadonlySet<string>): Problem[] {
  const all = namesCaptured(lookups);
  return lookups.flatMap((lookup, index) => {
    const before = namesCaptured(lookups.slice(0, index));
    return needsOf(lookup, api, [...place, String(index)]).flatMap(({ path, template, advice }) => {
      const names = templateNames(template).filter((name) => known.has(name) && !before.includes(name));
      return names.map((name) => {
        const why = all.includes(name)
          ? "is captured by this lookup or a later one, and is not there yet"
          : "is captured for another grant only, and is not there for this one";
        return { path, text: `{${name}} ${why}${advice}` };
      });
    });
  });
}

/** Finds values that a grant type's requests need and only another grant type's lookups capture: they would always be missing. */
function checkGrant(definition: ProviderDefinition, grant: ConnectionGrant, known: ReadonlySet<string>): Problem[] {
  const own = definition.lookupsByGrant[grant];
  const captured = namesCaptured(lookupsOf(definition, grant));
  const missing = requiredCaptures(definition, grant).filter((name) => known.has(name) && !captured.includes(name));
  const path = own ? ["token", "grants", grant, "after_connect"] : ["after_connect"];
  return missing.map((name) => ({ path, text: `no lookup here captures {${name}}, which requests of ${grant} need` }));
}

function namesCaptured(lookups: readonly Lookup[]): string[] {
  return lookups.flatMap(({ capture }) => Object.keys(capture).map((name) => `account.${name}`));
}

function needsOf({ request, value, select }: Lookup, api: ApiDefinition, path: string[]): Need[] {
  const asked = [...path, "request"];
  return [
    ...(request === null ? [] : requestNeeds(request, api, asked)),
    { path: [...path, "value"], template: value ?? "", advice: "" },
    { path: [...path, "select", "equals"], template: select?.equals ?? "", advice: "" },
  ];
}

function requestNeeds(request: NonNullable<Lookup["request"]>, api: ApiDefinition, path: string[]): Need[] {
  const { url, headers, fields, clientAuth } = request;
  return [
    { path: [...path, "url"], template: url, advice: "" },
    ...Object.entries(fields).map(([name, template]) => ({ path: [...path, "fields", name], template, advice: "" })),
    ...Object.entries(headers).map(([name, template]) => ({
      path: [...path, "headers", name],
      template,
      advice:
        api.headers[name] === template
          ? `; \`headers: { ${name}: null }\` here leaves this one of api.headers out`
          : "",
    })),
    {
      path,
      template: clientAuth === null ? api.authorization.value : templateOf(clientAuth),
      advice: clientAuth === null ? ": it stands in `api.authorization`" : "",
    },
  ];
}

/** What authenticates the client, where that is a template. */
function templateOf(clientAuth: ClientAuth): string {
  if (clientAuth.kind === "header") return clientAuth.value;
  return clientAuth.kind === "basic" ? clientAuth.pair : "";
}

type ResponseSettings = NonNullable<ProviderFile["response"]>;
type FurtherTokenSettings = NonNullable<ResponseSettings["extra_tokens"]>[number];
type LifetimeSettings = NonNullable<ResponseSettings["expires"]>;

/** Settings of answers and lookups that need or exclude each other. */
export function checkAnswers(file: ProviderFile): Problem[] {
  return [
    ...checkLifetimes(file),
    ...checkCaptures(file),
    ...checkExtraTokens(file),
    ...checkLookups(file),
    ...checkParallelSets(file),
  ];
}

type PlacedLifetime = [string[], LifetimeSettings | undefined];

function furtherLifetimes(further: FurtherTokenSettings, index: string): PlacedLifetime[] {
  const path = ["response", "extra_tokens", index];
  return [
    [[...path, "expires"], further.expires],
    [[...path, "refresh_expires"], further.refresh_expires],
    [[...path, "refreshed", "expires"], further.refreshed?.expires],
    [[...path, "refreshed", "refresh_expires"], further.refreshed?.refresh_expires],
  ];
}

function checkLifetimes({ response = {}, introspection, issuer }: ProviderFile): Problem[] {
  const lifetimes: PlacedLifetime[] = [
    [["response", "expires"], response.expires],
    [["response", "refresh_expires"], response.refresh_expires],
    ...(response.extra_tokens ?? []).flatMap((further, index) => furtherLifetimes(further, String(index))),
    [["introspection", "expires"], introspection?.expires],
  ];
  return lifetimes.flatMap(([path, lifetime]) => {
    if (lifetime === undefined) return [];
    if (lifetime.from === "fixed" && lifetime.fallback === undefined) {
      return [{ path, text: "`from: fixed` needs the life in `fallback`" }];
    }
    if (lifetime.unit === "iso" && lifetime.from !== "expires_at") {
      return [{ path, text: "`unit: iso` goes with `from: expires_at`" }];
    }
    const canAsk = path[0] === "response" && path[1] === "expires" && (introspection || issuer !== undefined);
    return lifetime.from === "introspect" && !canAsk
      ? [{ path, text: "`from: introspect` is for the access token, and needs `introspection`" }]
      : [];
  });
}

function checkCaptures(file: ProviderFile): Problem[] {
  const placed: [string[], CaptureSettings | undefined][] = [
    [["authorization", "callback", "capture"], file.authorization?.callback?.capture],
    [["response", "capture"], file.response?.capture],
    ...placedLookups(file).map(({ path, lookup }): [string[], CaptureSettings | undefined] => [
      [...path, "capture"],
      lookup.capture,
    ]),
  ];
  return placed.flatMap(([path, captures]) =>
    Object.entries(captures ?? {}).flatMap(([name, capture]) => checkCapture(file, [...path, name], capture)),
  );
}

function checkCapture({ inputs = {} }: ProviderFile, path: string[], capture: CaptureSettings[string]): Problem[] {
  if (typeof capture === "string") return [];
  const { pattern, enum: allowed, default: standIn } = capture;
  if (pattern === undefined && allowed === undefined) {
    return [{ path, text: "needs a `pattern` or an `enum`; without either, write the place alone" }];
  }
  if (pattern !== undefined && allowed !== undefined) return [{ path, text: "either `pattern` or `enum`, not both" }];
  if (standIn === undefined) return [];
  const place = [...path, "default"];
  const names = templateNames(standIn).filter((name) => name.startsWith("inputs."));
  const free = names.find((name) => inputs[name.slice(7)]?.enum === undefined);
  if (free !== undefined) {
    return [{ path: place, text: `{${free}} needs an \`enum\` of its own, so that every default is known here` }];
  }
  const values = names.reduce(
    (texts, name) =>
      texts.flatMap((text) => (inputs[name.slice(7)]?.enum ?? []).map((value) => text.replaceAll(`{${name}}`, value))),
    [standIn],
  );
  const rule = { pattern: pattern ?? null, allowed: allowed ?? null };
  const odd = values.find((value) => !value.includes("{") && !fitsCapture(value, rule));
  return odd === undefined
    ? []
    : [{ path: place, text: `${odd} ${allowed ? "is not in its `enum`" : "does not fit its `pattern`"}` }];
}

function checkExtraTokens({ response = {} }: ProviderFile): Problem[] {
  const furtherTokens = response.extra_tokens ?? [];
  return furtherTokens.flatMap((further, index) => {
    const path = ["response", "extra_tokens", String(index)];
    const problems: Problem[] = [];
    if (furtherTokens.findIndex(({ name }) => name === further.name) < index) {
      problems.push({ path: [...path, "name"], text: `\`${further.name}\` is the name of another further token too` });
    }
    if (!further.exchange && further.access_token === undefined) {
      problems.push({ path, text: "a further token needs the `access_token` it is at, or an `exchange`" });
    }
    return problems;
  });
}

function checkLookups(file: ProviderFile): Problem[] {
  return placedLookups(file).flatMap(({ path, lookup }) => {
    const { request, value, pointer, label, select, capture } = lookup;
    if ((request === undefined) === (value === undefined)) {
      return [{ path, text: "a lookup has either a `request` or a `value`" }];
    }
    if (request === undefined && (pointer ?? label ?? select ?? capture) !== undefined) {
      return [{ path, text: "`pointer`, `label`, `select` and `capture` read the answer of a `request`" }];
    }
    return select !== undefined && (select.where === undefined) !== (select.equals === undefined)
      ? [{ path: [...path, "select"], text: "`where` goes with `equals`" }]
      : [];
  });
}

function checkParallelSets({ parallel_sets: sets, inputs = {} }: ProviderFile): Problem[] {
  if (typeof sets !== "object") return [];
  const path = ["parallel_sets", "single_per"];
  return sets.single_per.flatMap((key) => {
    if (!key.startsWith("inputs.")) return [];
    const name = key.slice(7);
    if (!Object.hasOwn(inputs, name)) return [{ path, text: `\`${key}\` is not declared in \`inputs\`` }];
    return inputs[name]?.secret ? [{ path, text: `\`${key}\` is a secret, and secrets are not compared` }] : [];
  });
}
