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
import { isUsualHost } from "./usual-host.ts";

/** Milliseconds. `totalMs` bounds the whole call and must stay below a permit's lease. */
export type OAuthTimeouts = { connectMs: number; headersMs: number; bodyMs: number; totalMs: number };

export const defaultTimeouts: OAuthTimeouts = { connectMs: 3_000, headersMs: 22_000, bodyMs: 5_000, totalMs: 25_000 };

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
  ask(call: AskedCall): Promise<Asked>;
};

type AskedCall = { definition: ProviderDefinition; request: TokenRequest };

/**
 * `ok`: a 2xx. `detail`: in plain words, without secrets. `body`: as JSON or form, null if it is neither. May hold secrets.
 * `location`: where a 3xx sends the request, as the server wrote it. It is not followed.
 */
export type Asked = { ok: boolean; status: number | null; body: unknown; detail: string; location?: string };

/** What callers are not told of a request that failed, for the broker's own log. Holds no secret. */
export type Untold = { provider: string; host: string; detail: string };

/**
 * A client of token endpoints that reaches what `egress` allows and nothing else. `observe` sees what came of each exchange
 * before it is read, secrets and all. Details are for callers: of a host that the definition does not fix they say what kind of
 * failure it was and nothing of what is there; that goes to `onUntold`.
 */
export function createOAuthClient(options: {
  egress: Egress;
  timeouts?: Partial<OAuthTimeouts>;
  observe?: (outcome: ExchangeOutcome) => void;
  onUntold?: (untold: Untold) => void;
}): OAuthClient {
  const { egress, observe = () => {}, onUntold = () => {} } = options;
  const timeouts = { ...defaultTimeouts, ...options.timeouts };
  /** Makes a failure what callers may see of it. */
  const tell = <Failed extends { detail: string }>(
    call: AskedCall,
    failed: Failed,
    outcome: ExchangeOutcome,
  ): Failed => {
    const { definition, request } = call;
    const isUsual = isUsualHost(definition, request.url);
    if (isUsual && resolvedIn(outcome) === null) return failed;
    const detail = whatHappened(outcome, call);
    onUntold({ provider: definition.id, host: new URL(request.url).host, detail });
    return isUsual ? failed : Object.assign(failed, withheld(outcome));
  };
  return {
    async requestToken({ mayStillSend, ...call }) {
      const { definition, request } = call;
      const outcome = await send({ ...call, egress, timeouts, mayStillSend });
      observe(outcome);
      if (outcome.kind !== "answered") return { kind: "failed", failure: tell(call, failureOf(outcome), outcome) };
      const answer = processTokenResponse({ definition, response: outcome.response, secrets: request.secrets });
      if (answer.kind === "failed") tell(call, answer.failure, outcome);
      return answer;
    },
    async ask(call) {
      const outcome = await send({ ...call, egress, timeouts, mayStillSend: () => true });
      observe(outcome);
      if (outcome.kind !== "answered") {
        const { detail } = tell(call, failureOf(outcome), outcome);
        return { ok: false, status: null, body: null, detail };
      }
      const { response } = outcome;
      const { status } = response;
      const body = parseAnswer(response, "auto");
      if (status >= 200 && status < 300) return { ok: true, status, body, detail: `the provider answered ${status}` };
      const { definition, request } = call;
      const detail = describeAnswer({ definition, response, body, secrets: request.secrets });
      const location = status >= 300 && status < 400 ? response.headers["location"] : undefined;
      return tell(call, { ok: false, status, body, detail, ...(location !== undefined && { location }) }, outcome);
    },
  };
}

async function send(call: {
  egress: Egress;
  timeouts: OAuthTimeouts;
  definition: ProviderDefinition;
  request: TokenRequest;
  mayStillSend: () => boolean;
}): Promise<ExchangeOutcome> {
  const { egress, timeouts, definition, request, mayStillSend } = call;
  if (!mayStillSend()) return { kind: "window_passed" };
  let client: Client | undefined;
  try {
    const { url, lookup } = egress.route(request.url, definition);
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

/** What a name resolved to, where that may not be reached; null: that is not what happened. */
function resolvedIn(outcome: ExchangeOutcome): string | null {
  return outcome.kind === "not_sent" && outcome.error instanceof BlockedAddressError ? outcome.error.resolved : null;
}

/**
 * What is told of a host that the definition does not fix. Whether nothing listens there, a packet filter is in front of it, its
 * TLS is not good or its name leads to a private address makes no difference: else this broker would scan its own network for
 * whoever may name a host.
 */
function withheld(outcome: ExchangeOutcome): Partial<Pick<Failure, "code" | "detail">> {
  const more = "the definition does not fix its host, so that only the broker's log says more";
  switch (outcome.kind) {
    case "answered":
      return { detail: `the provider answered ${outcome.response.status}; ${more}` };
    case "cut_off":
      return { detail: `the request was sent and no answer came; ${more}` };
    case "window_passed":
      return {};
    default:
      if (!(outcome.error instanceof BlockedAddressError) || resolvedIn(outcome) !== null) {
        return { code: "connect_failed", detail: `the provider could not be reached, or may not be; ${more}` };
      }
      return { detail: `the provider's address may not be reached; ${more}` };
  }
}

/** In full, but for secrets. */
function whatHappened(outcome: ExchangeOutcome, { definition, request }: AskedCall): string {
  if (outcome.kind === "answered") {
    const { response } = outcome;
    return describeAnswer({ definition, response, body: parseAnswer(response, "auto"), secrets: request.secrets });
  }
  const { detail } = failureOf(outcome);
  const resolved = resolvedIn(outcome);
  return resolved === null ? detail : `${detail} (it resolves to ${resolved})`;
}

/** A code such as ECONNREFUSED, never a message: those may quote what was sent. */
function reason(error: unknown): string {
  const first: unknown = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
  if (first instanceof Error && "code" in first && typeof first.code === "string") return first.code;
  return first instanceof Error ? first.name : "no cause given";
}
