import type { Base } from "./base.ts";

/** Something that is seen without the setting, and with it. Empty: it is not there. */
export type Change = readonly [without: string, withIt: string];

/**
 * One setting and what it does: with `file` laid over the base, exactly this is seen differently from the base with `instead`
 * laid over it. Each row is a test.
 */
export type Row = {
  setting: string;
  /** YAML. */
  file: string;
  /** YAML; the base alone unless given. */
  instead?: string;
  base?: Base;
  shows: Readonly<Record<string, Change>>;
};

/** A setting whose effect lies beyond the reading and writing of requests: the test that proves it. */
export type Elsewhere = { setting: string; test: string; title: string };

/** YAML of a value at a dotted path; `name[1]` is the second item of a list. */
export function at(path: string, value: unknown): string {
  const nested = path.split(".").reduceRight<unknown>((inner, step) => {
    const [, name = "", index] = /^(\w+)(?:\[(\d)\])?$/.exec(step) ?? [];
    return { [name]: index === undefined ? inner : [...Array.from({ length: Number(index) }, () => ({})), inner] };
  }, value);
  return JSON.stringify(nested);
}

/** The same change in several things that are seen. */
export function each(labels: readonly string[], part: string, change: Change): Record<string, Change> {
  return Object.fromEntries(labels.map((label) => [`${label}: ${part}`, change]));
}
