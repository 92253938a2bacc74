import { STATUS_CODES } from "node:http";
import type { FastifyReply } from "fastify";
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

/** Answers with a problem, and the headers that belong to its code. */
export async function sendProblem(reply: FastifyReply, error: BrokerError): Promise<FastifyReply> {
  const { retryAfterSeconds } = error.context;
  if (retryAfterSeconds !== undefined) reply.header("retry-after", String(retryAfterSeconds));
  if (error.code === "unauthenticated") reply.header("www-authenticate", "Bearer");
  reply.headers({ "cache-control": "no-store", "x-content-type-options": "nosniff" }); // faults before routing meet no hook
  const body = JSON.stringify(problemOf(error));
  return await reply.code(statusOf[error.code]).type(mediaType).serializer(String).send(body);
}

/** The same as bytes of HTTP/1.1, for a connection that is then closed. */
export function rawProblem(error: BrokerError): string {
  const problem = problemOf(error);
  const body = JSON.stringify(problem);
  const headers = [
    `content-type: ${mediaType}`,
    `content-length: ${Buffer.byteLength(body)}`,
    "cache-control: no-store",
    "x-content-type-options: nosniff",
    "connection: close",
  ];
  return [`HTTP/1.1 ${problem.status} ${problem.title}`, ...headers, "", body].join("\r\n");
}
