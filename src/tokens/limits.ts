import { isStorageUnavailable } from "../errors.ts";
import type { Limits } from "../providers/definition.ts";
import type { Failure, TokenAnswer } from "../providers/grant.ts";
import type { Admission, Admitted, LimitedRequest, RequestLimits } from "../store/request-limits.ts";
import { longestRequestedSeconds } from "./backoff.ts";
import { budgets } from "./budgets.ts";
import type { Sendable, Sender } from "./sending.ts";

/** `isProven`: it goes on with a grant that the provider has given; else nobody knows yet whether it will ever work. */
type Urgency = { cannotWait: boolean; isProven: boolean };

/** The `limits` of definitions, kept together with all replicas. A definition without any costs nothing. */
export type LimitKeeper = {
  /**
   * Sends if the limits let another request through now; else the failure is `limit_reached` and says when to ask again.
   * Without Postgres nothing is sent. What has never worked comes last, and clients that share a limit have a share each
   * (store/request-limits.ts). Rejects only as `send` does.
   * `cannotWait`: what is sent would be lost by then, such as a code that a browser has brought. It is counted, and sent whatever
   * the limits say.
   */
  keep(sendable: Sendable, send: () => Promise<TokenAnswer>, how: Urgency): Promise<TokenAnswer>;
};

type Options = {
  limits: RequestLimits;
  sender: Pick<Sender, "hostOf">;
  onError: (error: unknown) => void;
};

export function createLimitKeeper({ limits, sender, onError }: Options): LimitKeeper {
  const keyOf = (sendable: Sendable): string => {
    const { per } = sendable.definition.limits;
    if (per === "connection") return `connection:${sendable.owner.id}`;
    if (per === "client") return `client:${clientOf(sendable)}`;
    return `token_host:${sender.hostOf(sendable)}`;
  };

  const tell = (error: unknown): null => {
    if (!isStorageUnavailable(error)) onError(error);
    return null;
  };

  const admit = async (sendable: Sendable, { cannotWait, isProven }: Urgency): Promise<Admission | null> => {
    const { id, limits: rules } = sendable.definition;
    const request: LimitedRequest = {
      key: keyOf(sendable),
      rules,
      client: clientOf(sendable),
      provider: rules.per === "token_host" ? id : null,
      kind: cannotWait ? "note" : isProven ? "refresh" : "first",
      travelSeconds: budgets.limitTravelSeconds,
      leaseSeconds: budgets.leaseSeconds,
    };
    return await limits.admit(request).catch(tell);
  };

  const settle = async (admitted: Admitted, failure: Failure | null): Promise<void> => {
    // Nobody can tell whether the provider is still at work: its place is free when the lease ends.
    if (failure?.class === "unknown" && failure.status === undefined) return;
    const given = { sent: failure?.class !== "not_sent", closeSeconds: failure?.closedSeconds ?? 0 };
    await limits.settle(admitted, given).catch(tell);
  };

  return {
    async keep(sendable, send, how) {
      const { limits: rules } = sendable.definition;
      if (!hasLimits(rules)) return await send();
      const admission = await admit(sendable, how);
      const admitted = admission?.admitted ?? null;
      if (admitted === null && !how.cannotWait) {
        return {
          kind: "failed",
          failure: heldBack(admission, { isOfClient: rules.per !== "connection" && how.isProven }),
        };
      }
      const answer = closing(await send(), rules);
      const failure = answer.kind === "failed" ? answer.failure : null;
      const settled = admitted === null ? undefined : settle(admitted, failure);
      // A token is stored first. After a refusal, a second way may want the place that this one leaves.
      if (failure !== null && failure.class !== "unknown") await settled;
      return answer;
    },
  };
}

/**
 * Whose share a request is of. Where the definition fixes the client, its connections have none of their own: they share one, since
 * more callers may make connections than clients.
 */
function clientOf({ client, definition }: Sendable): string {
  return client?.id ?? definition.id;
}

function hasLimits({ concurrency, spacingMs, coolDownSeconds, maxPerWindow }: Limits): boolean {
  return concurrency !== null || spacingMs > 0 || coolDownSeconds > 0 || maxPerWindow !== null;
}

/** An answer with the time for which it closes the limit to everybody. */
function closing(answer: TokenAnswer, { coolDownSeconds }: Limits): TokenAnswer {
  if (answer.kind === "granted") return answer;
  const { failure } = answer;
  if (failure.code !== "rate_limited" && failure.code !== "blocked") return answer;
  const asked = Math.min(failure.retryAfterSeconds ?? 0, longestRequestedSeconds);
  return { ...answer, failure: { ...failure, closedSeconds: Math.max(coolDownSeconds, asked) } };
}

function heldBack(admission: Admission | null, { isOfClient }: { isOfClient: boolean }): Failure {
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
