import { Value } from "typebox/value";
import { type ProviderFile, providerFileSchema } from "./provider-file.ts";
import type { Problem } from "./yaml-source.ts";

type Schema = Readonly<Record<string, unknown>>;
type ShapeError = ReturnType<typeof Value.Errors>[number];

/** Whether a parsed file has the shape of a provider file: known knobs only, each of its type. */
export function checkShape(value: Record<string, unknown>): { file: ProviderFile } | { problems: Problem[] } {
  if (Value.Check(providerFileSchema, value)) return { file: value };
  const known = Object.keys(providerFileSchema.properties);
  const problems = Object.keys(value)
    .filter((key) => !known.includes(key))
    .map((key) => unknownKnob([], key, known));
  if (!Object.hasOwn(value, "id")) problems.push({ path: [], text: "`id` is missing" });
  // One knob of the top at a time, since the validator stops after a handful of errors.
  for (const [key, schema] of Object.entries(providerFileSchema.properties)) {
    if (!Object.hasOwn(value, key)) continue;
    for (const error of Value.Errors(schema, value[key])) problems.push(...toProblems(error, key, schema));
  }
  return { problems };
}

function toProblems(error: ShapeError, key: string, schema: object): Problem[] {
  const inner = error.instancePath
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  const path = [key, ...inner];
  switch (error.keyword) {
    case "boolean":
      return [];
    case "additionalProperties":
      return error.params.additionalProperties.map((name) =>
        unknownEntry({ path, name, schema: schemaAt(schema, inner) }),
      );
    case "required":
      return error.params.requiredProperties.map((name) => ({ path, text: `\`${name}\` is missing` }));
    case "enum":
      return [{ path, text: `must be one of: ${error.params.allowedValues.join(", ")}` }];
    case "type":
      return [
        {
          path,
          text: `must be ${[error.params.type]
            .flat()
            .map((type) => typeNames[type] ?? type)
            .join(" or ")}`,
        },
      ];
    case "pattern":
      return [{ path, text: `must match ${error.params.pattern}` }];
    default:
      return [{ path, text: error.message }];
  }
}

const typeNames: Record<string, string> = {
  string: "a text (in quotes, if it looks like something else)",
  integer: "a whole number",
  number: "a number",
  boolean: "true or false",
  array: "a list",
  object: "a map",
  null: "empty",
};

function schemaAt(schema: object, path: readonly string[]): Schema {
  let at = asSchema(schema);
  for (const step of path) at = child(at, step);
  return at;
}

function child(schema: Schema, step: string): Schema {
  const properties = asSchema(schema["properties"]);
  const patterns = Object.values(asSchema(schema["patternProperties"]));
  return asSchema(properties[step] ?? schema["items"] ?? patterns[0]);
}

function asSchema(value: unknown): Schema {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function unknownEntry(entry: { path: readonly string[]; name: string; schema: Schema }): Problem {
  const { path, name, schema } = entry;
  const [pattern] = Object.keys(asSchema(schema["patternProperties"]));
  if (pattern !== undefined) {
    return { path: [...path, name], text: `\`${name}\` is not a name; one must match ${pattern}` };
  }
  return unknownKnob(path, name, Object.keys(asSchema(schema["properties"])));
}

function unknownKnob(path: readonly string[], name: string, known: readonly string[]): Problem {
  const [near] = known
    .map((candidate) => ({ candidate, distance: editDistance(name.toLowerCase(), candidate) }))
    .filter(({ candidate, distance }) => distance <= Math.max(1, Math.floor(candidate.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  const advice = near ? `did you mean \`${near.candidate}\`?` : `known here: ${known.join(", ")}`;
  return { path: [...path, name], text: `unknown knob \`${name}\`; ${advice}` };
}

/** Levenshtein's: how many letters to add, drop or change. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [index, letter] of from.split("").entries()) {
    const next = [index + 1];
    for (const [column, other] of to.split("").entries()) {
      const change = (row[column] ?? 0) + (letter === other ? 0 : 1);
      next.push(Math.min(change, (row[column + 1] ?? 0) + 1, (next[column] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
