import type { FastifyInstance, FastifyRequest } from "fastify";
import { BrokerError } from "../errors.ts";
import type { KeyService } from "../callers/keys.ts";
import type { WorkloadService } from "../callers/workloads.ts";
import { looksLikeJwt } from "../jwt-form.ts";
import type { Principal } from "../callers/principal.ts";
import type { Ability } from "../store/api-keys.ts";
import { type MinuteLimit, networkOf } from "./limits.ts";

declare module "fastify" {
  interface FastifyRequest {
    principal: Principal | null;
  }
}

/** How many wrong keys from one address get 401 in a minute; further ones get 429. */
export const wrongKeysPerMinute = 10;

/** Makes every route of a scope need a key that has the ability. */
export type RequireAbility = (scope: FastifyInstance, ability: Ability) => void;

type AuthenticationParts = {
  keys: Pick<KeyService, "authenticate" | "known">;
  workloads: Pick<WorkloadService, "authenticate">;
  wrongKeys: MinuteLimit;
  onRefused: () => void;
};

/** `wrongKeys` counts for all scopes of the app; `onRefused` is called for each request without a key that counts. */
export function createRequireAbility(parts: AuthenticationParts): RequireAbility {
  return (scope, ability) => {
    scope.decorateRequest("principal", null);
    scope.addHook("onRequest", async (request) => {
      request.principal = await authenticate(request, parts);
      if (request.principal.abilities.includes(ability)) return;
      throw new BrokerError("forbidden", `This route needs a key with the ability "${ability}".`);
    });
  };
}

/** Who calls. Only for routes of a scope that requires an ability. */
export function principalOf({ principal }: FastifyRequest): Principal {
  if (principal === null) throw new BrokerError("unauthenticated", "A key is required.");
  return principal;
}

/** A key, or the token of a workload. Bearer tokens as in RFC 6750, section 2.1; the scheme's name in any case (RFC 9110, section 11.1). */
async function authenticate(
  request: FastifyRequest,
  { keys, workloads, wrongKeys, onRefused }: AuthenticationParts,
): Promise<Principal> {
  try {
    const [, bearer] = /^bearer +(\S+) *$/i.exec(request.headers.authorization ?? "") ?? [];
    if (bearer === undefined) {
      throw new BrokerError("unauthenticated", "Send a key of this broker: Authorization: Bearer <key>.");
    }
    const known = keys.known(bearer);
    if (known !== null) return known;
    if (looksLikeJwt(bearer)) return await workloads.authenticate(bearer);
    return await keys.authenticate(bearer, { sparing: wrongKeys.isSpent(networkOf(request.ip)) });
  } catch (error) {
    if (error instanceof BrokerError && error.code === "unauthenticated") {
      onRefused();
      countWrongKey(request, wrongKeys);
    }
    throw error;
  }
}

/**
 * Call it only for a wrong key, so that wrong keys never delay a right one from the same address.
 * @throws BrokerError rate_limited beyond the limit
 */
export function countWrongKey({ ip }: FastifyRequest, wrongKeys: MinuteLimit): void {
  const retryAfterSeconds = wrongKeys.take(networkOf(ip));
  if (retryAfterSeconds === null) return;
  throw new BrokerError("rate_limited", "Too many requests with wrong keys came from this address.", {
    retryAfterSeconds,
  });
}
