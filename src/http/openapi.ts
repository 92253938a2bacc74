import { STATUS_CODES } from "node:http";
import swagger from "@fastify/swagger";
import type { FastifyDynamicSwaggerOptions, StaticDocumentSpec } from "@fastify/swagger";
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { type ErrorCode, errorCodes } from "../errors.ts";
import { type Answering, installErrorHandler, statusOf } from "./error-handler.ts";
import { problemSchema } from "./schemas.ts";
import { noFields } from "./validation.ts";

declare module "fastify" {
  interface FastifySchema {
    /** Codes of the errors that the route may answer with beside those of every route. */
    problems?: readonly ErrorCode[];
  }
}

/** The frame of the OpenAPI document; the routes fill in the rest. */
export const openApi: FastifyDynamicSwaggerOptions = {
  openapi: {
    openapi: "3.1.0",
    info: {
      title: "Freshet",
      version: "0.1.0",
      description:
        "A self-hosted OAuth token broker. Errors are RFC 9457 problems; their `code` is a closed set, listed in the schema Problem.",
      license: { name: "MIT", identifier: "MIT" },
    },
    components: {
      securitySchemes: {
        key: { type: "http", scheme: "bearer", description: "A key of this broker: `Authorization: Bearer <key>`" },
      },
    },
    security: [{ key: [] }],
    servers: [{ url: "/", description: "This broker" }],
    tags: [
      { name: "tokens", description: "What services call (ability `tokens`)" },
      { name: "connections", description: "What ops and provisioning code call (ability `connections`)" },
      { name: "clients", description: "OAuth clients (ability `admin`)" },
      { name: "providers", description: "Definitions in force (ability `admin`)" },
      { name: "keys", description: "API keys (ability `admin`)" },
      { name: "workloads", description: "Callers that show a JWT of their platform (ability `admin`)" },
      { name: "audit", description: "Who did what (ability `admin`)" },
      { name: "recovery", description: "After a restored database (ability `admin`)" },
      { name: "encryption", description: "Encryption keys, and rotating them (ability `admin`)" },
      { name: "health", description: "For orchestrators and Prometheus; no key" },
    ],
  },
  transform: ({ schema, url }) => {
    if (schema === undefined) return { schema, url };
    const { body, problems, ...rest } = schema;
    const told = problems === undefined ? rest : { ...rest, "x-problems": problems };
    return { schema: body === undefined || body === noFields ? told : { ...told, body }, url };
  },
  transformObject: (document) => ("openapiObject" in document ? finishDocument(document.openapiObject) : {}),
};

/** `/openapi.json`, and `/docs` to browse it. The viewer is loaded when somebody opens it for the first time. */
export function apiReference(app: FastifyInstance, answering: Answering): void {
  const schema = { hide: true };
  let document: string | undefined; // made once, since it is long and anybody may ask for it
  app.get("/openapi.json", { schema }, async (_request, reply) => {
    document ??= JSON.stringify(app.swagger());
    return await reply.type("application/json; charset=utf-8").send(document);
  });

  let viewer: Promise<FastifyInstance> | undefined;
  const show = async ({ method, url, headers }: FastifyRequest, reply: FastifyReply) => {
    viewer ??= createViewer(app.swagger(), answering).catch((error: unknown) => {
      viewer = undefined; // the next request tries again
      throw error;
    });
    const answer = await (await viewer).inject({ method: method as "GET" | "HEAD", url, headers });
    // The viewer's files would set other ones. A page for a wrong address has a policy of its own.
    const policy = answer.statusCode < 400 ? { ...answering.headers, ...viewerHeaders } : {};
    reply.headers({ ...answer.headers, ...policy });
    return await reply.code(answer.statusCode).send(answer.rawPayload);
  };
  for (const path of ["/docs", "/docs/*"]) app.get(path, { schema }, show);
}

/** The viewer may run its own scripts and call this broker only. It must not be framed, since it has the origin of the consent pages. */
const viewerHeaders = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  "x-robots-tag": "noindex, nofollow",
};

