import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { BrokerError, type ErrorCode, UnreadableSecretError } from "../errors.ts";
import { errorPage } from "../pages/error-page.ts";
import { type Asker, pageHeaders } from "../pages/layout.ts";
import { callerTimes } from "../time.ts";
import type { AnswerHeaders } from "./headers.ts";
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

/** How errors are answered. */
export type Answering = {
  /** Of every answer. */
  headers: AnswerHeaders;
  /** Who asks, on pages for browsers; null: there are none. */
  asker: Asker | null;
};

/** Fastify's options: errors before routing get the same answers as all others, and no client can send for ever. */
export const serverOptions = (answering: Answering) => ({
  requestTimeout: callerTimes.requestMs,
  // Node uses the longer of the two for the whole request. So its default of 60 s for headers would also apply to a body.
  http: {
    headersTimeout: callerTimes.requestMs,
    requestTimeout: callerTimes.requestMs,
    connectionsCheckingInterval: callerTimes.requestCheckMs,
  },
  routerOptions: { maxParamLength: longestParameter, caseSensitive: true },
  frameworkErrors: (error: FastifyError, request: FastifyRequest, reply: FastifyReply) =>
    void sendProblem(reply, toBrokerError(error), { ...answering, path: pathOf(request.url) }),
  clientErrorHandler: (fault: ClientError, socket: Socket) => answerClientError(fault, { socket, answering }),
});

type ClientError = Error & { code?: string; rawPacket?: unknown };

