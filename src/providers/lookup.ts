import { readableName } from "../readable.ts";
import { readPointer } from "./answer-body.ts";
import { readCaptured } from "./captures.ts";
import type { Lookup } from "./definition.ts";
import { fill, type TemplateValues } from "./template.ts";

/** What a lookup tells of the account that was connected. */
export type Found = { account: string | null; label: string | null; captured: Record<string, string> };

/**
 * Reads the answer of a lookup. Null: it does not hold what the definition says, `select` finds nothing in it.
 * @throws BrokerError naming a value that `select.equals` lacks
 */
export function readLookup(lookup: Lookup, body: unknown, values: TemplateValues): Found | null {
  const entry = selectEntry(lookup, body, values);
  if (typeof entry !== "object" || entry === null) return null;
  const account = lookup.pointer === null ? null : readName(entry, lookup.pointer);
  if (lookup.pointer !== null && account === null) return null;
  return {
    account,
    label: lookup.label === null ? null : readableName(readName(entry, lookup.label)),
    captured: readCaptured(lookup.capture, (pointer) => readPointer(entry, pointer)),
  };
}

function selectEntry({ select }: Lookup, body: unknown, values: TemplateValues): unknown {
  if (select === null) return body;
  const list = select.list === null ? body : readPointer(body, select.list);
  if (!Array.isArray(list)) return null;
  const { where, equals } = select;
  if (where === null || equals === null) return list[0];
  const wanted = fill(equals, values);
  return list.find((entry: unknown) => readName(entry, where) === wanted) ?? null;
}

function readName(body: unknown, pointer: string): string | null {
  const value = readPointer(body, pointer);
  const text = typeof value === "number" || typeof value === "boolean" ? String(value) : value;
  return typeof text === "string" && /^[^\p{Cc}\p{Cs}]{1,300}$/u.test(text) ? text : null;
}
