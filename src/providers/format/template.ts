import { BrokerError } from "../../errors.ts";
import { providerTimes } from "../../time.ts";
import type { Capture, Captures, ProviderDefinition } from "./definition.ts";

/** What templates stand for. Holds plain secrets: never log one. */
export type TemplateValues = {
  client?: { id: string; secret?: string | null | undefined; assertion?: string | undefined } | null | undefined;
  inputs?: Readonly<Record<string, string>> | undefined;
  /** Those of the inputs that are secrets. */
  secretInputs?: Readonly<Record<string, string>> | undefined;
  /** Captured from the callback of the authorization request. */
  callback?: Readonly<Record<string, string>> | undefined;
  /** Captured from answers of the token endpoint. */
  response?: Readonly<Record<string, string>> | undefined;
  /** Captured from lookups after connecting. */
  account?: Readonly<Record<string, string>> | undefined;
  /** Captured values that are stored and that the definition does not accept, by name: the error text if one is needed. */
  misfits?: Readonly<Record<string, string>> | undefined;
  credentials?: Readonly<Record<string, string>> | undefined;
  code?: string | undefined;
  codeVerifier?: string | undefined;
  redirectUri?: string | undefined;
  refreshToken?: string | undefined;
  accessToken?: string | undefined;
  deviceCode?: string | undefined;
  /** The token that is revoked or asked about. */
  token?: { value: string; hint: "access_token" | "refresh_token" } | undefined;
  /** Already joined with the definition's separator. */
  scope?: string | undefined;
};

const templatePattern = /\{([^{}]*)\}/g;

/** Templates whose value may be missing: a field with one is then left out. */
const optionalNames = new Set(["scope", "redirect_uri", "code_verifier"]);

/** The names between braces, in order: `client.id`, `inputs.shop_url`, `code`, … */
export function templateNames(text: string): string[] {
  return [...text.matchAll(templatePattern)].map((match) => match[1] ?? "");
}

/** Whether braces stand alone, outside a template. */
export function hasLooseBraces(text: string): boolean {
  return /[{}]/.test(text.replaceAll(templatePattern, ""));
}

