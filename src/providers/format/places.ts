import { type TokenGrant } from "../../grant-types.ts";
import type { ProviderDefinition } from "./definition.ts";
import { placedLookups, type ProviderFile } from "./file.ts";
import { pinnedDomain } from "./hosts.ts";
import type { CaptureSettings } from "./settings.ts";
import { splitUrl, templateNames } from "./template.ts";

type Path = readonly string[];
type Templates = Readonly<Record<string, string | null>> | undefined;
type Settings = {
  url?: string;
  headers?: Record<string, string | null>;
  fields?: Record<string, string | null>;
  assertion?: { audience?: string };
  client_auth?: string | { header: string; value?: string } | { basic: string };
};

/** A text of a file that may hold templates, and the templates that are allowed there. */
export type Place = {
  path: Path;
  text: string;
  roots: readonly string[];
  isUrl: boolean;
  /** Browsers or callers see it, so it must hold no secret. */
  isShown?: boolean;
};

const captured = ["callback", "response", "account"];
const common = ["client.id", "inputs", ...captured];
const withSecret = [...common, "client.secret"];
const anyField = [...withSecret, "redirect_uri", "scope"];
/** The templates that are allowed in the fields of each request: values that exist when it is sent. */
const fieldRoots: Record<Exclude<TokenGrant, "token_exchange">, readonly string[]> = {
  authorization_code: [...anyField, "code", "code_verifier"],
  client_credentials: [...anyField, "credentials"],
  password: [...anyField, "credentials"],
  device_code: [...anyField, "device_code"],
  refresh_token: [...anyField, "refresh_token", "access_token"],
};
const namedToken = ["token", "token_type_hint", "access_token", "refresh_token"];

/** Every text of a file that may hold templates. */
export function templatePlaces(file: ProviderFile): Place[] {
  return [
    ...authorizationPlaces(file),
    ...tokenPlaces(file),
    ...sidePlaces(file),
    ...apiPlaces(file),
    ...lookupPlaces(file),
  ];
}

function authorizationPlaces({ authorization = {}, issuer, discovery }: ProviderFile): Place[] {
  const path = ["authorization"];
  return [
    ...urlPlace(["issuer"], issuer, ["inputs"]),
    ...urlPlace(["discovery", "metadata_url"], discovery?.metadata_url, ["inputs"]),
    ...urlPlace([...path, "url"], authorization.url, ["inputs"]),
    ...urlPlace([...path, "issuer"], authorization.issuer, ["inputs"]),
    ...urlPlace([...path, "manual_redirect_uri"], authorization.manual_redirect_uri, []),
    ...shown(mapPlaces([...path, "params"], authorization.params, ["client.id", "inputs", "redirect_uri", "scope"])),
    ...Object.entries(authorization.params_with_scope ?? {}).flatMap(([scope, params]) =>
      mapPlaces([...path, "params_with_scope", scope], params, []),
    ),
    ...defaultPlaces([...path, "callback", "capture"], authorization.callback?.capture),
    ...settingPlaces([...path, "pushed"], authorization.pushed, { all: ["client.id", "inputs"], fields: [] }),
  ];
}

function tokenPlaces({ token = {}, response = {} }: ProviderFile): Place[] {
  const places = settingPlaces(["token"], token, { all: common, fields: [] });
  places.push(...defaultPlaces(["response", "capture"], response.capture));
  for (const [name, settings] of Object.entries(token.grants ?? {})) {
    const grant = name as keyof typeof fieldRoots;
    const path = ["token", "grants", grant];
    places.push(...settingPlaces(path, settings, { all: common, fields: fieldRoots[grant] }));
    if (!("refresh" in settings)) continue;
    const fields = fieldRoots.refresh_token;
    places.push(...settingPlaces([...path, "refresh"], settings.refresh, { all: common, fields }));
  }
  for (const [index, further] of (response.extra_tokens ?? []).entries()) {
    const path = ["response", "extra_tokens", String(index), "exchange"];
    places.push(...settingPlaces(path, further.exchange, { all: common, fields: [...anyField, "access_token"] }));
  }
  return places;
}

function sidePlaces({ device, revocation, introspection }: ProviderFile): Place[] {
  const ofToken = { all: [...common, "access_token"], fields: [...withSecret, ...namedToken] };
  return [
    ...settingPlaces(["device"], device, { all: ["client.id", "inputs"], fields: ["client.id", "inputs", "scope"] }),
    ...settingPlaces(["revocation"], revocation, ofToken),
    ...settingPlaces(["introspection"], introspection, ofToken),
  ];
}

function apiPlaces({ api = {} }: ProviderFile): Place[] {
  const roots = [...common, "access_token"];
  const { authorization } = api;
  const value = typeof authorization === "string" ? authorization : authorization?.value;
  return [
    ...urlPlace(["api", "base_url"], api.base_url, common),
    ...shown(textPlace(["api", "authorization"], value, roots)),
    ...shown(mapPlaces(["api", "headers"], api.headers, roots)),
  ];
}