async function createViewer(
  document: ReturnType<FastifyInstance["swagger"]>,
  answering: Answering,
): Promise<FastifyInstance> {
  const viewer = fastify();
  installErrorHandler(viewer, answering);
  // The types of the two modes name the same document differently.
  const specification = { document } as StaticDocumentSpec;
  await viewer.register(swagger, { mode: "static", specification });
  // The other layout has a bar with a logo, whose style stands in it and would need an exception in the policy.
  const uiConfig = { layout: "BaseLayout" };
  await viewer.register((await import("@fastify/swagger-ui")).default, { routePrefix: "/docs", uiConfig });
  return viewer;
}

type Schema = {
  title?: string;
  description?: string;
  example?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
  minProperties?: number;
  items?: Schema;
  additionalProperties?: Schema | boolean;
  anyOf?: Schema[];
  default?: unknown;
};
type Media = { schema: Schema; example?: unknown };
type Parameter = { in: string; required?: boolean; schema: Schema; example?: unknown };
type Answer = { $ref: string } | { description: string; content?: Record<string, Media>; headers?: object };
type Operation = {
  security?: unknown[];
  parameters?: Parameter[];
  requestBody?: { required?: boolean; content: Record<string, Media> };
  responses: Record<string, Answer>;
  "x-problems"?: ErrorCode[];
};
type Document = {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas?: Record<string, Schema>; responses?: Record<string, Answer> };
};

/**
 * Changes Fastify's document so that clients can be generated from it: each schema with a `title` becomes a component of that name,
 * fields with a default are not required, examples stand where OpenAPI 3.1 has them, and each operation names its error answers. The
 * schemas of the routes stay as they are, since they check requests and write answers.
 */
function finishDocument(written: object): object {
  const document = copyOf(written) as Document; // its schemas are those of the routes
  const schemas: Record<string, Schema> = {};
  const problem = nameSchema(copyOf(problemSchema) as Schema, schemas);
  for (const operations of Object.values(document.paths)) {
    for (const operation of Object.values(operations)) finishOperation(operation, schemas);
  }
  document.components.responses = Object.fromEntries(
    Object.keys(answerNames).map((status) => [answerNames[Number(status)] ?? "", errorAnswer(Number(status), problem)]),
  );
  document.components.schemas = sorted(schemas);
  return document;
}

function copyOf(value: object): unknown {
  return JSON.parse(JSON.stringify(value));
}

function finishOperation(operation: Operation, schemas: Record<string, Schema>): void {
  const { parameters = [], requestBody, responses } = operation;
  for (const parameter of parameters) {
    const { example, ...schema } = parameter.schema;
    Object.assign(parameter, {
      required: parameter.in === "path" || (parameter.required === true && !("default" in schema)),
      schema: nameSchema(schema, schemas),
      example,
    });
  }
  for (const media of Object.values(requestBody?.content ?? {})) {
    const { required = [], minProperties = 0 } = media.schema;
    // No body at all is read as an empty object (validation.ts).
    if (requestBody) requestBody.required = required.length > 0 || minProperties > 0;
    finishMedia(media, schemas);
  }
  for (const answer of Object.values(responses)) {
    if ("content" in answer) for (const media of Object.values(answer.content ?? {})) finishMedia(media, schemas);
  }
  for (const status of errorStatuses(operation)) {
    responses[status] ??= { $ref: `#/components/responses/${answerNames[status]}` };
  }
  delete operation["x-problems"];
}

function finishMedia(media: Media, schemas: Record<string, Schema>): void {
  const { example } = media.schema;
  Object.assign(media, { schema: nameSchema(media.schema, schemas), example });
}

