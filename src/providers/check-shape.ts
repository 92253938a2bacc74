import { Value } from "typebox/value";
import { nearest } from "../nearest.ts";
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
      return [{ path, text: patternText(String(error.params.pattern), path) }];
    default:
      return [{ path, text: error.message }];
  }
}

/** Maps that may stand in the place of a word. */
const mapForms: Record<string, string> = {
  client_auth: '{ header: NAME, value: "{client.secret}" } or { basic: "{client.id}:{client.secret}" }',
  parallel_sets: "{ single_per: [user, client, inputs.X], max: 1 }",
};

/** A pattern of words alone is said as a list of them. */
function patternText(pattern: string, path: readonly string[]): string {
  const words = /^\^\(?([a-z_|]+)\)?\$$/.exec(pattern)?.[1]?.split("|");
  if (words === undefined) return `must match ${pattern}`;
  const forms = mapForms[path.at(-1) ?? ""];
  return `must be one of: ${words.join(", ")}${forms === undefined ? "" : `; or a map: ${forms}`}`;
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

/** Why a dotted path leads to no knob; null: it leads to one, or to an entry that a file may name itself. */
export function knobFault(path: string): string | null {
  const steps = path.split(".");
  let at: Schema = asSchema(providerFileSchema);
  // Names of scopes, headers and error rules may hold dots of their own: what is below a free map is not looked at.
  for (const [depth, step] of steps.entries()) {
    if (at["properties"] === undefined) return null;
    const known = Object.keys(asSchema(at["properties"]));
    if (!known.includes(step)) {
      const prefix = steps
        .slice(0, depth)
        .map((above) => `${above}.`)
        .join("");
      return `\`${path}\` is no knob; ${adviceOn(step, known, prefix)}`;
    }
    at = asSchema(asSchema(at["properties"])[step]);
  }
  return null;
}

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
  return { path: [...path, name], text: `unknown knob \`${name}\`; ${adviceOn(name, known)}` };
}

/** The name that may have been meant, or all that are known. `prefix` goes before the first. */
export function adviceOn(name: string, known: readonly string[], prefix = ""): string {
  const near = nearest(name, known);
  return near ? `did you mean \`${prefix}${near}\`?` : `known here: ${known.join(", ")}`;
}