function lookupPlaces(file: ProviderFile): Place[] {
  const roots = [...common, "access_token"];
  return placedLookups(file).flatMap(({ path, lookup }) =>
    [
      settingPlaces([...path, "request"], lookup.request, { all: common, fields: roots }),
      shown(textPlace([...path, "value"], lookup.value, common)),
      textPlace([...path, "select", "equals"], lookup.select?.equals, common),
    ].flat(),
  );
}

/** URL, headers and fields of one request. A secret may stand in headers and fields, never in the address. */
function settingPlaces(
  path: Path,
  settings: Settings | null | undefined,
  roots: { all: readonly string[]; fields: readonly string[] },
): Place[] {
  if (!settings) return [];
  const urlRoots = roots.all.filter((root) => root !== "access_token");
  const auth = typeof settings.client_auth === "object" ? Object.values(settings.client_auth).at(-1) : undefined;
  return [
    ...urlPlace([...path, "url"], settings.url, urlRoots),
    ...textPlace([...path, "assertion", "audience"], settings.assertion?.audience, urlRoots),
    ...mapPlaces([...path, "headers"], settings.headers, [...roots.all, "client.secret"]),
    ...textPlace([...path, "client_auth"], auth, [...roots.all, "client.secret"]),
    ...mapPlaces([...path, "fields"], settings.fields, roots.fields),
  ];
}

/** The default of a value that was not captured. It may use only inputs, since those exist before everything else. */
function defaultPlaces(path: Path, captures: CaptureSettings | undefined): Place[] {
  return Object.entries(captures ?? {}).flatMap(([name, capture]) =>
    textPlace([...path, name, "default"], typeof capture === "string" ? undefined : capture.default, ["inputs"]),
  );
}

function shown(places: Place[]): Place[] {
  return places.map((place) => ({ ...place, isShown: true }));
}

function urlPlace(path: Path, text: string | null | undefined, roots: readonly string[]): Place[] {
  return typeof text === "string" ? [{ path, text, roots, isUrl: true }] : [];
}

function textPlace(path: Path, text: string | null | undefined, roots: readonly string[]): Place[] {
  return typeof text === "string" ? [{ path, text, roots, isUrl: false }] : [];
}

function mapPlaces(path: Path, map: Templates, roots: readonly string[]): Place[] {
  return Object.entries(map ?? {}).flatMap(([key, text]) => textPlace([...path, key], text, roots));
}

/**
 * What the file says of a value that templates name, such as `inputs.shop` or `response.host`: its pattern, or what is allowed.
 * Several lookups may capture a value of one name: there is an entry for each.
 */
export function rulesOfValue(file: ProviderFile, name: string): { pattern?: string; enum?: string[] }[] {
  const [root = "", key = ""] = name.split(".");
  const known = isDeclaredRoot(root) ? rulesIn(file, root, key) : [];
  return known.map((rule) => (typeof rule === "object" ? rule : {}));
}

type DeclaredRoot = "inputs" | "callback" | "response" | "account";

export function isDeclaredRoot(root: string): root is DeclaredRoot {
  return ["inputs", "callback", "response", "account"].includes(root);
}

/** A text is a capture's place alone, which says nothing of the value. */
export type Rule = string | { pattern?: string; enum?: string[]; default?: string };
type Declared = Readonly<Record<string, Rule>> | undefined;

export function rulesIn(file: ProviderFile, root: DeclaredRoot, key: string): Rule[] {
  const declared: Record<DeclaredRoot, Declared[]> = {
    inputs: [file.inputs],
    callback: [file.authorization?.callback?.capture],
    response: [file.response?.capture],
    account: placedLookups(file).map(({ lookup }) => lookup.capture),
  };
  return declared[root].flatMap((rules) => (rules && Object.hasOwn(rules, key) ? (rules[key] ?? []) : []));
}

/**
 * Whether the definition's file fixes the host of an address: the host stands there, or a pattern keeps it within a registrable domain. Any
 * other host, from an input, from metadata or from an answer, may have been chosen by somebody who cannot reach it. So callers must not
 * learn what is there.
 */
export function isUsualHost({ file }: Pick<ProviderDefinition, "file">, address: string): boolean {
  const url = URL.parse(address);
  if (url === null) return false;
  const authorities = templatePlaces(file).flatMap(({ isUrl, text }) => (isUrl ? splitUrl(text).authority : []));
  return authorities.some((authority) => isFixedBy(file, authority, url));
}

function isFixedBy(file: ProviderFile, authority: string, url: URL): boolean {
  const [name, ...more] = templateNames(authority);
  if (name === undefined) return URL.parse(authority)?.host === url.host;
  if (more.length > 0) return false;
  return rulesOfValue(file, name).some((input) => {
    if (input.enum) {
      return input.enum.some((value) => URL.parse(authority.replace(`{${name}}`, value))?.host === url.host);
    }
    const domain = pinnedDomain({ authority, name, input });
    const sample = domain === null ? null : URL.parse(`https://x${domain}`);
    return sample !== null && url.hostname.endsWith(sample.hostname.slice(1)) && url.port === sample.port;
  });
}
