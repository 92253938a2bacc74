import type { ProviderFile } from "../../src/providers/format/file.ts";
import { type Grade, readFact } from "../../src/providers/load/check-definition.ts";

/** What stands behind one setting of a file. `fact`: the path under which the file says so; null: it says nothing. */
export type Backing = { fact: string | null; grade: Grade; sources: string[]; note: string | null };

/** What a file says about itself rather than about its provider: none of it needs a source. */
const ownWords = new Set(["id", "name", "extends", "docs", "sources", "facts", "guide"]);

/** The paths of all values that a file sets and that claim something about its provider. */
export function claimsOf(file: ProviderFile): string[] {
  return Object.entries(file).flatMap(([key, value]) => (ownWords.has(key) ? [] : leavesOf(key, value)));
}

function leavesOf(path: string, value: unknown): string[] {
  const entries = typeof value === "object" && value !== null ? Object.entries(value) : [];
  return entries.length === 0 ? [path] : entries.flatMap(([key, inner]) => leavesOf(`${path}.${key}`, inner));
}

/** A fact stands for its setting and all that is below it, where no longer path says more. Nothing said is a guess. */
export function backingOf({ facts = {}, sources = {} }: ProviderFile, setting: string): Backing {
  const [path] = Object.keys(facts)
    .filter((candidate) => covers(candidate, setting))
    .sort((a, b) => b.length - a.length);
  const fact = path === undefined ? undefined : facts[path];
  if (path === undefined || fact === undefined) return { fact: null, grade: "guessed", sources: [], note: null };
  return { fact: path, ...readFact(fact, sources) };
}

export function covers(fact: string, setting: string): boolean {
  return setting === fact || setting.startsWith(`${fact}.`);
}

/** The value at a dotted path; names of scopes and headers may hold dots of their own. Undefined: there is none. */
export function valueAt(value: unknown, path: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  if (Object.hasOwn(value, path)) return Reflect.get(value, path);
  const key = Object.keys(value).find((name) => path.startsWith(`${name}.`));
  return key === undefined ? undefined : valueAt(Reflect.get(value, key), path.slice(key.length + 1));
}
