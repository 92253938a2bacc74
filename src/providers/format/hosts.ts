import type { InputDefinition } from "./definition.ts";

/**
 * Whether a pattern is anchored: `^…$` around everything, without an alternative outside parentheses, which would leave one of its sides
 * open.
 */
export function isAnchored(pattern: string): boolean {
  return pattern.startsWith("^") && /[^\\](\\\\)*\$$/.test(pattern) && !hasOpenAlternative(pattern);
}

function hasOpenAlternative(pattern: string): boolean {
  let depth = 0;
  let inClass = false;
  for (const [token] of pattern.matchAll(/\\.|[\s\S]/g)) {
    if (inClass) inClass = token !== "]";
    else if (token === "[") inClass = true;
    else if (token === "(") depth += 1;
    else if (token === ")") depth -= 1;
    else if (token === "|" && depth === 0) return true;
  }
  return false;
}

/** Pieces of a pattern that match characters of host names alone: no `/`, `@`, `:`, `?` or `#` that would end the host. */
const hostPieces = String.raw`(?:[a-z0-9_-]|\\[.dw-]|\[(?:[a-z0-9_.-]|\\[.dw-])+\]|\(\?:|[()|?*+]|\{\d+(?:,\d*)?\})`;
const hostOnly = new RegExp(`^${hostPieces}*$`, "i");
/** A host that ends in literal labels. */
const literalHost = new RegExp(String.raw`^(${hostPieces}*?)((?:\\.[a-z0-9-]+)+)$`, "i");
/** A whole address whose host ends in literal labels: `^https://` … `\.example\.com` and perhaps a path. */
const literalEnd = new RegExp(String.raw`^https:\/\/(${hostPieces}*?)((?:\\\.[a-z0-9-]+)+)$`, "i");

type HostValue = {
  authority: string;
  name: string;
  input: Pick<InputDefinition, "enum" | "pattern" | "hosts_of_one_owner">;
};

/**
 * Whether a host belongs to one owner for every value of an input: it is within one registrable domain, or one of several hosts of which the
 * definition says that they have one owner.
 */
export function domainIsPinned({ authority, name, input }: HostValue): boolean {
  if (input.enum === undefined) return pinnedDomain({ authority, name, input }) !== null;
  if (input.hosts_of_one_owner) return true;
  const domains = input.enum.map((value) => registrableDomain(authority.replace(`{${name}}`, value)));
  return domains[0] !== null && new Set(domains).size === 1;
}

/** The registrable domain of an address, with or without a scheme; of an IP address itself; null: there is no host. */
function registrableDomain(address: string): string | null {
  const host = URL.parse(address.includes("://") ? address : `https://${address}`)?.hostname;
  if (!host) return null;
  const labels = host.split(".");
  return /[\d\]]$/.test(host) ? host : labels.slice(-registrableLength(labels)).join(".");
}

/**
 * Why the `enum` of a capture may not decide a host; null: it may. The author of a callback or an answer may only choose among whole hosts
 * that the definition names, so that no text of theirs becomes part of a host.
 */
export function hostListFault(
  { authority, name }: Pick<HostValue, "authority" | "name">,
  values: readonly string[],
): string | null {
  const template = `{${name}}`;
  if (authority !== template && authority !== `https://${template}`) {
    return `a value of a list stands there as a whole host: https://${template}/…, or ${template}/… with values such as https://eu.example.com`;
  }
  const odd = values.find((value) => !isWholeHost(authority.replace(template, value)));
  if (odd === undefined) return null;
  const example = authority === template ? "https://eu.example.com" : "eu.example.com";
  return `${odd} in its \`enum\` is not a whole host, such as ${example}`;
}

/** Scheme, host and perhaps a port, as a URL writes them, and nothing else. */
function isWholeHost(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && /^https?:$/.test(url.protocol) && text === url.origin;
}

/**
 * The registrable domain, such as `.example.com`, with its port if it has one, that a host stays within for every value that matches the
 * pattern: the value has only characters of host names and the URL goes on with the domain, or the pattern ends with the domain. Null: it
 * cannot be said.
 */
export function pinnedDomain({ authority, name, input }: HostValue): string | null {
  if (!input.pattern || !isAnchored(input.pattern)) return null;
  const inner = input.pattern.slice(1, -1);
  const after = authority.slice(authority.indexOf(`{${name}}`) + name.length + 2);
  if (after !== "") return hostOnly.test(inner) && isRegistrable(after) ? after : null;
  const isAddress = authority === `{${name}}`;
  if (!isAddress && authority !== `https://{${name}}`) return null;
  const match = (isAddress ? literalEnd : literalHost).exec(inner.replaceAll("\\/", "/"));
  const domain = (match?.[2] ?? "").replaceAll("\\", "");
  return isRegistrable(domain) ? domain : null;
}

/** `.example.com`; not `.com`, and not `.co.uk` or `.com.au`, which look like suffixes under which anybody can register a name. */
function isRegistrable(suffix: string): boolean {
  const labels = suffix.replace(/:\d+$/, "").toLowerCase().split(".");
  if (labels.shift() !== "" || labels.some((label) => !/^[a-z0-9-]+$/.test(label))) return false;
  return labels.length >= registrableLength(labels);
}

/** How many labels at the end of a host somebody has registered: three under what looks like `.co.uk` or `.com.au`, else two. */
function registrableLength(labels: readonly string[]): number {
  const [second = "", top = ""] = labels.slice(-2);
  return top.length === 2 && second.length <= 3 ? 3 : 2;
}
