import { providerTimes } from "../../time.ts";
import type { ProviderDefinition } from "../format/definition.ts";
import { isUsualHost } from "../format/places.ts";
import { AnswerRoom } from "../http/answer-room.ts";
import { ProxyError, reason } from "../http/open-connection.ts";
import { BlockedAddressError, type Egress } from "../http/egress.ts";
import { exchange, type ExchangeOutcome, type ExchangeTimeouts, type HttpRequest } from "../http/exchange.ts";
import { parseAnswer } from "./answer-body.ts";
import { readRetryAfter } from "./classify.ts";
import type { Failure, TokenAnswer } from "./token-answer.ts";
import { cut, describeAnswer } from "./scrub.ts";
import { processTokenResponse } from "./token-response.ts";

export const defaultTimeouts: ExchangeTimeouts = {
  connectMs: providerTimes.connectMs,
  headersMs: providerTimes.headersMs,
  totalMs: providerTimes.callMs,
};

export type OAuthClient = {
  /**
   * Sends a token request at most once, on a fresh connection, following no redirect. `mayStillSend` is asked at first
   * and again when the request is about to be written; false: `not_sent`, `send_window_passed`. Never rejects.
   */
  requestToken(call: {
    definition: ProviderDefinition;
    request: HttpRequest;
    mayStillSend: () => boolean;
  }): Promise<TokenAnswer>;
  /** Sends a request that spends no token: a lookup, an introspection, metadata, a revocation. Never rejects. */
  ask(call: AskedCall): Promise<Asked>;
};

type AskedCall = { definition: ProviderDefinition; request: HttpRequest };

/**
 * `ok`: a 2xx. `detail`: in plain words, without secrets. `body`: as JSON or form, null if it is neither. May hold secrets.
 * `location`: where a 3xx sends the request, as the server wrote it. It is not followed.
 */
export type Asked = { ok: boolean; status: number | null; body: unknown; detail: string; location?: string } & {
  /** Of what was refused. */
  retryAfterSeconds?: number;
  /** The egress rules of this broker refuse the address: nothing was sent. */
  isBlocked?: true;
};

/** Details of a failed request that callers must not see, for the broker's log. Holds no secret. */
export type Untold = { provider: string; host: string; detail: string };

/**
 * A client of token endpoints. It reaches only what `egress` allows. `observe` gets the outcome of each exchange before it is read, with its
 * secrets. `detail` is for callers: if the definition does not fix the host, it names only the kind of failure, and `onUntold` gets the
 * rest.
 */
export function createOAuthClient(options: {
  egress: Egress;
  timeouts?: Partial<ExchangeTimeouts>;
  observe?: (outcome: ExchangeOutcome) => void;
  onUntold?: (untold: Untold) => void;
  room?: AnswerRoom;
}): OAuthClient {
  const { egress, observe = () => {}, onUntold = () => {}, room = new AnswerRoom() } = options;
  const timeouts = { ...defaultTimeouts, ...options.timeouts };
  /** Reduces a failure to what callers may see. */
  const withholdFromCallers = <Failed extends { detail: string }>(
    call: AskedCall,
    failed: Failed,
    outcome: ExchangeOutcome,
  ): Failed => {
    const { definition, request } = call;
    const isUsual = isUsualHost(definition, request.url);
    if (isOfProxy(outcome) || (isUsual && resolvedIn(outcome) === null)) return failed;
    const detail = whatHappened(outcome, call);
    onUntold({ provider: definition.id, host: new URL(request.url).host, detail });
    return isUsual ? failed : Object.assign(failed, withheld(outcome));
  };
  return {
    requestToken: async ({ mayStillSend, ...call }) =>
      await exchange({ ...call, egress, timeouts, room, mayStillSend }, (outcome): TokenAnswer => {
        const { definition, request } = call;
        observe(outcome);
        if (outcome.kind !== "answered") {
          return { kind: "failed", failure: withholdFromCallers(call, failureOf(outcome), outcome) };
        }
        const answer = processTokenResponse({ definition, response: outcome.response, secrets: request.secrets });
        if (answer.kind === "failed") withholdFromCallers(call, answer.failure, outcome);
        return answer;
      }),
    ask: async (call) =>
      await exchange({ ...call, egress, timeouts, room, mayStillSend: () => true }, (outcome): Asked => {
        observe(outcome);
        if (outcome.kind !== "answered") {
          const { code, detail } = withholdFromCallers(call, failureOf(outcome), outcome);
          const isBlocked = code === "blocked_address";
          return { ok: false, status: null, body: null, detail, ...(isBlocked && { isBlocked }) };
        }
        const { response } = outcome;
        const { status } = response;
        const body = parseAnswer(response, "auto");
        if (status >= 200 && status < 300) return { ok: true, status, body, detail: `the provider answered ${status}` };
        const { definition, request } = call;
        const detail = describeAnswer({ definition, response, body, secrets: request.secrets });
        const location = status >= 300 && status < 400 ? response.headers["location"] : undefined;
        const retryAfterSeconds = readRetryAfter(response.headers);
        const more = {
          ...(location !== undefined && { location }),
          ...(retryAfterSeconds !== null && { retryAfterSeconds }),
        };
        return withholdFromCallers(call, { ok: false, status, body, detail, ...more }, outcome);
      }),
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
  if (error instanceof ProxyError) return { class: "not_sent", code: "connect_failed", detail: cut(error.message) };
  return { class: "not_sent", code: "connect_failed", detail: `the provider could not be reached (${reason(error)})` };
}

/** Whether a failure is about the outbound proxy, and says nothing about the host behind it. */
function isOfProxy(outcome: ExchangeOutcome): boolean {
  if (outcome.kind === "answered") return outcome.response.relayedBy !== undefined && outcome.response.status === 407;
  return outcome.kind === "not_sent" && outcome.error instanceof ProxyError && outcome.error.isOfProxy;
}

/** The blocked address that a name resolved to; null: the failure has another cause. */
function resolvedIn(outcome: ExchangeOutcome): string | null {
  return outcome.kind === "not_sent" && outcome.error instanceof BlockedAddressError ? outcome.error.resolved : null;
}

/**
 * The text for a host that the definition does not fix. It is the same whether nothing listens there, a firewall drops packets, TLS fails or the
 * name leads to a private address. Otherwise somebody who may name a host could scan the broker's network.
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
      return { detail: `${blockedHere}; ${more}` };
  }
}

const blockedHere =
  "its address may not be reached: the egress rules of this broker allow https to public addresses, and what `networks` of the definition or PROVIDER_NETWORKS names";

/** The full detail, without secrets. */
function whatHappened(outcome: ExchangeOutcome, { definition, request }: AskedCall): string {
  if (outcome.kind === "answered") {
    const { response } = outcome;
    return describeAnswer({ definition, response, body: parseAnswer(response, "auto"), secrets: request.secrets });
  }
  const { detail } = failureOf(outcome);
  const resolved = resolvedIn(outcome);
  return resolved === null ? detail : `${detail} (it resolves to ${resolved})`;
}
