import { BrokerError } from "../errors.ts";
import type { Failure } from "../providers/grant.ts";

/** What a caller is told when a request that may be made once was refused. */
export function refusal({ name }: { name: string }, failure: Failure): BrokerError {
  const context = { connection: name };
  if (failure.class === "client_rejected") {
    return new BrokerError("client_rejected", `The provider refuses this broker's client: ${failure.detail}`, context);
  }
  if (isRefused(failure)) {
    return new BrokerError("provider_rejected", `The provider refuses: ${failure.detail}`, context);
  }
  const retryAfterSeconds = Math.min(Math.max(Math.ceil(failure.retryAfterSeconds ?? 5), 1), 60);
  return new BrokerError("provider_unavailable", `The provider could not be asked: ${failure.detail}`, {
    ...context,
    retryAfterSeconds,
  });
}

/** True when the provider said no to this very request; false when it is away, busy, or has blocked this broker. */
export function isRefused({ class: kind, code, status = 0 }: Failure): boolean {
  if (kind === "refused_for_good" || kind === "client_rejected") return true;
  const isBusy = code === "rate_limited" || code === "blocked";
  return kind === "refused_for_now" && !isBusy && status >= 400 && status < 500;
}
