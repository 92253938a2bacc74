import type { Clock } from "../clock.ts";
import { isStorageUnavailable } from "../errors.ts";
import type { Limits } from "../providers/format/definition.ts";
import type { HttpRequest } from "../providers/http/exchange.ts";
import type { Failure, TokenAnswer } from "../providers/oauth/token-answer.ts";
import type { Admission, Admitted, LimitedRequest, RequestLimits } from "../store/request-limits.ts";
import { refreshTimes } from "../time.ts";
import { refusal, type RequestContext, type Sender, type SendsBeside } from "./request.ts";

/**
 * `cannotWait`: a person waits for it, and what is sent cannot be sent later, such as a code that a browser has brought. Otherwise
 * `isProven`: true if it continues a grant that the provider has given, false if nobody knows yet whether it will ever work.
 */
type Urgency = { cannotWait: boolean; isProven: boolean };

/** The `limits` of definitions, over all replicas. A definition without limits costs nothing. */
export type RequestLimiter = {
  /**
   * Sends if the limits admit another request now. Otherwise the failure is `limit_reached` and says when to ask again. Without Postgres
   * nothing is sent. Requests of what has never worked come last, and clients that share a limit have a share each
   * (store/request-limits.ts). A request that cannot wait asks again if a few seconds are enough. Rejects only as `send` does.
   */
  send(context: RequestContext, send: () => Promise<TokenAnswer>, how: Urgency): Promise<TokenAnswer>;
  /**
   * For requests that send a person to the provider: for a user code, and pushed authorization requests. At the host of the token endpoint
   * such a request counts as one that cannot wait. @throws ProviderBusyError if the limits do not admit it
   */
  beside(context: RequestContext): SendsBeside;
};

type Options = {
  limits: RequestLimits;
  sender: Pick<Sender, "hostOf">;
  clock: Pick<Clock, "monotonicMs" | "sleep">;
  onError: (error: unknown) => void;
};

export function createRequestLimiter({ limits, sender, clock, onError }: Options): RequestLimiter {
  /** A limit is always for one host, whatever `per` says: a host that one connection's input names must not affect another host. */
  const keyOf = (context: RequestContext): string => {
    const { per } = context.definition.limits;
    const host = sender.hostOf(context);
    if (per === "connection") return `connection:${context.owner.id} at ${host}`;
    if (per === "client") return `client:${clientOf(context)} at ${host}`;
    return `token_host:${host}`;
  };

  const reportError = (error: unknown): null => {
    if (!isStorageUnavailable(error)) onError(error);
    return null;
  };

  const admit = async (context: RequestContext, { cannotWait, isProven }: Urgency): Promise<Admission | null> => {
    const { id, limits: rules } = context.definition;
    const request: LimitedRequest = {
      key: keyOf(context),
      rules,
      client: clientOf(context),
      provider: rules.per === "token_host" ? id : null,
      kind: cannotWait ? "person" : isProven ? "refresh" : "first",
      travelSeconds: refreshTimes.limitTravelSeconds,
      leaseSeconds: refreshTimes.leaseSeconds,
    };
    const giveUpMs = clock.monotonicMs() + (cannotWait ? refreshTimes.limitPatienceMs : 0);
    for (;;) {
      const admission = await limits.admit(request).catch(reportError);
      if (admission === null || admission.admitted !== null) return admission;
      const waitMs = Math.ceil(admission.waitSeconds * 1000);
      if (clock.monotonicMs() + waitMs > giveUpMs) return admission;
      await clock.sleep(waitMs);
    }
  };

  const closeAdmission = async (admitted: Admitted, failure: Failure | null): Promise<void> => {
    // The provider may still be working on it, so its place becomes free when the lease ends.
    if (failure?.class === "unknown" && failure.status === undefined) return;
    const given = { sent: failure?.class !== "not_sent", closeSeconds: failure?.closedSeconds ?? 0 };
    await limits.closeAdmission(admitted, given).catch(reportError);
  };

  return {
    async send(context, send, how) {
      const { limits: rules } = context.definition;
      if (!hasLimits(rules)) return await send();
      const admission = await admit(context, how);
      const admitted = admission?.admitted ?? null;
      if (admitted === null) {
        const isOfClient = rules.per !== "connection" && how.isProven && !how.cannotWait;
        return { kind: "failed", failure: throttled(admission, { isOfClient }) };
      }
      const answer = closing(await send(), rules);
      const failure = answer.kind === "failed" ? answer.failure : null;
      const closed = closeAdmission(admitted, failure);
      // A granted token is stored first, so do not wait. After a refusal a second request may need this place, so wait.
      if (failure !== null && failure.class !== "unknown") await closed;
      return answer;
    },

    beside: (context) => async (request, send) => {
      const { limits: rules } = context.definition;
      if (!hasLimits(rules) || hostOf(request) !== sender.hostOf(context)) return await send();
      const admission = await admit(context, { cannotWait: true, isProven: false });
      if (admission === null || admission.admitted === null) {
        throw refusal(context.row, throttled(admission, { isOfClient: false }));
      }
      const asked = await send();
      // Nobody can say whether a request without an answer was sent, so it counts.
      const closeSeconds = asked.status === 429 ? closedFor(asked.retryAfterSeconds, rules) : 0;
      await limits.closeAdmission(admission.admitted, { sent: true, closeSeconds }).catch(reportError);
      return asked;
    },
  };
}

function hostOf({ url }: HttpRequest): string {
  return new URL(url).host;
}

/**
 * Which client's share a request uses. If the definition fixes the client, its connections have no client of their own and share one part,
 * since more callers can make connections than clients.
 */
function clientOf({ client, definition }: RequestContext): string {
  return client?.id ?? definition.id;
}

function hasLimits({ concurrency, spacingMs, coolDownSeconds, maxPerWindow }: Limits): boolean {
  return concurrency !== null || spacingMs > 0 || coolDownSeconds > 0 || maxPerWindow !== null;
}

/** The answer, with the time for which it closes the limit. */
function closing(answer: TokenAnswer, limits: Limits): TokenAnswer {
  if (answer.kind === "granted") return answer;
  const { failure } = answer;
  if (failure.code !== "rate_limited" && failure.code !== "blocked") return answer;
  return { ...answer, failure: { ...failure, closedSeconds: closedFor(failure.retryAfterSeconds, limits) } };
}

function closedFor(retryAfterSeconds: number | undefined, { coolDownSeconds }: Limits): number {
  return Math.max(coolDownSeconds, Math.min(retryAfterSeconds ?? 0, refreshTimes.longestRequestedSeconds));
}

function throttled(admission: Admission | null, { isOfClient }: { isOfClient: boolean }): Failure {
  const detail =
    admission === null
      ? "The limits of this provider could not be asked, since the broker's database does not answer."
      : "The limits that the provider's definition sets are used up for now; nothing was sent.";
  return {
    class: "not_sent",
    code: "limit_reached",
    detail,
    ...(admission?.admitted === null && { retryAfterSeconds: admission.waitSeconds, isOfClient }),
  };
}
