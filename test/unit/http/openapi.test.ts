import { Ajv } from "ajv";
import type { FastifyBaseLogger } from "fastify";
import { beforeAll, expect, test } from "vitest";
import { errorCodes } from "../../../src/errors.ts";
import { type AppParts, buildApp } from "../../../src/http/app.ts";
import { statusOf } from "../../../src/http/error-handler.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";

type Json = Record<string, unknown>;
type Parameter = {
  name: string;
  in: string;
  required?: boolean;
  description?: string;
  example?: unknown;
  schema: Json;
};
type Media = { schema: Json; example?: unknown };
type Answer = { $ref?: string; description?: string; content?: Record<string, Media> };
type Operation = {
  operationId?: string;
  summary?: string;
  description?: string;
  tags?: string[];
  security?: unknown[];
  parameters?: Parameter[];
  requestBody?: { required?: boolean; content: Record<string, Media> };
  responses: Record<string, Answer>;
};
type Document = {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Json>; responses: Record<string, Answer>; securitySchemes: Json };
  security: Json[];
  tags: { name: string; description?: string }[];
};

let document: Document;
let operations: { name: string; path: string; method: string; operation: Operation }[];

beforeAll(async () => {
  const log: FastifyBaseLogger = createLogger("silent");
  // The document is made of the routes' schemas; no route is called here, so that none of its parts is needed.
  const parts = {
    log,
    trustProxy: [],
    consent: {},
    metricsOnApi: true,
    sandbox: null,
    publicUrl: "http://localhost:8080",
    organisation: { name: null, contact: null },
  };
  const app = await buildApp(parts as unknown as AppParts);
  await app.ready();
  document = app.swagger() as unknown as Document;
  operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ name: `${method} ${path}`, path, method, operation })),
  );
  await app.close();
});

/** Every schema below a value of the document, with the way to it. Examples hold none. */
function schemasIn(value: unknown, way: string): { way: string; schema: Json }[] {
  if (typeof value !== "object" || value === null) return [];
  const inner = Object.entries(value)
    .filter(([key]) => !["example", "examples", "default", "enum"].includes(key))
    .flatMap(([key, each]) => schemasIn(each, `${way}/${key}`));
  return [{ way, schema: value as Json }, ...inner];
}

const everywhere = () => [...schemasIn(document.paths, "paths"), ...schemasIn(document.components, "components")];
const isText = (value: unknown): boolean => typeof value === "string" && value.trim().length > 2;

test("every operation has a summary, a description, a tag that is explained, and a name of its own that can be a method's", () => {
  const explained = new Set(document.tags.filter(({ description }) => isText(description)).map(({ name }) => name));
  const faults = operations.filter(({ operation: { operationId = "", summary, description, tags = [] } }) => {
    const isNamed = /^[a-z]+[A-Z][A-Za-z]*$/.test(operationId);
    return !isNamed || !isText(summary) || !isText(description) || tags.length !== 1 || !explained.has(tags[0] ?? "");
  });
  expect(faults.map(({ name }) => name)).toEqual([]);
  const names = operations.map(({ operation }) => operation.operationId);
  expect(names.length).toBeGreaterThan(25);
  expect(new Set(names).size).toBe(names.length);
});

test("every parameter has a description and an example, and one with a default is not required", () => {
  const parameters = operations.flatMap(({ name, operation }) =>
    (operation.parameters ?? []).map((parameter) => ({ way: `${name} ${parameter.name}`, parameter })),
  );
  expect(parameters.length).toBeGreaterThan(30);
  const bare = parameters.filter(
    ({ parameter: { description, example } }) => !isText(description) || example === undefined,
  );
  expect(bare.map(({ way }) => way)).toEqual([]);
  const wrong = parameters.filter(({ parameter }) => (parameter.required ?? false) !== (parameter.in === "path"));
  expect(wrong.map(({ way }) => way)).toEqual([]);
});

