import type { FastifyInstance } from "fastify";
import type { Config } from "../config.ts";
import { ConsentError } from "../consent/problem.ts";
import { createMinuteLimit, type MinuteLimit } from "./minute-limit.ts";
import { networkOf } from "./network.ts";

/** How often a minute pages that need no key are answered: for each address, and for each link. */
export type ConsentLimits = { linkPages: MinuteLimit; linkPosts: MinuteLimit; callbacks: MinuteLimit };

export function createConsentLimits(
  config: Pick<Config, "linkPagesPerMinute" | "linkPostsPerMinute" | "callbacksPerMinute">,
  clock: { monotonicMs(): number },
): ConsentLimits {
  return {
    linkPages: createMinuteLimit(config.linkPagesPerMinute, clock),
    linkPosts: createMinuteLimit(config.linkPostsPerMinute, clock),
    callbacks: createMinuteLimit(config.callbacksPerMinute, clock),
  };
}

/** Holds back who asks too often, before anything is read or consumed: the same request counts a minute later. */
export function limitConsent(scope: FastifyInstance, limits: ConsentLimits): void {
  scope.addHook("onRequest", async ({ ip, method, params, routeOptions }) => {
    const isCallback = routeOptions.url?.startsWith("/callback/") === true;
    take(isCallback ? limits.callbacks : limits.linkPages, networkOf(ip));
    const { link } = (params ?? {}) as { link?: string };
    // By the whole link: who knows its id alone, from the history say, cannot use up what is its holder's.
    if (method === "POST" && link !== undefined) take(limits.linkPosts, link);
  });
}

function take(limit: MinuteLimit, caller: string): void {
  const retryAfterSeconds = limit.take(caller);
  if (retryAfterSeconds !== null) throw new ConsentError("too_many_requests", null, { retryAfterSeconds });
}
