import type { ProviderFile } from "../format/file.ts";
import { domainIsPinned, hostListFault, isAnchored } from "../format/hosts.ts";
import { isDeclaredRoot, type Place, type Rule, rulesIn, rulesOfValue, templatePlaces } from "../format/places.ts";
import { hasLooseBraces, splitUrl, templateNames } from "../format/template.ts";
import type { Problem } from "./yaml-source.ts";

/** Every text of a file that may hold templates: their names, and those in a host position. */
export function checkTemplates(file: ProviderFile): Problem[] {
  const places = templatePlaces(file);
  return [
    ...places.flatMap((place) => checkNames(file, place)),
    ...places.flatMap((place) => checkShown(file, place)),
    ...places.filter(({ isUrl }) => isUrl).flatMap((place) => checkUrl(file, place)),
  ];
}

/** The URLs of a file that would carry secrets over a network in plain text. */
export function checkPlainHttp(file: ProviderFile): Problem[] {
  const isLocal = /^http:\/\/(localhost|127(\.\d{1,3}){3}|\[::1\])(?=[:/?#]|$)/i;
  return templatePlaces(file)
    .filter(({ isUrl, text }) => isUrl && /^http:/i.test(text) && !isLocal.test(text))
    .map(({ path }) => ({ path, text: "must be an https URL: http is for this machine alone" }));
}

const secretParameter = /^(client_secret|client_assertion|password|refresh_token|access_token)$/i;
const secretTemplate =
  /^(client\.secret|code|code_verifier|device_code|token|refresh_token|access_token|credentials\..*)$/;
const neverInUrl = "a secret never stands in a URL; use `client_auth`, `headers` or `fields`";

/** A parameter of this name holds a secret, whatever its value. */
export function isSecretParameter(name: string): boolean {
  return secretParameter.test(name);
}

/** Whether the value of this template is a secret. */
export function isSecretTemplate(name: string): boolean {
  return secretTemplate.test(name);
}

function checkNames(file: ProviderFile, { path, text, roots, isUrl }: Place): Problem[] {
  const problems = templateNames(text).flatMap((name) => {
    const fault = isUrl && isSecretTemplate(name) ? `is refused: ${neverInUrl}` : nameFault(file, name, roots);
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
  if (!isDeclaredRoot(root) || (key !== undefined && rulesIn(file, root, key).length > 0)) return null;
  return {
    inputs: "is not declared in `inputs`",
    callback: "is not in `authorization.callback.capture`",
    response: "is not in `response.capture`",
    account: "is not in the `capture` of any `after_connect`",
  }[root];
}

const mapRoots = new Set(["inputs", "callback", "response", "account", "credentials"]);

function checkShown({ inputs = {} }: ProviderFile, { path, text, isUrl, isShown }: Place): Problem[] {
  if (!isUrl && !isShown) return [];
  const secret = templateNames(text).find((name) => inputs[name.replace(/^inputs\./, "")]?.secret === true);
  const why = isUrl ? "secrets never stand in an address" : "what stands here is shown to browsers or callers";
  return secret === undefined ? [] : [{ path, text: `{${secret}} is a secret, and ${why}` }];
}

function checkUrl(file: ProviderFile, { path, text }: Place): Problem[] {
  if (path.at(-1) === "manual_redirect_uri" && /^urn:[!-~]+$/.test(text)) return []; // names no page of the provider's
  const { authority } = splitUrl(text);
  const problems = templateNames(authority).flatMap((name) => {
    const fault = hostFault(file, authority, name);
    return fault === null ? [] : [{ path, text: `{${name}} stands where the host is decided: ${fault}` }];
  });
  if (problems.length > 0) return problems;
  const optional = templateNames(text).find((name) => file.inputs?.[name.replace(/^inputs\./, "")]?.optional === true);
  if (optional !== undefined) {
    return [{ path, text: `{${optional}} is optional, and an address needs all of its parts` }];
  }
  if (text.startsWith("{") && !startsWithScheme(file, text)) {
    return [
      { path, text: "the input that it starts with must begin with https:// (a `pattern` of the form ^https://…$)" },
    ];
  }
  const sample = text.startsWith("{") ? `https://host${text.replace(/^\{[^{}]*\}/, "")}` : text;
  const url = URL.parse(sample.replaceAll(/\{[^{}]*\}/g, "x"));
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:")) return [{ path, text: "must be an https URL" }];
  if (url.username !== "" || url.password !== "") return [{ path, text: "must not hold a user name or password" }];
  const secret = [...url.searchParams.keys()].find(isSecretParameter);
  if (secret !== undefined) return [{ path, text: `\`${secret}\` names a secret, and ${neverInUrl}` }];
  return url.hash === "" ? [] : [{ path, text: "must not have a fragment (#…)" }];
}

function startsWithScheme(file: ProviderFile, text: string): boolean {
  const rules = rulesOfValue(file, /^\{([^{}]*)\}/.exec(text)?.[1] ?? "");
  const saysScheme = ({ enum: allowed, pattern = "" }: (typeof rules)[number]) =>
    allowed ? allowed.every((value) => /^https?:\/\//.test(value)) : /^\^https\??:/.test(pattern);
  return rules.length > 0 && rules.every(saysScheme);
}

/** An operator sets inputs, possibly on the client. A value from a callback or an answer must stay within one domain. */
function hostFault(file: ProviderFile, authority: string, name: string): string | null {
  const [root = "", key = ""] = name.split(".");
  const rules = isDeclaredRoot(root) ? rulesIn(file, root, key) : [];
  if (rules.length === 0) return "only an input, or a capture with a `pattern`, may stand there";
  return rules.map((rule) => hostRuleFault({ authority, name }, root, rule)).find((fault) => fault !== null) ?? null;
}

function hostRuleFault(
  { authority, name }: { authority: string; name: string },
  root: string,
  known: Rule,
): string | null {
  if (typeof known === "string" || (root !== "inputs" && !known.enum && known.pattern === undefined)) {
    return "this capture needs a `pattern` of the form ^…$ that stays within one domain, or an `enum` of whole hosts";
  }
  if (known.enum) return root === "inputs" ? null : hostListFault({ authority, name }, known.enum);
  if (known.pattern === undefined) return "its input needs a `pattern` of the form ^…$, or an `enum`";
  if (!isAnchored(known.pattern)) {
    return "the `pattern` of its input must be anchored: ^…$, with any alternatives in parentheses";
  }
  if (root === "inputs" || domainIsPinned({ authority, name, input: { pattern: known.pattern } })) return null;
  return "the `pattern` of this capture must keep it within one domain, such as ^https://[a-z0-9-]+\\.example\\.com$";
}
