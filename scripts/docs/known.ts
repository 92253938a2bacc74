import { stringify } from "yaml";
import type { ProviderDefinition } from "../../src/providers/format/definition.ts";
import type { Grade } from "../../src/providers/load/check-definition.ts";
import { backingOf, covers, valueAt } from "./facts.ts";
import { refreshes } from "./lost-answer.ts";
import { code, list, plain, section, table } from "./markdown.ts";

export const gradeWords: Record<Grade, string> = {
  confirmed: "confirmed",
  documented: "from documentation",
  guessed: "guessed",
};

/** One row of what a file says, and how well it is known. */
type Known = { setting: string; value: unknown; grade: Grade; sources: readonly string[]; note: string | null };

/** What matters most, and is shown even where a file says nothing of it: then it is a guess. */
const always = [
  "refresh.rotation",
  "refresh.reuse",
  "refresh.old_access_token_dies",
  "refresh.idle_life_s",
  "refresh.absolute_life_s",
];

/** Every fact of a definition in the order of its file, and the settings that matter most. */
function knownOf(definition: ProviderDefinition): Known[] {
  const { file } = definition;
  const facts = Object.keys(file.facts ?? {});
  const matters = refreshes(definition) ? [...always, "response.expires"] : ["response.expires"];
  const unsaid = matters.filter((setting) => backingOf(file, setting).fact === null);
  return [
    ...facts.map((setting) => ({
      setting,
      value: shownValue(definition, setting, facts),
      ...withoutFact(backingOf(file, setting)),
    })),
    ...unsaid.map((setting) => ({
      setting,
      value: shownValue(definition, setting, facts),
      grade: "guessed" as const,
      sources: [],
      note: "nothing is known; the strict default",
    })),
  ];
}

const withoutFact = ({ grade, sources, note }: ReturnType<typeof backingOf>) => ({ grade, sources, note });

export function countsOf(definition: ProviderDefinition): Record<Grade, number> {
  const counts = { confirmed: 0, documented: 0, guessed: 0 };
  for (const { grade } of knownOf(definition)) counts[grade]++;
  return counts;
}

/** How well one setting of a definition is known; null: it says nothing there, and needs to say nothing. */
export function gradeOf(definition: ProviderDefinition, setting: string): Grade | null {
  const { file } = definition;
  const { fact, grade } = backingOf(file, setting);
  if (fact !== null) return grade;
  if (always.includes(setting)) return refreshes(definition) ? "guessed" : null;
  return valueAt(file, setting) === undefined ? null : "guessed";
}

export function knownSections(definition: ProviderDefinition): string[] {
  const rows = knownOf(definition).map(({ setting, value, grade, sources, note }) => [
    code(setting),
    valueText(value),
    gradeWords[grade],
    sources.map(plain).join(", "),
    note === null ? "" : plain(note),
  ]);
  const sources = Object.entries(definition.file.sources ?? {}).map(
    ([name, where]) => `${plain(name)}: ${plain(where)}`,
  );
  return [
    ...section(
      "## How well this is known",
      "What the words mean stands in the [overview](README.md#how-well-things-are-known). Nothing was tried at the provider itself.",
      table(["setting", "value", "known", "sources", "note"], rows),
    ),
    ...section("## Sources", list(sources)),
  ];
}

/** Without what a fact of its own covers. */
function shownValue(definition: ProviderDefinition, setting: string, facts: readonly string[]): unknown {
  const value = valueAt(definition.file, setting) ?? defaults(definition)[setting];
  const longer = facts
    .filter((fact) => fact !== setting && covers(setting, fact))
    .map((fact) => fact.slice(setting.length + 1));
  return longer.reduce(without, value);
}

function without(value: unknown, path: string): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const entries = Object.entries(value).filter(([key]) => key !== path);
  return Object.fromEntries(
    entries.map(([key, inner]) => [
      key,
      path.startsWith(`${key}.`) ? without(inner, path.slice(key.length + 1)) : inner,
    ]),
  );
}

/** What is in force where a file says nothing. */
function defaults({ refresh, response, grants }: ProviderDefinition): Record<string, unknown> {
  return {
    grants,
    "refresh.rotation": refresh.rotation,
    "refresh.reuse": refresh.reuse,
    "refresh.old_access_token_dies": refresh.oldAccessTokenDies,
    "response.expires": { from: response.expires.from, fallback: response.expires.fallbackSeconds },
  };
}

function valueText(value: unknown): string {
  if (value === undefined || value === null) return "none";
  if (typeof value === "string") return code(value);
  if (typeof value === "object" && Object.keys(value).length === 0) return "";
  return code(stringify(value, { collectionStyle: "flow", lineWidth: 0, flowCollectionPadding: true }).trim());
}
