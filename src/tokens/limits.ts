import { isStorageUnavailable } from "../errors.ts";
import type { Limits } from "../providers/definition.ts";
import type { Failure, TokenAnswer } from "../providers/grant.ts";
import type { Admission, Admitted, RequestLimits } from "../store/request-limits.ts";
import { longestRequestedSeconds } from "./backoff.ts";
import { budgets } from "./budgets.ts";
import type { Sendable, Sender } from "./sending.ts";

/** Tells what came of a counted request. Never rejects. */
type Settle = (answer: TokenAnswer) => Promise<void>;

/** The `limits` of definitions, kept together with all replicas. A definition without any costs nothing. */
export type LimitKeeper = {
  /**
   * Sends if the limits let another request through now; else the failure is `limit_reached` and says when to ask again.
   * Without Postgres nothing is sent. Rejects only as `send` does.
   */
  keep(sendable: Sendable, send: () => Promise<TokenAnswer>): Promise<TokenAnswer>;
  /** Counts a request that is sent whatever the limits say, because a person waits for it. Never rejects. */
  note(sendable: Sendable): Promise<Settle>;
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
    // Where the definition fixes the client, its connections have none of their own.
    if (per === "client") return `client:${sendable.client?.id ?? sendable.definition.id}`;
    return `token_host:${sender.hostOf(sendable)}`;
  };

  const tell = (error: unknown): null => {
    if (!isStorageUnavailable(error)) onError(error);
    return null;
  };

  const admit = async (sendable: Sendable, isNote: boolean): Promise<Admission | null> => {
    const request = {
      key: keyOf(sendable),
      rules: sendable.definition.limits,
      isNote,
      travelSeconds: budgets.limitTravelSeconds,
      leaseSeconds: budgets.leaseSeconds,
    };
    return await limits.admit(request).catch(tell);
  };

  const settle = async (admitted: Admitted, answer: TokenAnswer, rules: Limits): Promise<void> => {
    const failure = answer.kind === "failed" ? answer.failure : null;
    // Nobody can tell whether the provider is still at work: its place is free when the lease ends.
    if (failure?.class === "unknown" && failure.status === undefined) return;
    const given = { sent: failure?.class !== "not_sent", closeSeconds: closeSeconds(failure, rules) };
    await limits.settle(admitted, given).catch(tell);
  };

  return {
    async keep(sendable, send) {
      const { limits: rules } = sendable.definition;
      if (!hasLimits(rules)) return await send();
      const admission = await admit(sendable, false);
      if (!admission?.admitted) return { kind: "failed", failure: heldBack(admission, rules) };
      const answer = await send();
      const settled = settle(admission.admitted, answer, rules);
      // A token is stored first. After a refusal, a second way may want the place that this one leaves.
      if (answer.kind === "failed" && answer.failure.class !== "unknown") await settled;
      return answer;
    },

    async note(sendable) {
      const { limits: rules } = sendable.definition;
      const admission = hasLimits(rules) ? await admit(sendable, true) : null;
      const admitted = admission?.admitted ?? null;
      return async (answer) => {
        if (admitted !== null) await settle(admitted, answer, rules);
      };
    },
  };
}

function hasLimits({ concurrency, spacingMs, coolDownSeconds, maxPerWindow }: Limits): boolean {
  return concurrency !== null || spacingMs > 0 || coolDownSeconds > 0 || maxPerWindow !== null;
}

/** For how long an answer closes the limit to everybody. */
function closeSeconds(failure: Failure | null, { coolDownSeconds }: Limits): number {
  if (failure?.code !== "rate_limited" && failure?.code !== "blocked") return 0;
  return Math.max(coolDownSeconds, Math.min(failure.retryAfterSeconds ?? 0, longestRequestedSeconds));
}

function heldBack(admission: { waitSeconds: number } | null, { per }: Limits): Failure {
  const detail =
    admission === null
      ? "The limits of this provider could not be asked, since the broker's database does not answer."
      : "The limits that the provider's definition sets are used up for now; nothing was sent.";
  return {
    class: "not_sent",
    code: "limit_reached",
    detail,
    ...(admission === null ? {} : { retryAfterSeconds: admission.waitSeconds, isOfHost: per === "token_host" }),
  };
}
