import type { Socket } from "node:net";
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Asker } from "../console/asker.ts";
import { BrokerError } from "../errors.ts";
import { UnreadableSecretError } from "../unreadable.ts";
import { rawProblem, sendProblem, statusOf } from "./problem.ts";
import { shown } from "./validation.ts";

const faultsOfCallers: Record<string, (error: FastifyError) => BrokerError> = {
  FST_ERR_CTP_BODY_TOO_LARGE: () => new BrokerError("payload_too_large", "The body is larger than 64 KiB."),
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () =>
    new BrokerError("unsupported_media_type", "The body must be JSON, with content-type application/json."),
  FST_ERR_CTP_INVALID_JSON_BODY: () =>
    new BrokerError("invalid_request", "The body is not valid JSON (where nothing may be named __proto__)."),
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: () =>
    new BrokerError("invalid_request", "The body is not as long as its content-length says."),
  FST_ERR_BAD_URL: () => new BrokerError("invalid_request", "The path is not a valid URL path."),
  FST_ERR_MAX_PARAM_LENGTH: () =>
    new BrokerError("invalid_request", `A part of the path is longer than ${longestParameter} characters.`),
};

const longestParameter = 512;
const requestTimeoutMs = 30_000;
/** How often Node looks for requests that are late. With its own 30 s they would be ended after up to a minute. */
const checkingIntervalMs = 2_000;
const lingerMs = 2_000;

/**
 * How Fastify is set up so that faults before routing are answered like all others, and nobody sends for ever. `asker`: who asks, on
 * pages for browsers; null where there are none.
 */
export const serverOptions = (asker: Asker | null) => ({
  requestTimeout: requestTimeoutMs,
  // Node takes the longer of the two for the whole request: its 60 s for headers would count for a body.
  http: {
    headersTimeout: requestTimeoutMs,
    requestTimeout: requestTimeoutMs,
    connectionsCheckingInterval: checkingIntervalMs,
  },
  routerOptions: { maxParamLength: longestParameter, caseSensitive: true },
  frameworkErrors: (error: FastifyError, request: FastifyRequest, reply: FastifyReply) =>
    void sendProblem(reply, toBrokerError(error), asker && { asker, path: pathOf(request.url) }),
  clientErrorHandler: (fault: ClientError, socket: Socket) => answerClientError(fault, { socket, asker }),
});

type ClientError = Error & { code?: string; rawPacket?: unknown };

