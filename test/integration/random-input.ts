import * as fc from "fast-check";
import { expect } from "vitest";
import type { Answer, WrongInputStage } from "../support/wrong-input-stage.ts";

/** A JSON schema, as far as those of requests go. */
type Schema = {
  type?: string;
  enum?: string[];
  format?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  additionalProperties?: Schema | false;
};
type Parameter = { in: "path" | "query"; name: string; schema: Schema };
type Operation = {
  parameters?: Parameter[];
  requestBody?: { content: Record<string, { schema: Schema }> };
  responses: Record<string, unknown>;
};
type Document = {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
};
/** `statuses`: what the OpenAPI document says that it may answer with. */
type Route = {
  method: "GET" | "POST" | "PATCH";
  path: string;
  query: Parameter[];
  body: Schema | null;
  statuses: number[];
};

const runs = 300;

/** Things with known names, so that some of the random requests get past the first checks. None of them is reached over a network. */
const known: Record<string, string[]> = {
  name: ["acme", "new-1", "new-2", "a..b", "manual"],
  connection: ["acme", "acme-held", "acme-short", "acme-off", "acme-copied", "acme-machine", "nope"],
  client: ["sandbox", "manual", "machine", "unused"],
  provider: ["sandbox", "machine", "apicbase", "oauth2"],
  id: ["abcdefabcdef"],
  expires_at: [
    "9999-12-31T23:59:59.999999999Z",
    "1970-01-01T00:00:00Z",
    "2030-06-30T23:59:59+23:59",
    "2030-06-30 23:59:60Z",
  ],
  return_to: ["https://app.example/", "https://app.example/\u{1f600}?a=%00#x"],
  label: ["team:a", ":", "a:b:c", "%:_"],
  cursor: ["0", "999999999999999999"],
};

const oddText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: "grapheme", maxLength: 300 }),
  fc.constantFrom(
    "",
    "\0",
    "\ud800",
    "a\udfffb",
    "%",
    "'",
    "\\",
    "__proto__",
    "constructor",
    "../..",
    "\u202e",
    "\ufffe",
    "x".repeat(5000),
  ),
);
const keys = fc.oneof(fc.constantFrom("team", "password", "username"), oddText);
const oddNumber = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(-0, 2 ** 31, 2 ** 53, 1e21, -1e308));
const odd = fc.oneof(oddText, oddNumber, fc.jsonValue(), fc.constantFrom(null, true, [], {}));

/** Mostly what a schema asks for, and sometimes not. */
function valueFor(name: string, schema: Schema): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 6, arbitrary: rightValue(name, schema) }, { weight: 1, arbitrary: odd });
}

function rightValue(name: string, schema: Schema): fc.Arbitrary<unknown> {
  const { type, properties, items, additionalProperties } = schema;
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (type === "integer" || type === "number") return fc.oneof(fc.integer({ min: 0, max: 100 }), oddNumber);
  if (type === "boolean") return fc.boolean();
  if (type === "array") return fc.array(valueFor(name, items ?? {}), { maxLength: 4 });
  if (properties) return objectOf(properties);
  if (additionalProperties) return fc.dictionary(keys, valueFor("", additionalProperties));
  return known[name] ? fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...known[name]) }, oddText) : oddText;
}

function objectOf(properties: Record<string, Schema>): fc.Arbitrary<object> {
  const fields = Object.fromEntries(Object.entries(properties).map(([name, schema]) => [name, valueFor(name, schema)]));
  return fc.record(fields, { requiredKeys: [] });
}

/** JSON text: of an object of the schema's fields, of anything, or none at all. */
function bodyFor({ body }: Route): fc.Arbitrary<string> {
  const right = objectOf(body?.properties ?? {});
  const json = fc
    .oneof({ weight: 8, arbitrary: right }, { weight: 1, arbitrary: odd })
    .map((value) => JSON.stringify(value));
  return fc.oneof({ weight: 12, arbitrary: json }, oddText);
}

function pathFor({ path }: Route): fc.Arbitrary<string> {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => name);
  const segments = names.map((name) =>
    fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...(known[name] ?? ["x"])) }, oddText),
  );
  return fc
    .tuple(...segments)
    .map((values) =>
      names.reduce((rest, name, index) => rest.replace(`{${name}}`, () => encode(values[index] ?? "")), path),
    );
}

