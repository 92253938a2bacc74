import type { FastifyInstance, FastifyRequest } from "fastify";
import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import { BrokerError } from "../errors.ts";
import type { KeyService } from "../registry/key-service.ts";
import type { Principal } from "../registry/principal.ts";
import type { Ability } from "../store/api-keys.ts";

declare module "fastify" {
  interface FastifyRequest {
    principal: Principal | null;
  }
}

const failuresPerMinute = 30;

/** Makes every route of a scope need a key that has the ability. */
export type RequireAbility = (scope: FastifyInstance, ability: Ability) => void;

/** One count of failures for all scopes of the app. */
export function createRequireAbility(keys: KeyService): RequireAbility {
  const failures = new RateLimiterMemory({ points: failuresPerMinute, duration: 60 });
  return (scope, ability) => {
    scope.decorateRequest("principal", null);
    scope.addHook("onRequest", async (request) => {
      request.principal = await authenticate(request, keys, failures);
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

/** Bearer tokens as in RFC 6750, section 2.1; the scheme's name in any case (RFC 9110, section 11.1). */
async function authenticate(
  request: FastifyRequest,
  keys: KeyService,
  failures: RateLimiterMemory,
): Promise<Principal> {
  try {
    const [, key] = /^bearer +(\S+) *$/i.exec(request.headers.authorization ?? "") ?? [];
    if (key === undefined) {
      throw new BrokerError("unauthenticated", "Send a key of this broker: Authorization: Bearer <key>.");
    }
    return await keys.authenticate(key);
  } catch (error) {
    if (error instanceof BrokerError && error.code === "unauthenticated") await countFailure(request.ip, failures);
    throw error;
  }
}

/** Good keys are never held up by bad ones of the same address: only failures count, and only failures are limited. */
async function countFailure(address: string, failures: RateLimiterMemory): Promise<void> {
  try {
    await failures.consume(networkOf(address));
  } catch (limit) {
    if (!(limit instanceof RateLimiterRes)) throw limit;
    const retryAfterSeconds = Math.max(1, Math.ceil(limit.msBeforeNext / 1000));
    throw new BrokerError("rate_limited", "Too many requests with wrong keys came from this address.", {
      retryAfterSeconds,
    });
  }
}

/** One IPv6 customer has a /64 of addresses (RFC 6177). */
function networkOf(address: string): string {
  return address.includes(":") && !address.includes(".") ? address.split(":").slice(0, 4).join(":") : address;
}