/** The schema as it stands where it is used: a reference where it has a name, which is then among `schemas`. */
function nameSchema(given: Schema, schemas: Record<string, Schema>): Schema {
  const { title, example, properties, required, items, additionalProperties, anyOf, ...rest } = given;
  const name = (inner: Schema) => nameSchema(inner, schemas);
  const schema = {
    ...rest,
    ...(required && { required: required.filter((field) => !("default" in (properties?.[field] ?? {}))) }),
    ...(properties && {
      properties: Object.fromEntries(Object.entries(properties).map(([field, inner]) => [field, name(inner)])),
    }),
    ...(items && { items: name(items) }),
    ...(additionalProperties !== undefined && {
      additionalProperties:
        typeof additionalProperties === "object" ? name(additionalProperties) : additionalProperties,
    }),
    ...(anyOf && { anyOf: anyOf.map(name) }),
    ...(example !== undefined && { examples: [example] }),
  };
  if (title === undefined) return schema;
  const known = schemas[title] ?? schema;
  if (shapeOf(known) !== shapeOf(schema)) throw new Error(`Two schemas are called ${title}.`);
  schemas[title] = known;
  const { description } = schema;
  return { $ref: `#/components/schemas/${title}`, ...(description !== undefined && { description }) } as Schema;
}

/** A schema without its descriptions and examples, which may differ from use to use. */
function shapeOf({ description: _words, ...schema }: Schema): string {
  return JSON.stringify({ ...schema, examples: undefined });
}

/** Names of the error answers, by status. A wrong method has no operation, and so none. */
const answerNames: Readonly<Record<number, string>> = {
  400: "InvalidRequest",
  401: "Unauthenticated",
  403: "Forbidden",
  404: "NotFound",
  409: "Conflict",
  410: "Expired",
  413: "PayloadTooLarge",
  415: "UnsupportedMediaType",
  422: "ProviderRejected",
  429: "RateLimited",
  500: "InternalError",
  502: "ClientRejected",
  503: "Unavailable",
};

const words: Readonly<Record<number, string>> = {
  400: "Something of the request is wrong; the detail names the field and what is allowed.",
  401: "The caller's own key is missing, unknown, expired or revoked.",
  403: "The key lacks the ability or the patterns for this.",
  404: "It does not exist, or is not for this key.",
  409: "It cannot be done as things stand; the detail says what has to happen first.",
  410: "It has come too late; the detail says how to begin again.",
  413: "The body is larger than 64 KiB.",
  415: "The body is not JSON.",
  422: "The provider refuses; the detail has what it said.",
  429: "Too many requests with wrong keys came from this address.",
  500: "Something is wrong in the broker; its log says more.",
  502: "The provider refuses the broker's own client id or secret.",
  503: "It passes: send the same request again after Retry-After.",
};

function errorStatuses({ security, requestBody, "x-problems": further = [] }: Operation): number[] {
  const open: ErrorCode[] = ["internal_error"];
  const withKey: ErrorCode[] =
    security === undefined
      ? ["invalid_request", "unauthenticated", "forbidden", "rate_limited", "storage_unavailable"]
      : [];
  const withBody: ErrorCode[] = requestBody === undefined ? [] : ["payload_too_large", "unsupported_media_type"];
  return [...new Set([...open, ...withKey, ...withBody, ...further].map((code) => statusOf[code]))];
}

function errorAnswer(status: number, problem: Schema): Answer {
  const codes = errorCodes.filter((code) => statusOf[code] === status);
  const detail = words[status] ?? "";
  const example = { type: "about:blank", title: STATUS_CODES[status], status, code: codes[0], detail };
  const retry = { description: "Seconds to wait", schema: { type: "integer" }, example: 5 };
  return {
    description: `${detail} \`code\`: ${codes.map((code) => `\`${code}\``).join(", ")}.`,
    ...(status === 429 || status === 503 ? { headers: { "Retry-After": retry } } : {}),
    content: { "application/problem+json": { schema: problem, example } },
  };
}

function sorted<T>(map: Record<string, T>): Record<string, T> {
  return Object.fromEntries(Object.entries(map).toSorted(([one], [other]) => (one < other ? -1 : 1)));
}
