import { STATUS_CODES } from "node:http";
import type { FastifyReply } from "fastify";
import type { Asker } from "../console/asker.ts";
import { errorPage } from "../console/error-page.ts";
import { pageHeaders } from "../console/layout.ts";
import type { BrokerError, ErrorCode } from "../errors.ts";

/** The only place where a code becomes a status (contract.md). */
export const statusOf: Readonly<Record<ErrorCode, number>> = {
  invalid_request: 400,
  unauthenticated: 401,
  forbidden: 403,
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
function problemOf({ code, message, context }: BrokerError): Problem {
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

/** What a page for a browser needs to know beside the error. Null: nobody gets pages. */
export type PageFor = { asker: Asker; path: string; methods?: readonly string[] } | null;

type Answer = { status: number; headers: Record<string, string>; body: string };

/** The error as a page where a browser asks for one, else as a problem. */
async function answerOf(error: BrokerError, headersOf: AskingHeaders, pageFor: PageFor): Promise<Answer> {
  const problem = problemOf(error);
  const { status, code, detail } = problem;
  const headers = { "cache-control": "no-store", "x-content-type-options": "nosniff", "content-type": mediaType };
  if (pageFor === null) return { status, headers, body: JSON.stringify(problem) };
  const vary = { vary: "accept, authorization" };
  if (!wantsPage(headersOf)) return { status, headers: { ...headers, ...vary }, body: JSON.stringify(problem) };
  const { asker, path, methods = [] } = pageFor;
  const body = await errorPage({ status, code, detail, path, methods }, asker);
  return { status, headers: { ...pageHeaders("nowhere"), ...vary }, body };
}

type AskingHeaders = { accept?: string | undefined; authorization?: string | undefined };

/**
 * Every browser names XHTML beside HTML when somebody opens an address, and sends no bearer. Programs name neither, or HTML alone, as
 * Java's HttpURLConnection does unless it is told otherwise.
 */
function wantsPage({ accept = "", authorization }: AskingHeaders): boolean {
  const isProgram = authorization !== undefined || /\bapplication\/([\w.+-]*\+)?json\b/i.test(accept);
  return !isProgram && /\btext\/html\b/i.test(accept) && /\bapplication\/xhtml\+xml\b/i.test(accept);
}

/** Answers with a problem, or for a browser with a page, and the headers that belong to its code. */
export async function sendProblem(
  reply: FastifyReply,
  error: BrokerError,
  pageFor: PageFor = null,
): Promise<FastifyReply> {
  const { retryAfterSeconds } = error.context;
  if (retryAfterSeconds !== undefined) reply.header("retry-after", String(retryAfterSeconds));
  if (error.code === "unauthenticated") reply.header("www-authenticate", "Bearer");
  // Said here, too, since faults before routing meet no hook.
  const { status, headers, body } = await answerOf(error, reply.request.headers, pageFor);
  return await reply.code(status).headers(headers).serializer(String).send(body);
}

/** The same as bytes of HTTP/1.1, for a connection that is then closed. `received`: what has come of the request. */
export async function rawProblem(error: BrokerError, received: string, asker: Asker | null): Promise<string> {
  const header = (name: RegExp) => name.exec(received)?.[1];
  const asking = { accept: header(/^accept:([^\r\n]*)/im), authorization: header(/^authorization:([^\r\n]*)/im) };
  const { status, headers, body } = await answerOf(error, asking, asker && { asker, path: "" });
  const lines = Object.entries({
    ...headers,
    "content-length": String(Buffer.byteLength(body)),
    connection: "close",
  }).map(([name, value]) => `${name}: ${value}`);
  return [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...lines, "", body].join("\r\n");
}