/** Bytes that are not HTTP never become a request, so the answer is written to the socket. */
function answerClientError(fault: ClientError, { socket, answering }: { socket: Socket; answering: Answering }): void {
  if (fault.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const detail =
    fault.code === "HPE_HEADER_OVERFLOW"
      ? "The path and the headers together are larger than 16 KiB."
      : fault.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? "The request did not arrive in time."
        : "The request is not valid HTTP/1.1.";
  const received = fault.rawPacket instanceof Buffer ? fault.rawPacket.toString("latin1") : "";
  void rawProblem(new BrokerError("invalid_request", detail), received, answering).then((answer) => socket.end(answer));
  // A client that still writes has some time to read the answer. After that the connection is closed.
  setTimeout(() => socket.destroy(), callerTimes.lingerMs).unref();
}

type ErrorHandling = Answering & { onUnreadable?: (error: UnreadableSecretError) => void };

/** The one error handler: everything thrown becomes a problem, and faults of the broker are logged. Every answer gets its headers. */
export function installErrorHandler(
  app: FastifyInstance,
  { onUnreadable = () => {}, ...answering }: ErrorHandling,
): void {
  const allowedMethods = collectMethods(app);

  app.setErrorHandler<FastifyError>(async (error, request, reply) => {
    const problem = toBrokerError(error);
    if (problem instanceof UnreadableSecretError) onUnreadable(problem);
    if (problem.code === "internal_error") {
      request.log.error({ err: error, route: request.routeOptions.url }, "unexpected error");
    }
    return await sendProblem(reply, problem, { ...answering, path: pathOf(request.url) });
  });

  // Before every other hook, so that what those refuse has them, too.
  app.addHook("onRequest", (_request, reply, done) => {
    reply.headers(answering.headers);
    done();
  });

  // If the connection were closed while the client still writes, it would be reset, and the client could not read the answer.
  app.addHook("onSend", async (_request, reply) => {
    if (reply.statusCode === statusOf.payload_too_large) reply.removeHeader("connection");
  });

  app.setNotFoundHandler(async (request: FastifyRequest, reply: FastifyReply) => {
    const methods = allowedMethods(request.url);
    const asked = { ...answering, path: pathOf(request.url), methods };
    // The method is right, so a part of the path is wrong, such as a file of the viewer that does not exist.
    if (methods.length === 0 || methods.includes(request.method)) {
      return await sendProblem(reply, new BrokerError("not_found", "There is no such route."), asked);
    }
    reply.header("allow", methods.join(", "));
    const detail = `This route takes ${methods.join(", ")}, not ${request.method}.`;
    return await sendProblem(reply, new BrokerError("method_not_allowed", detail), asked);
  });
}

/** Every error as callers get it. */
export function toBrokerError(error: unknown): BrokerError {
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
  if (keyword === "pattern") return patternWords[String(pattern)] ?? `must match ${String(pattern)}`;
  if (keyword === "format") return "must be a date and time such as 2030-01-31T12:00:00Z";
  return message ?? "is not valid";
}

const nameWords = "must begin with a-z or 0-9 and go on with a-z 0-9 . _ -, at most 128 characters";

/** What the patterns of the API's schemas say, in words. */
const patternWords: Readonly<Record<string, string>> = {
  "^[a-z0-9][a-z0-9._-]{0,127}$": nameWords,
  "^(?!continue$)[a-z0-9][a-z0-9._-]{0,127}$": `${nameWords}, and not be "continue"`,
  "^[a-z0-9._*-]{1,128}$": "must be of a-z 0-9 . _ - and *, which stands for anything, at most 128 characters",
  "^[A-Za-z0-9._/-]{1,64}$": "must be of A-Z a-z 0-9 . _ / -, at most 64 characters",
  [String.raw`^[\x21\x23-\x5B\x5D-\x7E]{1,256}$`]: String.raw`must be of printable ASCII characters but space, " and \, at most 256`,
  [String.raw`^[\x20-\x7E]{1,16384}$`]: "must be of printable ASCII characters, at most 16384",
  "^[a-z][a-z0-9_]{0,62}$": "must begin with a-z and go on with a-z 0-9 _, at most 63 characters",
  "^[0-9]{1,18}$": "must be the next_cursor of the page before",
};

/** RFC 6901, section 4. */
function readPointerStep(step: string): string {
  return step.replaceAll("~1", "/").replaceAll("~0", "~");
}

function pathOf(url: string): string {
  return url.split("?", 1)[0] ?? "";
}

/** The methods that a path has routes for, to distinguish a wrong method from a wrong path (RFC 9110, 15.5.6). */
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

/** The only place where a code becomes a status; docs/api.md lists them. */
export const statusOf: Readonly<Record<ErrorCode, number>> = {
  invalid_request: 400,
  unauthenticated: 401,
  forbidden: 403,
  wrong_end_user: 403,
  not_found: 404,
  connection_not_found: 404,
  method_not_allowed: 405,
  authorization_pending: 409,
  needs_reauthorization: 409,
  connection_disabled: 409,
  conflict: 409,
  duplicate_grant: 409,
  account_changed: 409,
  grant_not_applicable: 409,
  authorization_expired: 410,
  payload_too_large: 413,
  unsupported_media_type: 415,
  provider_rejected: 422,
  rate_limited: 429,
  unreadable_secret: 500,
  internal_error: 500,
  client_rejected: 502,
  provider_unavailable: 503,
  refresh_in_progress: 503,
  storage_unavailable: 503,
  issuer_unavailable: 503,
  encryption_key_missing: 503,
};

const mediaType = "application/problem+json; charset=utf-8";

/** Problem details for HTTP APIs (RFC 9457). */
type Problem = {
  type: "about:blank";
  title: string;
  status: number;
  code: ErrorCode;
  detail: string;
  connection?: string;
  retry_after?: number;
};

/** The body of an error answer. */
export function problemOf({ code, message, context }: BrokerError): Problem {
  const status = statusOf[code];
  const { connection, retryAfterSeconds } = context;
  return {
    type: "about:blank",
    title: STATUS_CODES[status] ?? "Error",
    status,
    code,
    detail: message,
    ...(connection === undefined ? {} : { connection }),
    ...(retryAfterSeconds === undefined ? {} : { retry_after: retryAfterSeconds }),
  };
}

/** What the answer is made of beside the error. `path`: as it was asked for; "" if it was never read. */
type Asked = Answering & { path: string; methods?: readonly string[] };

type Answer = { status: number; headers: Record<string, string>; body: string };

/** The error as a page if a browser asks, else as a problem. */
async function answerOf(error: BrokerError, headersOf: AskingHeaders, asked: Asked): Promise<Answer> {
  const { asker, path, methods = [] } = asked;
  const problem = problemOf(error);
  const { status, code, detail } = problem;
  const headers = { ...asked.headers, "content-type": mediaType };
  if (asker === null) return { status, headers, body: JSON.stringify(problem) };
  const vary = { vary: "accept, authorization" };
  if (!wantsPage(headersOf)) return { status, headers: { ...headers, ...vary }, body: JSON.stringify(problem) };
  const body = await errorPage({ status, code, detail, path, methods }, asker);
  return { status, headers: { ...headers, ...pageHeaders("nowhere"), ...vary }, body };
}

type AskingHeaders = { accept?: string | undefined; authorization?: string | undefined };

/**
 * When somebody opens an address, every browser accepts XHTML beside HTML and sends no bearer token. Programs accept neither, or only HTML, as
 * Java's HttpURLConnection does by default.
 */
function wantsPage({ accept = "", authorization }: AskingHeaders): boolean {
  const isProgram = authorization !== undefined || /\bapplication\/([\w.+-]*\+)?json\b/i.test(accept);
  return !isProgram && /\btext\/html\b/i.test(accept) && /\bapplication\/xhtml\+xml\b/i.test(accept);
}

/** Answers with a problem, or for a browser with a page, and the headers that belong to its code. */
async function sendProblem(reply: FastifyReply, error: BrokerError, asked: Asked): Promise<FastifyReply> {
  const { retryAfterSeconds } = error.context;
  if (retryAfterSeconds !== undefined) reply.header("retry-after", String(retryAfterSeconds));
  if (error.code === "unauthenticated") reply.header("www-authenticate", "Bearer");
  // Set here, too, since errors before routing reach no hook.
  const { status, headers, body } = await answerOf(error, reply.request.headers, asked);
  return await reply.code(status).headers(headers).serializer(String).send(body);
}

/** The same as bytes of HTTP/1.1, for a connection that is then closed. `received`: what has come of the request. */
async function rawProblem(error: BrokerError, received: string, answering: Answering): Promise<string> {
  const header = (name: RegExp) => name.exec(received)?.[1];
  const asking = { accept: header(/^accept:([^\r\n]*)/im), authorization: header(/^authorization:([^\r\n]*)/im) };
  const { status, headers, body } = await answerOf(error, asking, { ...answering, path: "" });
  const lines = Object.entries({
    ...headers,
    "content-length": String(Buffer.byteLength(body)),
    connection: "close",
  }).map(([name, value]) => `${name}: ${value}`);
  return [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...lines, "", body].join("\r\n");
}
