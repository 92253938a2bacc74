import { parse } from "yaml";
import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import { checkDefinition, checkShape } from "../../../src/providers/load/check-definition.ts";
import { resolveDefinition } from "../../../src/providers/load/resolve.ts";

/** The definitions that rows are laid over. `full` has every kind of request, `bare` has one grant only. */
export const bases = {
  full: `
id: own
grants: [authorization_code, client_credentials, password, device_code, import]
authorization:
  url: https://login.example/authorize
  scope: { default: [read, write] }
  pushed: { url: https://login.example/par }
token:
  url: https://login.example/token
  grants: { client_credentials: { refresh: {} } }
device: { url: https://login.example/device }
response:
  extra_tokens:
    - { name: user, access_token: /user/access_token, refresh_token: /user/refresh_token }
    - { name: second, exchange: {} }
introspection: { url: https://login.example/introspect }
revocation: { url: https://login.example/revoke }
after_connect:
  - { request: { url: https://api.example/me }, pointer: /id }
api: { base_url: https://api.example }
`,
  bare: `
id: own
grants: [client_credentials]
token:
  url: https://login.example/token
  client_auth: none
  grants: { client_credentials: { fields: { a: b } } }
`,
} as const;
export type Base = keyof typeof bases;

/** The definition of a base with a piece of YAML laid over it. @throws Error with every fault of it */
export function defineFrom(base: Base, piece: string): ProviderDefinition {
  const shape = checkShape(fileFrom(base, piece));
  if ("problems" in shape) throw new Error(JSON.stringify(shape.problems));
  const definition = resolveDefinition(shape.file, false);
  const problems = checkDefinition(shape.file, definition);
  if (problems.length > 0) throw new Error(JSON.stringify(problems));
  return definition;
}

/** A base with a piece of YAML laid over it, as a file would hold it. */
export function fileFrom(base: Base, piece: string): Record<string, unknown> {
  return lay(parse(bases[base]), parse(piece) ?? {}) as Record<string, unknown>;
}

/** Maps merge, lists of maps merge item by item, everything else replaces. */
export function lay(below: unknown, above: unknown): unknown {
  if (Array.isArray(below) && Array.isArray(above) && above.every(isMap)) {
    const length = Math.max(below.length, above.length);
    return Array.from({ length }, (_, index) => (index in above ? lay(below[index], above[index]) : below[index]));
  }
  if (!isMap(below) || !isMap(above)) return above;
  const merged: Record<string, unknown> = { ...below };
  for (const [key, value] of Object.entries(above)) merged[key] = lay(below[key], value);
  return merged;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
