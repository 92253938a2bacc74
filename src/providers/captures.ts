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
 * only what the present one takes counts. What is lacking has its default, where it has one.
 */
export function capturedValues(
  { authorization, response, lookups, lookupsByGrant }: ProviderDefinition,
  { captured, account, inputs }: Stored,
): Required<Pick<TemplateValues, "callback" | "response" | "account">> {
  const found = [lookups, ...Object.values(lookupsByGrant)].flat();
  const isTaken = ([name, text]: [string, string]) =>
    found.some(({ capture }) => Object.hasOwn(capture, name) && fitsCapture(text, capture[name] ?? anything));
  return {
    callback: inForce(authorization?.callback.capture ?? {}, captured, inputs),
    response: inForce(response.capture, captured, inputs),
    account: Object.fromEntries(Object.entries(account).filter(isTaken)),
  };
}

const anything = { pattern: null, allowed: null };

function inForce(captures: Captures, captured: Stored["captured"], inputs: Stored["inputs"]): Record<string, string> {
  const entries = Object.entries(captures).flatMap(([name, capture]) => {
    const stored = Object.hasOwn(captured, name) ? captured[name] : undefined;
    const candidates = [stored, defaultOf(capture, inputs)].filter((value) => value !== undefined);
    const value = candidates.find((candidate) => fitsCapture(candidate, capture));
    return value === undefined ? [] : [[name, value] as const];
  });
  return Object.fromEntries(entries);
}

function defaultOf({ default: template }: Capture, inputs: Stored["inputs"]): string | undefined {
  if (template === null) return undefined;
  const isLacking = templateNames(template).some((name) => !inputs[name.slice("inputs.".length)]);
  return isLacking ? undefined : (fill(template, { inputs }) ?? undefined);
}
