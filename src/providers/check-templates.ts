import type { ProviderFile } from "./provider-file.ts";
import { isAnchored } from "./host-position.ts";
import { hasLooseBraces, splitUrl, templateNames } from "./template.ts";
import type { Problem } from "./yaml-source.ts";

type Path = readonly string[];
type Place = { path: Path; text: string; roots: readonly string[] };

const common = ["client.id", "inputs", "callback", "response"];
const anyField = [...common, "client.secret", "redirect_uri", "scope"];
/** What may stand in the fields of each request: nothing that is not there yet when it is sent. */
const fieldRoots: Record<string, readonly string[]> = {
  authorization_code: [...anyField, "code", "code_verifier"],
  client_credentials: [...anyField, "credentials"],
  password: [...anyField, "credentials"],
  refresh_token: [...anyField, "refresh_token", "access_token"],
};

/** Every text of a file that may hold templates: their names, and those in a host position. */
export function checkTemplates(file: ProviderFile): Problem[] {
  const urls = urlPlaces(file);
  return [
    ...[...urls, ...valuePlaces(file)].flatMap((place) => checkNames(file, place)),
    ...urls.flatMap((place) => checkUrl(file, place)),
  ];
}

function urlPlaces({ authorization, token, api, revocation }: ProviderFile): Place[] {
  const grants = Object.entries(token?.grants ?? {});
  const urls: [Path, string | null | undefined, string[]][] = [
    [["authorization", "url"], authorization?.url, ["inputs"]],
    [["authorization", "issuer"], authorization?.issuer, ["inputs"]],
    [["authorization", "manual_redirect_uri"], authorization?.manual_redirect_uri, []],
    [["token", "url"], token?.url, common],
    [["api", "base_url"], api?.base_url, common],
    [["revocation", "url"], revocation?.url, common],
  ];
  for (const [grant, knobs] of grants) {
    urls.push([["token", "grants", grant, "url"], knobs.url, common]);
    if ("refresh" in knobs) urls.push([["token", "grants", grant, "refresh", "url"], knobs.refresh?.url, common]);
  }
  return urls.flatMap(([path, text, roots]) => (typeof text === "string" ? [{ path, text, roots }] : []));
}

function valuePlaces({ authorization, token, api }: ProviderFile): Place[] {
  const header = [...common, "client.secret"];
  const places = [
    ...mapPlaces(["authorization", "params"], authorization?.params, ["client.id", "inputs", "redirect_uri", "scope"]),
    ...mapPlaces(["token", "headers"], token?.headers, header),
    ...mapPlaces(["api", "headers"], api?.headers, [...common, "access_token"]),
  ];
  const value = typeof api?.authorization === "string" ? api.authorization : api?.authorization?.value;
  if (value !== undefined) {
    places.push({ path: ["api", "authorization"], text: value, roots: [...common, "access_token"] });
  }
  for (const [grant, knobs] of Object.entries(token?.grants ?? {})) {
    const path = ["token", "grants", grant];
    places.push(...mapPlaces([...path, "headers"], knobs.headers, header));
    places.push(...mapPlaces([...path, "fields"], knobs.fields, fieldRoots[grant] ?? []));
    if (!("refresh" in knobs)) continue;
    places.push(...mapPlaces([...path, "refresh", "headers"], knobs.refresh?.headers, header));
    places.push(...mapPlaces([...path, "refresh", "fields"], knobs.refresh?.fields, fieldRoots["refresh_token"] ?? []));
  }
  return places;
}

function mapPlaces(
  path: Path,
  map: Readonly<Record<string, string | null>> | undefined,
  roots: readonly string[],
): Place[] {
  return Object.entries(map ?? {}).flatMap(([key, text]) =>
    text === null ? [] : [{ path: [...path, key], text, roots }],
  );
}

function checkNames(file: ProviderFile, { path, text, roots }: Place): Problem[] {
  const problems = templateNames(text).flatMap((name) => {
    const fault = nameFault(file, name, roots);
    return fault === null ? [] : [{ path, text: `{${name}} ${fault}` }];
  });
  if (hasLooseBraces(text)) problems.push({ path, text: "has a brace outside a template such as {client.id}" });
  return problems;
}

function nameFault(file: ProviderFile, name: string, roots: readonly string[]): string | null {
  const [root = "", key] = name.split(/\.(.*)/s, 2);
  if (!roots.includes(name) && !(key !== undefined && roots.includes(root))) {
    const known = roots.map((allowed) => `{${mapRoots.has(allowed) ? `${allowed}.X` : allowed}}`);
    return `is not known here; ${known.length > 0 ? `allowed: ${known.join(", ")}` : "no template is allowed"}`;
  }
  const declared = {
    inputs: file.inputs,
    callback: file.authorization?.callback?.capture,
    response: file.response?.capture,
  };
  if (root !== "inputs" && root !== "callback" && root !== "response") return null;
  if (key !== undefined && Object.hasOwn(declared[root] ?? {}, key)) return null;
  return {
    inputs: "is not declared in `inputs`",
    callback: "is not in `authorization.callback.capture`",
    response: "is not in `response.capture`",
  }[root];
}

const mapRoots = new Set(["inputs", "callback", "response", "credentials"]);

function checkUrl(file: ProviderFile, { path, text }: Place): Problem[] {
  const { authority } = splitUrl(text);
  const problems = templateNames(authority).flatMap((name) => {
    const fault = hostFault(file, name);
    return fault === null ? [] : [{ path, text: `{${name}} stands where the host is decided: ${fault}` }];
  });
  if (problems.length > 0) return problems;
  if (text.startsWith("{") && !startsWithScheme(file, text)) {
    return [
      { path, text: "the input that it starts with must begin with https:// (a `pattern` of the form ^https://…$)" },
    ];
  }
  const sample = text.startsWith("{") ? `https://host${text.replace(/^\{[^{}]*\}/, "")}` : text;
  const url = URL.parse(sample.replaceAll(/\{[^{}]*\}/g, "x"));
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:")) return [{ path, text: "must be an https URL" }];
  if (url.username !== "" || url.password !== "") return [{ path, text: "must not hold a user name or password" }];
  return url.hash === "" ? [] : [{ path, text: "must not have a fragment (#…)" }];
}

function startsWithScheme({ inputs = {} }: ProviderFile, text: string): boolean {
  const input = inputs[/^\{inputs\.(\w+)\}/.exec(text)?.[1] ?? ""];
  return input?.enum
    ? input.enum.every((value) => /^https?:\/\//.test(value))
    : /^\^https\??:/.test(input?.pattern ?? "");
}

function hostFault(file: ProviderFile, name: string): string | null {
  const input = name.startsWith("inputs.") ? file.inputs?.[name.slice(7)] : undefined;
  if (!input) return "only an input may stand there";
  if (input.enum) return null;
  if (input.pattern === undefined) return "its input needs a `pattern` of the form ^…$, or an `enum`";
  return isAnchored(input.pattern)
    ? null
    : "the `pattern` of its input must be anchored: ^…$, with any alternatives in parentheses";
}