/** What is not HTTP never becomes a request: the answer goes to the socket itself. */
function answerClientError(fault: ClientError, { socket, asker }: { socket: Socket; asker: Asker | null }): void {
  if (fault.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const detail =
    fault.code === "HPE_HEADER_OVERFLOW"
      ? "The path and the headers together are larger than 16 KiB."
      : fault.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? "The request did not arrive in time."
        : "The request is not valid HTTP/1.1.";
  const received = fault.rawPacket instanceof Buffer ? fault.rawPacket.toString("latin1") : "";
  void rawProblem(new BrokerError("invalid_request", detail), received, asker).then((answer) => socket.end(answer));
  // Who goes on writing has some time to read why; who never closes holds no connection.
  setTimeout(() => socket.destroy(), lingerMs).unref();
}

type ErrorHandling = {
  /** Who asks, on pages for browsers; null where there are none. */
  asker?: Asker | null;
  onUnreadable?: (error: UnreadableSecretError) => void;
};

/** One error handler for everything: whatever is thrown becomes a problem, and what is nobody's fault is logged. */
export function installErrorHandler(
  app: FastifyInstance,
  { asker = null, onUnreadable = () => {} }: ErrorHandling = {},
): void {
  const allowedMethods = collectMethods(app);

  app.setErrorHandler<FastifyError>(async (error, request, reply) => {
    const problem = toBrokerError(error);
    if (problem instanceof UnreadableSecretError) onUnreadable(problem);
    if (problem.code === "internal_error") {
      request.log.error({ err: error, route: request.routeOptions.url }, "unexpected error");
    }
    return await sendProblem(reply, problem, asker && { asker, path: pathOf(request.url) });
  });

  app.addHook("onRequest", async (_request, reply) => void reply.header("x-content-type-options", "nosniff"));

  // A connection that is closed while the client still writes is reset, and the client never reads why.
  app.addHook("onSend", async (_request, reply) => {
    if (reply.statusCode === statusOf.payload_too_large) reply.removeHeader("connection");
  });

  app.setNotFoundHandler(async (request: FastifyRequest, reply: FastifyReply) => {
    const methods = allowedMethods(request.url);
    const pageFor = asker && { asker, path: pathOf(request.url), methods };
    // With the right method it is a part of the path that leads nowhere, such as a file of the viewer's that does not exist.
    if (methods.length === 0 || methods.includes(request.method)) {
      return await sendProblem(reply, new BrokerError("not_found", "There is no such route."), pageFor);
    }
    reply.header("allow", methods.join(", "));
    const detail = `This route takes ${methods.join(", ")}, not ${request.method}.`;
    return await sendProblem(reply, new BrokerError("method_not_allowed", detail), pageFor);
  });
}

function toBrokerError(error: unknown): BrokerError {
  if (error instanceof BrokerError) return error;
  const { code, validation, statusCode, validationContext } = error as Partial<FastifyError>;
  if (validation) return new BrokerError("invalid_request", describeValidation(validation[0], validationContext));
  const known = faultsOfCallers[code ?? ""];
  if (known !== undefined) return known(error as FastifyError);
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new BrokerError("invalid_request", "The request is not valid.");
  }
  return new BrokerError("internal_error", "Something unexpected went wrong in the broker; its log says more.");
}

type ValidationFault = NonNullable<FastifyError["validation"]>[number] & { propertyName?: string };

/** Names the field and what is allowed; never repeats the value, which may be a secret. */
function describeValidation(fault: ValidationFault | undefined, context = "request"): string {
  if (fault === undefined) return "The request is not valid.";
  const part = context === "querystring" ? "query" : context;
  const path = fault.instancePath.split("/").slice(1).map(readPointerStep);
  const { additionalProperty, missingProperty } = fault.params;
  const place = (...more: unknown[]) => [...path, ...more].map((step) => shown(String(step))).join(".") || part;
  if (fault.keyword === "additionalProperties") {
    return `${place(additionalProperty)}: is not a known field of the ${part}.`;
  }
  if (fault.keyword === "required") return `${place(missingProperty)}: is required.`;
  if (fault.propertyName !== undefined) return `${place(fault.propertyName)}: the name ${allowed(fault)}.`;
  return `${place()}: ${allowed(fault)}.`;
}

function allowed({ keyword, params, message }: ValidationFault): string {
  const { allowedValues, pattern } = params;
  if (Array.isArray(allowedValues)) return `must be one of ${allowedValues.join(", ")}`;
  if (keyword === "pattern") return `must match ${String(pattern)}`;
  if (keyword === "format") return "must be a date and time such as 2030-01-31T12:00:00Z";
  return message ?? "is not valid";
}

/** RFC 6901, section 4. */
function readPointerStep(step: string): string {
  return step.replaceAll("~1", "/").replaceAll("~0", "~");
}

function pathOf(url: string): string {
  return url.split("?", 1)[0] ?? "";
}

/** Tells which methods a path has routes for, so that a wrong method is told from a wrong path (RFC 9110, 15.5.6). */
function collectMethods(app: FastifyInstance): (url: string) => string[] {
  const routes: { pattern: RegExp; methods: string[] }[] = [];
  app.addHook("onRoute", ({ url, method }) => {
    const source = url
      .replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)
      .replaceAll(/:[A-Za-z]+/g, "[^/]+")
      .replaceAll(String.raw`\*`, ".+");
    routes.push({ pattern: new RegExp(`^${source}$`), methods: [method].flat() });
  });
  return (url) => {
    const path = pathOf(url);
    return [...new Set(routes.filter(({ pattern }) => pattern.test(path)).flatMap(({ methods }) => methods))];
  };
}
