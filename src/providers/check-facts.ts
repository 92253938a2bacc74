import { adviceOn, knobFault } from "./check-shape.ts";
import type { ProviderFile } from "./provider-file.ts";
import type { Problem } from "./yaml-source.ts";

type Fact = NonNullable<ProviderFile["facts"]>[string];

/** How well a fact is known: by sources of different origins that agree, by one, or by none. */
export type Grade = "confirmed" | "documented" | "guessed";

/** What stands behind a fact of a file: the names of its sources, and a word on it. */
export function readFact(
  fact: Fact,
  known: Readonly<Record<string, string>> = {},
): { grade: Grade; sources: string[]; note: string | null } {
  if (typeof fact === "object" && !Array.isArray(fact) && "guessed" in fact) {
    return { grade: "guessed", sources: [], note: fact.guessed };
  }
  const given = typeof fact === "object" && !Array.isArray(fact) ? fact : { from: fact };
  const sources = [given.from].flat();
  const origins = new Set(sources.map((name) => originOf(known[name] ?? name)));
  return { grade: origins.size > 1 ? "confirmed" : "documented", sources, note: given.note ?? null };
}

/** Two pages of one site are one witness. */
function originOf(source: string): string {
  const host = /https?:\/\/([^/\s]+)/.exec(source)?.[1]?.toLowerCase();
  return host === undefined ? source : host.split(".").slice(-2).join(".");
}

/** Facts name knobs that exist, and sources that are listed. */
export function checkFacts({ facts = {}, sources = {} }: ProviderFile): Problem[] {
  return Object.entries(facts).flatMap(([knob, fact]) => {
    const path = ["facts", knob];
    const fault = knobFault(knob);
    if (fault !== null) return [{ path, text: fault }];
    if (typeof fact === "object" && !Array.isArray(fact) && !("from" in fact) && !("guessed" in fact)) {
      return [{ path, text: "needs `from`, or `guessed`" }];
    }
    return readFact(fact)
      .sources.filter((source) => !Object.hasOwn(sources, source))
      .map((source) => ({ path, text: `\`${source}\` is not in \`sources\`; ${adviceOnSource(source, sources)}` }));
  });
}

function adviceOnSource(name: string, sources: Readonly<Record<string, string>>): string {
  const known = Object.keys(sources);
  return known.length > 0 ? adviceOn(name, known) : "there are none";
}
