import { providerFileSchema } from "../../src/providers/format/file.ts";

type Schema = Record<string, unknown>;

/** What may be written in a provider file, for editors (JSON Schema 2020-12): each setting has its dotted name as title. */
export function providerJsonSchema(): Schema {
  const { type, required, properties, additionalProperties } = JSON.parse(JSON.stringify(providerFileSchema)) as Schema;
  const titled = withTitles({ type, required, properties, additionalProperties }, []);
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Freshet provider definition",
    description: "One OAuth provider, as data. What each setting is for: docs/provider-format.md.",
    ...titled,
  };
}

function withTitles(schema: unknown, path: readonly string[]): Schema {
  const { properties, patternProperties, items, description, ...rest } = asSchema(schema);
  const dotted = path.join(".");
  return {
    ...(dotted !== "" && { title: dotted, description: description ?? `See docs/provider-format.md, ${path[0]}.` }),
    ...rest,
    ...(properties !== undefined && {
      properties: eachOf(properties, (inner, name) => withTitles(inner, [...path, name])),
    }),
    ...(patternProperties !== undefined && {
      patternProperties: eachOf(patternProperties, (inner) => withTitles(inner, path)),
    }),
    ...(items !== undefined && { items: withTitles(items, path) }),
  };
}

function eachOf(schemas: unknown, change: (schema: unknown, name: string) => Schema): Schema {
  return Object.fromEntries(Object.entries(asSchema(schemas)).map(([name, inner]) => [name, change(inner, name)]));
}

function asSchema(value: unknown): Schema {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