test("every property of every schema has a description, and none with a default is required", () => {
  const faults = everywhere().flatMap(({ way, schema: { properties, required = [] } }) => {
    if (typeof properties !== "object" || properties === null || way.endsWith("/properties")) return [];
    return Object.entries(properties as Record<string, Json>)
      .filter(
        ([name, schema]) =>
          !isText(schema["description"]) || ("default" in schema && (required as string[]).includes(name)),
      )
      .map(([name]) => `${way} ${name}`);
  });
  expect(faults).toEqual([]);
});

test("every object with fields is a component with a name, a description and an example that fits it", () => {
  const inline = everywhere().filter(
    ({ way, schema }) =>
      "properties" in schema && !/^components\/schemas\/[A-Za-z]+$/.test(way) && !way.endsWith("/properties"),
  );
  expect(inline.map(({ way }) => way)).toEqual([]);
  const { schemas } = document.components;
  for (const name of ["Token", "Connection", "Client", "Problem", "Key", "ConsentLink", "Event", "Provider"]) {
    expect(Object.keys(schemas)).toContain(name);
  }
  const bare = Object.entries(schemas).filter(
    ([, { description, examples, enum: values }]) =>
      !isText(description) || (values === undefined && !Array.isArray(examples)),
  );
  expect(bare.map(([name]) => name)).toEqual([]);
  const ajv = new Ajv({ strict: false, validateFormats: false }).addSchema({ $id: "document", ...document });
  for (const [name, { examples = [], properties = {} }] of Object.entries(schemas)) {
    for (const example of examples as unknown[]) {
      expect([name, ajv.validate({ $ref: `document#/components/schemas/${name}` }, example), ajv.errors]).toEqual([
        name,
        true,
        null,
      ]);
      const fields = typeof example === "object" ? Object.keys(example ?? {}) : [];
      expect(Object.keys(properties as Json), name).toEqual(expect.arrayContaining(fields));
    }
  }
});

function resolve(schema: Json): Json {
  const { $ref } = schema;
  if (typeof $ref !== "string") return schema;
  const target = document.components.schemas[$ref.replace("#/components/schemas/", "")];
  if (target === undefined) throw new Error(`nothing stands at ${$ref}`);
  return target;
}

test("every answer is described by more than its status; every error answer is a named one, with the codes that it may carry", () => {
  const { responses } = document.components;
  for (const { name, operation } of operations) {
    for (const [status, answer] of Object.entries(operation.responses)) {
      expect(status, name).toMatch(/^\d\d\d$/);
      if (Number(status) >= 400 && !(name === "get /readyz" && status === "503")) {
        expect(answer.$ref, `${name} ${status}`).toMatch(/^#\/components\/responses\/[A-Za-z]+$/);
        continue;
      }
      expect(answer.description, `${name} ${status}`).not.toBe("Default Response");
      for (const media of Object.values(answer.content ?? {})) {
        expect(media, `${name} ${status}`).toHaveProperty("example");
      }
    }
  }
  const told = Object.values(responses)
    .map(({ description = "" }) => description)
    .join(" ");
  // No operation has a wrong method.
  expect(errorCodes.filter((code) => code !== "method_not_allowed" && !told.includes(`\`${code}\``))).toEqual([]);
});

test("an operation that needs a key may answer 401 and 403, and one with a body 413 and 415", () => {
  for (const { name, operation } of operations) {
    const statuses = Object.keys(operation.responses).map(Number);
    if (operation.security === undefined) expect(statuses, name).toEqual(expect.arrayContaining([401, 403, 429]));
    const { payload_too_large, unsupported_media_type } = statusOf;
    const ofBodies = operation.requestBody ? [payload_too_large, unsupported_media_type] : [];
    expect(statuses, name).toEqual(expect.arrayContaining(ofBodies));
  }
});

test("a body is required only where something in it is", () => {
  for (const { name, operation } of operations) {
    const { requestBody } = operation;
    if (requestBody === undefined) continue;
    const { required = [], minProperties = 0 } = resolve(requestBody.content["application/json"]?.schema ?? {});
    expect([name, requestBody.required ?? false]).toEqual([
      name,
      (required as string[]).length > 0 || Number(minProperties) > 0,
    ]);
    expect(requestBody.content["application/json"], name).toHaveProperty("example");
  }
});