function queryFor({ query }: Route): fc.Arbitrary<string> {
  const pair = fc
    .constantFrom(...query, { in: "query", name: "odd", schema: {} } as const)
    .chain(({ name, schema }) =>
      fc.tuple(fc.oneof({ weight: 9, arbitrary: fc.constant(name) }, oddText), valueFor(name, schema)),
    );
  const pairs = fc
    .array(pair, { maxLength: 4 })
    .map((list) =>
      list
        .map(([name, value]) => `${encode(name)}=${encode(typeof value === "string" ? value : JSON.stringify(value))}`)
        .join("&"),
    );
  return fc.oneof(
    { weight: 9, arbitrary: pairs },
    oddText.map((text) => text.replaceAll(/[^!-~]|#/g, "")),
  );
}

/** As bytes on the wire; half a surrogate pair as UTF-8 would have it. */
function encode(text: string): string {
  return Array.from(text, (character) => (character.isWellFormed() ? encodeURIComponent(character) : "%ED%A0%80")).join(
    "",
  );
}

/** A provider may refuse what it is sent, or be away: those codes are answers too. */
function expectAnswer({ status, headers, text }: Answer, { method, path, statuses }: Route): void {
  expect(status, text).not.toBe(500);
  // A path may have become another one, such as `/connections/../..`. Then the document says something else about it, or nothing.
  const isItself = !/\/(\.|%2e){1,2}(\/|$)|\/$|\/\//i.test(path);
  if (isItself) expect(statuses, `${method} ${path}: ${text}`).toContain(status);
  if (status < 400) return;
  expect(headers["content-type"]).toBe("application/problem+json; charset=utf-8");
  const { code, detail } = JSON.parse(text) as { code: string; detail: string };
  if (status >= 500) expect(["client_rejected", "provider_unavailable", "refresh_in_progress"]).toContain(code);
  expect(detail).not.toBe("");
  expect(text).not.toMatch(/canary-|node_modules/);
}

async function check(property: fc.IAsyncProperty<unknown[]>): Promise<void> {
  const seed = Math.floor(Math.random() * 2 ** 31);
  process.stdout.write(`random input: seed ${seed}\n`);
  await fc.assert(property, { numRuns: runs, seed, endOnFailure: false });
}

async function routesOf({ broker }: WrongInputStage): Promise<Route[]> {
  const { body: document } = await broker.api.api<Document>("/openapi.json");
  const paths = withoutReferences(document.paths, document.components.schemas) as Document["paths"];
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, { parameters = [], requestBody, responses }]) => ({
      method: method.toUpperCase() as Route["method"],
      path,
      query: parameters.filter((parameter) => parameter.in === "query"),
      body: requestBody?.content["application/json"]?.schema ?? null,
      statuses: Object.keys(responses).map(Number),
    })),
  );
}

/** With the schemas themselves where the document names them. */
function withoutReferences(value: unknown, schemas: Record<string, Schema>): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((each) => withoutReferences(each, schemas));
  const [, name] = "$ref" in value ? (/^#\/components\/schemas\/(.+)$/.exec(String(value.$ref)) ?? []) : [];
  if (name !== undefined) return withoutReferences(schemas[name], schemas);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withoutReferences(each, schemas)]));
}

/** POSTs and PATCHes with bodies made up by chance. */
export async function sendRandomBodies(stage: WrongInputStage): Promise<void> {
  const writing = (await routesOf(stage)).filter(({ method }) => method === "POST" || method === "PATCH");
  const sending = fc
    .constantFrom(...writing)
    .chain((route) => fc.tuple(fc.constant(route), pathFor(route), bodyFor(route)));
  const headers = { "content-type": "application/json" };
  await check(
    fc.asyncProperty(sending, async ([route, path, raw]) =>
      expectAnswer(await stage.send({ method: route.method, path, raw, headers }), { ...route, path }),
    ),
  );
}

/** GETs with paths and queries made up by chance. */
export async function sendRandomQueries(stage: WrongInputStage): Promise<void> {
  const reading = (await routesOf(stage)).filter(({ method }) => method === "GET");
  const sending = fc
    .constantFrom(...reading)
    .chain((route) => fc.tuple(fc.constant(route), pathFor(route), queryFor(route)));
  await check(
    fc.asyncProperty(sending, async ([route, path, query]) =>
      expectAnswer(await stage.send({ path: `${path}?${query}` }), { ...route, path }),
    ),
  );
}
