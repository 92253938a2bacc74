import addFormats from "ajv-formats";
import { Ajv, type Options, type ValidateFunction } from "ajv";
import fastJsonStringify, { type Schema } from "fast-json-stringify";
import type { FastifyInstance } from "fastify";
import { BrokerError } from "../errors.ts";
import { closed } from "./schemas.ts";

const strict: Options = { removeAdditional: false, useDefaults: true, allErrors: false, strict: false };

/**
 * Fastify's defaults would drop unknown fields and turn `{"name": 5}` into `"5"`. Here nothing is dropped, and only query and path, which
 * are always text, are converted. Bodies are JSON in UTF-8, and an empty one is the same as none. Each schema is compiled when it is
 * first used.
 */
export function installSchemas(app: FastifyInstance): void {
  const forBodies = createAjv({ ...strict, coerceTypes: false });
  const forText = createAjv({ ...strict, coerceTypes: true });
  app.setValidatorCompiler(({ schema, httpPart }) =>
    compiledWhenUsed(() => (httpPart === "body" ? forBodies : forText).compile(schema as object)),
  );

  app.setSerializerCompiler(({ schema }) => {
    let serialize: ((answer: unknown) => string) | undefined;
    return (answer: unknown) => (serialize ??= fastJsonStringify(schema as Schema))(answer);
  });

  const parseJson = app.getDefaultJsonParser("error", "error");
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (request, body, done) => {
    if (body.length === 0) return done(null);
    const text = decodeUtf8(body as Buffer);
    if (text === null) return done(new BrokerError("invalid_request", "The body is not valid UTF-8."));
    return void parseJson(request, text, done);
  });
}

/** Compiling the schemas of all routes would take a third of a start, and most processes use only a few of them. */
function compiledWhenUsed(compile: () => ValidateFunction): FastifyValidator {
  let compiled: ValidateFunction | undefined;
  const validate: FastifyValidator = (data) => {
    compiled ??= compile();
    const isValid = compiled(data);
    validate.errors = compiled.errors ?? null;
    return isValid;
  };
  return validate;
}

type FastifyValidator = ((data: unknown) => boolean) & Pick<ValidateFunction, "errors">;

/** Refuses fields that no schema names, also on routes without a schema for query or body. */
export function refuseUnknownFields(scope: FastifyInstance): void {
  scope.addHook("onRoute", (route) => {
    const { querystring = noFields, body = noFields } = route.schema ?? {};
    const takesBody = route.method === "POST" || route.method === "PATCH";
    route.schema = { ...route.schema, querystring, ...(takesBody ? { body } : {}) };
  });

  scope.addHook("preValidation", async (request) => {
    const repeated = Object.entries(request.query as object).find(([, value]) => Array.isArray(value));
    if (repeated) throw new BrokerError("invalid_request", `${shown(repeated[0])}: is given more than once.`);
    if (request.body === undefined && request.routeOptions.schema?.body !== undefined) request.body = {};
  });
}

/**
 * Refuses text that Postgres cannot store (NUL and halves of surrogate pairs, in `text` and in `jsonb`) and other control characters,
 * which nobody types on purpose, anywhere in path, query and body. Line ends and tabs are allowed, since people paste them.
 */
export function refuseControlCharacters(scope: FastifyInstance): void {
  // After validation, which limits how deep a body can be.
  scope.addHook("preHandler", async ({ params, query, body }) => {
    for (const part of [params, query, body]) requireText(part, []);
  });
}

/** The schema of an empty query or body. */
export const noFields = closed({});

const longestShown = 80;

/** A name that a caller has chosen, for a text. */
export function shown(name: string): string {
  return name.length > longestShown ? `${name.slice(0, longestShown)}…` : name;
}

function requireText(value: unknown, path: readonly string[]): void {
  if (typeof value === "string" && unprintable.test(value)) {
    throw new BrokerError(
      "invalid_request",
      `${path.map(shown).join(".")}: must not hold control characters or broken Unicode.`,
    );
  }
  if (typeof value !== "object" || value === null) return;
  for (const [name, inner] of Object.entries(value)) {
    if (unprintable.test(name)) {
      throw new BrokerError(
        "invalid_request",
        `${path.join(".")}: a name in it must not hold control characters or broken Unicode.`,
      );
    }
    requireText(inner, [...path, name]);
  }
}

const unprintable = /(?![\t\n\r])[\p{Cc}\p{Cs}]/u;

function createAjv(options: Options): Ajv {
  const ajv = new Ajv(options);
  ajv.addFormat("date-time", isDateTime);
  return ajv;
}

const rfc3339 = addFormats.default.get("date-time") as { validate: (text: string) => boolean };

/** RFC 3339, section 5.6; no leap seconds, and only years that JavaScript and Postgres write alike. */
function isDateTime(text: string): boolean {
  const year = new Date(text).getUTCFullYear();
  return rfc3339.validate(text) && year >= 1970 && year <= 9999;
}

function decodeUtf8(bytes: Buffer): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}
