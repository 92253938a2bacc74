import type net from "node:net";
import { Client, type Dispatcher } from "undici";
import type { ProviderDefinition } from "./definition.ts";
import { BlockedAddressError, type Egress } from "./egress.ts";
import { type ExchangeOutcome, HttpExchange } from "./http-exchange.ts";
import type { Failure, TokenAnswer } from "./grant.ts";
import { parseAnswer } from "./answer-body.ts";
import { describeAnswer } from "./scrub.ts";
import type { TokenRequest } from "./assemble.ts";
import { processTokenResponse } from "./token-response.ts";

/** Milliseconds. `totalMs` bounds the whole call and must stay below a permit's lease. */
export type OAuthTimeouts = { connectMs: number; headersMs: number; bodyMs: number; totalMs: number };

const defaultTimeouts: OAuthTimeouts = { connectMs: 3_000, headersMs: 22_000, bodyMs: 5_000, totalMs: 25_000 };

export type OAuthClient = {
  /**
   * Sends a token request at most once, on a fresh connection, following no redirect. `mayStillSend` is asked at first
   * and again when the request is about to be written; false: `not_sent`, `send_window_passed`. Never rejects.
   */
  requestToken(call: {
    definition: ProviderDefinition;
    request: TokenRequest;
    mayStillSend: () => boolean;
  }): Promise<TokenAnswer>;
  /** Any request that spends nothing: a lookup, an introspection, metadata, a revocation. Never rejects. */
  ask(call: { definition: ProviderDefinition; request: TokenRequest }): Promise<Asked>;
};

/** `ok`: a 2xx. `detail`: in plain words, without secrets. `body`: as JSON or form, null if it is neither. May hold secrets. */
export type Asked = { ok: boolean; status: number | null; body: unknown; detail: string };

/**
 * A client of token endpoints that reaches what `egress` allows and nothing else. `observe` sees what came of each exchange
 * before it is read, secrets and all.
 */
export function createOAuthClient(options: {
  egress: Egress;
  timeouts?: Partial<OAuthTimeouts>;
  observe?: (outcome: ExchangeOutcome) => void;
}): OAuthClient {
  const { egress, observe = () => {} } = options;
  const timeouts = { ...defaultTimeouts, ...options.timeouts };
  return {
    async requestToken({ definition, request, mayStillSend }) {
      const outcome = await send({ egress, timeouts, request, mayStillSend, trusted: definition.isSandbox });
      observe(outcome);
      if (outcome.kind !== "answered") return { kind: "failed", failure: failureOf(outcome) };
      return processTokenResponse({ definition, response: outcome.response, secrets: request.secrets });
    },
    async ask({ definition, request }) {
      const trusted = definition.isSandbox;
      const outcome = await send({ egress, timeouts, request, mayStillSend: () => true, trusted });
      observe(outcome);
      if (outcome.kind !== "answered") {
        return { ok: false, status: null, body: null, detail: failureOf(outcome).detail };
      }
      const { response } = outcome;
      const body = parseAnswer(response, "auto");
      const ok = response.status >= 200 && response.status < 300;
      const detail = ok
        ? `the provider answered ${response.status}`
        : describeAnswer({ response, body, secrets: request.secrets });
      return { ok, status: response.status, body, detail };
    },
  };
}

async function send(call: {
  egress: Egress;
  timeouts: OAuthTimeouts;
  request: TokenRequest;
  mayStillSend: () => boolean;
  trusted: boolean;
}): Promise<ExchangeOutcome> {
  const { egress, timeouts, request, mayStillSend, trusted } = call;
  if (!mayStillSend()) return { kind: "window_passed" };
  let client: Client | undefined;
  try {
    const { url, lookup } = egress.route(request.url, { trusted });
    client = openClient({ url, lookup, timeouts, tls: request.tls });
    return await dispatch(client, dispatchOptions(url, request), new HttpExchange({ timeouts, mayStillSend }));
  } catch (error) {
    // An exchange never rejects: what is thrown here comes from before it, and nothing was written.
    return { kind: "not_sent", error };
  } finally {
    void client?.destroy().catch(() => {});
  }
}

function dispatch(
  client: Client,
  options: Dispatcher.DispatchOptions,
  exchange: HttpExchange,
): Promise<ExchangeOutcome> {
  try {
    client.dispatch(options, exchange);
  } catch (error) {
    exchange.end(error);
  }
  return exchange.outcome;
}

/** No pool, no reuse, no HTTP/2: one connection whose first bytes are this request. */
function openClient(options: {
  url: URL;
  lookup: net.LookupFunction;
  timeouts: OAuthTimeouts;
  tls: string | undefined;
}): Client {
  const { url, lookup, timeouts, tls } = options;
  const certificate = tls === undefined ? {} : { cert: tls, key: tls };
  return new Client(url.origin, {
    connect: { lookup, timeout: timeouts.connectMs, autoSelectFamily: true, ...certificate },
    headersTimeout: timeouts.headersMs,
    bodyTimeout: timeouts.bodyMs,
    allowH2: false,
    maxCachedSessions: 0,
    pipelining: 1,
  });
}

/** The headers that a request goes out with, but for those of HTTP itself. Hold secrets. */
export function sentHeaders(request: TokenRequest): Record<string, string> {
  return { accept: "application/json", ...request.headers, "accept-encoding": "identity" };
}

function dispatchOptions(url: URL, request: TokenRequest) {
  return {
    path: `${url.pathname}${url.search}`,
    method: request.method,
    headers: sentHeaders(request),
    body: request.body ?? null,
    reset: true,
  };
}

function failureOf(outcome: Exclude<ExchangeOutcome, { kind: "answered" }>): Failure {
  if (outcome.kind === "not_sent") return notSent(outcome.error);
  if (outcome.kind === "window_passed") {
    const detail = "the permission to send had run out; nothing was sent";
    return { class: "not_sent", code: "send_window_passed", detail };
  }
  const detail = `the request was sent and no answer came (${reason(outcome.error)})`;
  return { class: "unknown", code: "outcome_unknown", detail };
}

function notSent(error: unknown): Failure {
  if (error instanceof BlockedAddressError) {
    return { class: "not_sent", code: "blocked_address", detail: error.message };
  }
  return { class: "not_sent", code: "connect_failed", detail: `the provider could not be reached (${reason(error)})` };
}

/** A code such as ECONNREFUSED, never a message: those may quote what was sent. */
function reason(error: unknown): string {
  const first: unknown = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
  if (first instanceof Error && "code" in first && typeof first.code === "string") return first.code;
  return first instanceof Error ? first.name : "no cause given";
}
