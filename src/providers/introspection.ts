import { readPointer } from "./answer-body.ts";
import type { IntrospectionDefinition } from "./definition.ts";
import type { Expiry } from "./grant.ts";
import { readLifetime } from "./lifetime.ts";

/** What an introspection endpoint says of a token (RFC 7662, section 2.2). */
export function readIntrospection(
  introspection: IntrospectionDefinition,
  body: unknown,
): { active: boolean; expiry: Expiry } {
  const active = readPointer(body, introspection.active);
  return { active: active === true || active === "true", expiry: readLifetime(introspection.expires, body) };
}
