import addFormats from "ajv-formats";
import { Ajv, type Options } from "ajv";
import type { FastifyInstance } from "fastify";

const strict: Options = { removeAdditional: false, useDefaults: true, allErrors: false, strict: false };

/**
 * Fastify's defaults would drop unknown fields and turn `{"name": 5}` into `"5"`. Here nothing is dropped, and only what comes
 * as text by nature (query and path) is converted.
 */
export function installValidation(app: FastifyInstance): void {
  const forBodies = addFormats.default(new Ajv({ ...strict, coerceTypes: false }), ["date-time"]);
  const forText = addFormats.default(new Ajv({ ...strict, coerceTypes: true }), ["date-time"]);
  app.setValidatorCompiler(({ schema, httpPart }) => (httpPart === "body" ? forBodies : forText).compile(schema as object));
}
