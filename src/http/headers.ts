import { callerTimes } from "../time.ts";

/** The headers of every answer: JSON, pages, files, errors before routing. */
export type AnswerHeaders = Readonly<Record<string, string>>;

/**
 * Makes them. Their policy fits an answer that no browser has to show; a page sets one of its own in place of it (`pageHeaders`).
 * Browsers are told to come by https alone where `publicUrl` says https (RFC 6797, section 7.2).
 */
export function answerHeaders(publicUrl: string): AnswerHeaders {
  const headers = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
  };
  if (!publicUrl.startsWith("https:")) return headers;
  return { ...headers, "strict-transport-security": `max-age=${callerTimes.httpsOnlySeconds}; includeSubDomains` };
}
