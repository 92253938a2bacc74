import swagger, { type FastifyDynamicSwaggerOptions, type StaticDocumentSpec } from "@fastify/swagger";
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Asker } from "../console/asker.ts";
import type { ErrorCode } from "../errors.ts";
import { installErrorHandler } from "./error-handler.ts";
import { finishDocument } from "./openapi-document.ts";
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
      { name: "recovery", description: "After a restored database (ability `admin`)" },
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

/** `/openapi.json`, and `/docs` to browse it. What shows it is loaded when somebody looks at it first. */
export function apiReference(app: FastifyInstance, asker: Asker): void {
  const schema = { hide: true };
  let document: string | undefined; // written once: anybody may ask for it, and it is long
  app.get("/openapi.json", { schema }, async (_request, reply) => {
    document ??= JSON.stringify(app.swagger());
    return await reply.type("application/json; charset=utf-8").send(document);
  });

  let viewer: Promise<FastifyInstance> | undefined;
  const show = async ({ method, url, headers }: FastifyRequest, reply: FastifyReply) => {
    viewer ??= createViewer(app.swagger(), asker).catch((error: unknown) => {
      viewer = undefined; // the next one tries again
      throw error;
    });
    const answer = await (await viewer).inject({ method: method as "GET" | "HEAD", url, headers });
    // As every answer of the API; the viewer's own files would say otherwise. A page for a wrong address has its own policy.
    const policy = answer.statusCode < 400 ? viewerHeaders : {};
    reply.headers({ ...answer.headers, ...policy, "cache-control": "no-store" });
    return await reply.code(answer.statusCode).send(answer.rawPayload);
  };
  for (const path of ["/docs", "/docs/*"]) app.get(path, { schema }, show);
}

/** The viewer runs its own scripts and asks this broker alone; it stands in no frame, since it shares its origin with consent pages. */
const viewerHeaders = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  "referrer-policy": "no-referrer",
  "x-frame-options": "DENY",
  "x-robots-tag": "noindex, nofollow",
};

async function createViewer(document: ReturnType<FastifyInstance["swagger"]>, asker: Asker): Promise<FastifyInstance> {
  const viewer = fastify();
  installErrorHandler(viewer, { asker });
  // The types of the two modes name the same document differently.
  const specification = { document } as StaticDocumentSpec;
  await viewer.register(swagger, { mode: "static", specification });
  await viewer.register((await import("@fastify/swagger-ui")).default, { routePrefix: "/docs" });
  return viewer;
}
