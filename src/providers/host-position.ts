import type { InputDefinition } from "./definition.ts";

/**
 * Whether a pattern binds a value from its first character to its last: `^…$` around everything, without an alternative
 * outside parentheses, which would leave one of its sides open.
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

/**
 * Whether a host stays within one registrable domain whatever value an input has: it is one of a list; or its characters
 * are those of host names and the URL goes on with the domain; or its pattern ends with the domain. Rather no than yes.
 */
export function domainIsPinned(options: { authority: string; name: string; input: InputDefinition }): boolean {
  const { authority, name, input } = options;
  if (input.enum) return true;
  if (!input.pattern || !isAnchored(input.pattern)) return false;
  const inner = input.pattern.slice(1, -1);
  const after = authority.slice(authority.indexOf(`{${name}}`) + name.length + 2);
  if (after !== "") return hostOnly.test(inner) && isRegistrable(after);
  const isAddress = authority === `{${name}}`;
  const match = (isAddress ? literalEnd : literalHost).exec(inner.replaceAll("\\/", "/"));
  return (
    (isAddress || authority === `https://{${name}}`) &&
    match !== null &&
    isRegistrable((match[2] ?? "").replaceAll("\\", ""))
  );
}

/** `.example.com`; not `.com`, and not `.co.uk` or `.com.au`, which look like the suffixes that anyone may register in. */
function isRegistrable(suffix: string): boolean {
  const labels = suffix.replace(/:\d+$/, "").toLowerCase().split(".");
  if (labels.shift() !== "" || labels.some((label) => !/^[a-z0-9-]+$/.test(label))) return false;
  const [second = "", top = ""] = labels.slice(-2);
  return labels.length >= (top.length === 2 && second.length <= 3 ? 3 : 2);
}
