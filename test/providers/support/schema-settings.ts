import { providerFileSchema } from "../../../src/providers/format/file.ts";

type Schema = Readonly<Record<string, unknown>>;

/** From the top of a file to a setting: a key, an entry that the file names itself, or an item of a list. */
export type PathStep = { key: string } | "entry" | "item";

/** One setting of the schema. `path`: its dotted name, without the names that files make up and without indices. */
export type Setting = {
  path: string;
  name: string;
  steps: readonly PathStep[];
  schema: Schema;
  /** The names beside it, its own included. */
  siblings: readonly string[];
  /** Takes a value of its own, and is more than the map of those below it. */
  isLeaf: boolean;
};

export function settingsOfSchema(): Setting[] {
  return settingsBelow(providerFileSchema, { path: [], steps: [] });
}

function settingsBelow(schema: unknown, at: { path: readonly string[]; steps: readonly PathStep[] }): Setting[] {
  const { properties, items, patternProperties } = asSchema(schema);
  const names = Object.keys(asSchema(properties));
  const own = Object.entries(asSchema(properties)).flatMap(([name, inner]): Setting[] => {
    const path = at.path.concat(name);
    const step: PathStep = { key: name };
    const steps = at.steps.concat(step);
    const setting: Setting = {
      path: path.join("."),
      name,
      steps,
      schema: asSchema(inner),
      siblings: names,
      isLeaf: isLeaf(inner),
    };
    return [setting].concat(settingsBelow(inner, { path, steps }));
  });
  const entries = Object.values(asSchema(patternProperties)).flatMap((inner) =>
    settingsBelow(inner, { path: at.path, steps: [...at.steps, "entry"] }),
  );
  return [...own, ...entries, ...settingsBelowItems(items, at)];
}

function settingsBelowItems(items: unknown, at: { path: readonly string[]; steps: readonly PathStep[] }): Setting[] {
  return items === undefined ? [] : settingsBelow(items, { path: at.path, steps: [...at.steps, "item"] });
}

/** A map whose keys are all known, and lists and free maps of such maps, have no value beside what is below them. */
function isLeaf(schema: unknown): boolean {
  const { type, properties, items, patternProperties } = asSchema(schema);
  const types = [type].flat().filter((name) => name !== "null");
  if (types.length > 1) return true;
  if (items !== undefined) return asSchema(items)["properties"] === undefined;
  const [entry] = Object.values(asSchema(patternProperties));
  return entry === undefined ? properties === undefined : isLeaf(entry);
}

function asSchema(value: unknown): Schema {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
