import type { Capture, Captures, ProviderDefinition } from "./definition.ts";
import { fill, templateNames, type TemplateValues } from "./template.ts";

/** What later templates use. Values that could not stand in a header, a URL or the store, or do not fit, are left out. */
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

/** Whether a value is one that the definition takes there. */
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
 * What templates stand for of that which was captured. It may have been stored under an older definition, and may fill a host:
 * only what the present one takes counts. What was never stored has its default, where it has one. A value that is stored and
 * does not fit has none: the default may be another host than the one that gave the token.
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
      else if (Object.hasOwn(stored, name)) misfits[`${root}.${name}`] = misfit(id, `${root}.${name}`, capture);
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

function misfit(id: string, name: string, { pattern, allowed }: Capture): string {
  const rule = allowed === null ? `what matches ${pattern}` : allowed.join(", ");
  return `nothing was sent: the definition "${id}" does not take the value of ${name} that is stored for this connection, only ${rule}; add the value to the definition, or connect the account again`;
}

function defaultOf({ default: template }: Capture, inputs: Stored["inputs"]): string | undefined {
  if (template === null) return undefined;
  const isLacking = templateNames(template).some((name) => !inputs[name.slice("inputs.".length)]);
  return isLacking ? undefined : (fill(template, { inputs }) ?? undefined);
}
