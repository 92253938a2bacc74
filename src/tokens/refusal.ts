import { BrokerError, EgressRefusalError, ProviderBusyError } from "../errors.ts";
import { readPointer } from "../providers/answer-body.ts";
import type { Failure } from "../providers/grant.ts";
import type { Asked } from "../providers/oauth-client.ts";
import { isOfLimits, retryAfter } from "./unavailable.ts";

/** When to come again where nobody says. */
const unknownSeconds = 5;

/** What a caller is told when a request that may be made once was refused. */
export function refusal({ name }: { name: string }, failure: Failure): BrokerError {
  const context = { connection: name };
  if (failure.class === "client_rejected") {
    return new BrokerError("client_rejected", `The provider refuses this broker's client: ${failure.detail}`, context);
  }
  if (isRefused(failure)) {
    return new BrokerError("provider_rejected", `The provider refuses: ${failure.detail}`, context);
  }
  const seconds = failure.closedSeconds ?? failure.retryAfterSeconds ?? unknownSeconds;
  const retryAfterSeconds = retryAfter(failure.code, seconds);
  if (failure.code === "blocked_address") {
    return new EgressRefusalError(failure.detail, { ...context, retryAfterSeconds });
  }
  const detail = `The provider could not be asked: ${failure.detail}`;
  if (isOfLimits(failure.code)) return new ProviderBusyError(detail, { ...context, retryAfterSeconds });
  return new BrokerError("provider_unavailable", detail, { ...context, retryAfterSeconds });
}

/** What is told of a request beside the token endpoint that came to nothing. `said`: the first words of what people read. */
export function askedInVain(said: string, asked: Asked, context: { connection?: string } = {}): BrokerError {
  const { status, detail } = asked;
  if (asked.isBlocked) return new EgressRefusalError(detail, { ...context, retryAfterSeconds: unknownSeconds });
  const text = `${said}: ${detail}`;
  if (status === 429) {
    const retryAfterSeconds = retryAfter("rate_limited", asked.retryAfterSeconds ?? unknownSeconds);
    return new ProviderBusyError(text, { ...context, retryAfterSeconds });
  }
  const isAway = status === null || status >= 500;
  if (isAway) return new BrokerError("provider_unavailable", text, { ...context, retryAfterSeconds: unknownSeconds });
  return new BrokerError(isClientRefused(asked) ? "client_rejected" : "provider_rejected", text, context);
}

/** Whether it was the client's id or secret that the provider did not take (RFC 6749, section 5.2). */
export function isClientRefused({ ok, body }: Pick<Asked, "ok" | "body">): boolean {
  const error = ok ? null : readPointer(body, "/error");
  return error === "invalid_client" || error === "unauthorized_client";
}

/** True when the provider said no to this very request; false when it is away, busy, or has blocked this broker. */
export function isRefused({ class: kind, code, status = 0 }: Failure): boolean {
  if (kind === "refused_for_good" || kind === "client_rejected") return true;
  const isBusy = code === "rate_limited" || code === "blocked";
  return kind === "refused_for_now" && !isBusy && status >= 400 && status < 500;
}