/** The part of a URL that decides where it leads (scheme, host, port), and the rest of it; both may hold templates. */
export function splitUrl(text: string): { authority: string; rest: string } {
  const authority = /^([a-z]+:\/\/)?[^/?#]*/i.exec(text)?.[0] ?? "";
  return { authority, rest: text.slice(authority.length) };
}

function lookUp(name: string, values: TemplateValues): string | null | undefined {
  const [root = "", key] = name.split(".", 2);
  if (key !== undefined) {
    const map: Readonly<Record<string, string>> | undefined = {
      inputs: { ...values.inputs, ...values.secretInputs },
      callback: values.callback,
      response: values.response,
      account: values.account,
      credentials: values.credentials,
    }[root];
    if (root === "client") return clientValue(key, values);
    return map && Object.hasOwn(map, key) ? map[key] : undefined;
  }
  const single: Record<string, string | undefined> = {
    code: values.code,
    code_verifier: values.codeVerifier,
    redirect_uri: values.redirectUri,
    refresh_token: values.refreshToken,
    access_token: values.accessToken,
    device_code: values.deviceCode,
    token: values.token?.value,
    token_type_hint: values.token?.hint,
    scope: values.scope,
  };
  return single[root];
}

function clientValue(key: string, { client }: TemplateValues): string | null | undefined {
  return { id: client?.id, secret: client?.secret, assertion: client?.assertion }[key];
}

function missing(name: string, { misfits = {} }: TemplateValues): BrokerError {
  const misfit = Object.hasOwn(misfits, name) ? misfits[name] : undefined;
  if (misfit !== undefined) {
    return new BrokerError("provider_unavailable", misfit, { retryAfterSeconds: providerTimes.unusableSeconds });
  }
  if (name === "client.id") return new BrokerError("client_rejected", "this connection needs a client, and has none");
  if (name === "client.secret") return new BrokerError("client_rejected", "the client has no client_secret; set one");
  return new BrokerError("needs_reauthorization", `the provider's request needs ${name}, which this connection lacks`);
}

/**
 * Fills a template. Null if an optional value (scope, redirect_uri, code_verifier, an empty input) is missing: the field is then left
 * out.
 * @throws BrokerError naming any other missing value; never with the value of one.
 */
export function fill(
  text: string,
  values: TemplateValues,
  encode: (value: string, name: string) => string = (value) => value,
): string | null {
  let left = false;
  const filled = text.replaceAll(templatePattern, (_match, name: string) => {
    const value = lookUp(name, values);
    if (typeof value === "string" && value !== "") return encode(value, name);
    const isLeftOut = value === "" && name.startsWith("inputs.");
    if (!isLeftOut && !optionalNames.has(name)) throw missing(name, values);
    left = true;
    return "";
  });
  return left ? null : filled;
}

function encodePathValue(value: string): string {
  if (isDots(value)) {
    throw new BrokerError("invalid_request", "an input that stands in a path cannot be dots alone");
  }
  return encodeURIComponent(value.toWellFormed());
}

/**
 * Fills the templates of a URL: those in a host position as they are (their pattern was checked), the others
 * percent-encoded, so that no value can add a path segment, a query or a host.
 */
export function fillUrl(text: string, values: TemplateValues): string {
  const { authority, rest } = splitUrl(text);
  return `${fill(authority, values) ?? ""}${fill(rest, values, encodePathValue) ?? ""}`;
}

/** A map without the entries that a file has set to null. */
export function withoutNull(map: Readonly<Record<string, string | null>>): Record<string, string> {
  const entries = Object.entries(map).filter((entry): entry is [string, string] => entry[1] !== null);
  return Object.fromEntries(entries);
}

/** Fills every template of a map. Leaves out entries whose optional value is missing. */
export function fillAll(
  templates: Readonly<Record<string, string>>,
  values: TemplateValues,
  encode?: (value: string, name: string) => string,
): [string, string][] {
  const entries: [string, string][] = [];
  for (const [key, template] of Object.entries(templates)) {
    const value = fill(template, values, encode);
    if (value !== null) entries.push([key, value]);
  }
  return entries;
}

/**
 * Fills the templates of headers, as `fillAll` does. No value can add a header or end them (RFC 9110, section 5.5).
 * @throws BrokerError naming a value that is missing, or that no header can carry; never the value itself
 */
export function fillHeaders(
  templates: Readonly<Record<string, string>>,
  values: TemplateValues,
): Record<string, string> {
  return Object.fromEntries(fillAll(templates, values, checkedForHeader));
}

type Templates = Readonly<Record<string, string>>;

/** What a request to a provider is made of, in the order in which it is filled: a value that is missing is named by the first. */
export type RequestTemplates = {
  fields: readonly Templates[];
  url: string;
  headers: readonly Templates[];
  /** Who the client is, in one text: what Basic is made of, or a certificate; null: neither. */
  credential: { template: string; encode?: (value: string) => string } | null;
};

/** @throws BrokerError naming a value that is missing, or that stands in a header and cannot, or where the inputs make no URL */
export function fillRequest({ fields, url, headers, credential }: RequestTemplates, values: TemplateValues) {
  const filledFields = fields.flatMap((templates) => fillAll(templates, values));
  const filledUrl = fillUrl(url, values);
  if (!URL.canParse(filledUrl)) {
    throw new BrokerError("invalid_request", "the inputs of this connection do not make a valid URL of the provider");
  }
  return {
    fields: filledFields,
    url: new URL(filledUrl),
    headers: headers.map((templates) => fillHeaders(templates, values)),
    credential: credential === null ? "" : (fill(credential.template, values, credential.encode) ?? ""),
  };
}

/** Whether a header can carry a value (RFC 9110, section 5.5): Latin-1 without control characters. */
export function isHeaderSafe(value: string): boolean {
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(value);
}

/** Path segments that would lead elsewhere. */
export function isDots(value: string): boolean {
  return /^\.+$/.test(value);
}

function checkedForHeader(value: string, name: string): string {
  if (isHeaderSafe(value)) return value;
  const detail = `${name} holds a character that no header can carry, such as a line break`;
  if (name.startsWith("client.")) throw new BrokerError("client_rejected", detail);
  if (/^(inputs|credentials)\./.test(name)) throw new BrokerError("invalid_request", detail);
  // The provider has given the value, and its next one may fit.
  throw new BrokerError("provider_unavailable", detail, { retryAfterSeconds: providerTimes.unusableSeconds });
}

/** The captured values for later templates. Values that do not fit, or that no header, URL or column can hold, are left out. */
export function readCaptured(captures: Captures, read: (from: string) => unknown): Record<string, string> {
  const captured: Record<string, string> = {};
  for (const [name, capture] of Object.entries(captures)) {
    const value = read(capture.from);
    const text = typeof value === "number" ? String(value) : value;
    if (typeof text !== "string" || !/^[^\p{Cc}\p{Cs}]{1,2000}$/u.test(text)) continue;
    if (fitsCapture(text, capture)) captured[name] = text;
  }
  return captured;
}

/** Whether the definition accepts a captured value. */
export function fitsCapture(text: string, { pattern, allowed }: Pick<Capture, "pattern" | "allowed">): boolean {
  if (allowed !== null) return allowed.includes(text);
  return pattern === null || new RegExp(pattern, "u").test(text);
}

type Stored = {
  /** Of the callback and of answers. */
  captured: Readonly<Record<string, string>>;
  /** Of lookups. */
  account: Readonly<Record<string, string>>;
  /** Those of connection and client together. */
  inputs: Readonly<Record<string, string>>;
};

/**
 * The captured values for templates. They may have been stored under an older definition and may fill a host, so only values that the present
 * definition accepts count. A value that was never stored has its default. A stored value that does not fit has no default, since that
 * may be another host than the one that gave the token.
 */
export function capturedValues(
  { id, authorization, response, lookups, lookupsByGrant }: ProviderDefinition,
  { captured, account, inputs }: Stored,
): Required<Pick<TemplateValues, "callback" | "response" | "account" | "misfits">> {
  const misfits: Record<string, string> = {};
  const inForce = (root: string, captures: Captures, stored: Stored["captured"]): Record<string, string> => {
    const values: Record<string, string> = {};
    for (const [name, capture] of Object.entries(captures)) {
      const value = Object.hasOwn(stored, name) ? stored[name] : defaultOf(capture, inputs);
      if (value === undefined) continue;
      if (fitsCapture(value, capture)) values[name] = value;
      else if (Object.hasOwn(stored, name)) misfits[`${root}.${name}`] = whyMisfit(id, `${root}.${name}`, capture);
    }
    return values;
  };
  const found = [lookups, ...Object.values(lookupsByGrant)].flat();
  return {
    callback: inForce("callback", authorization?.callback.capture ?? {}, captured),
    response: inForce("response", response.capture, captured),
    account: Object.assign({}, ...found.map(({ capture }) => inForce("account", capture, account))),
    misfits,
  };
}

function whyMisfit(id: string, name: string, { pattern, allowed }: Capture): string {
  const rule = allowed === null ? `what matches ${pattern}` : allowed.join(", ");
  return `nothing was sent: the definition "${id}" does not take the value of ${name} that is stored for this connection, only ${rule}; add the value to the definition, or connect the account again`;
}

function defaultOf({ default: template }: Capture, inputs: Stored["inputs"]): string | undefined {
  if (template === null) return undefined;
  const isMissing = templateNames(template).some((name) => !inputs[name.slice("inputs.".length)]);
  return isMissing ? undefined : (fill(template, { inputs }) ?? undefined);
}
