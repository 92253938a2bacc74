import type { Actor } from "../audit/entries.ts";
import { publicName } from "../text.ts";
import { BrokerError, DuplicateGrantError } from "../errors.ts";
import type { Ability } from "../store/api-keys.ts";

/** Who calls, and what they may. */
export type Principal = {
  /** The id of the key; `bootstrapKeyId` for the bootstrap key. For a workload: `workload:` and its name. */
  callerId: string;
  /** How the audit names it. */
  actor: Actor;
  abilities: readonly Ability[];
  /** Names of connections, `*` standing for any characters. */
  connections: readonly string[];
  /** What a connection must carry, each with this value, beside a name that the patterns cover. Empty: any labels, or none. */
  labels: Readonly<Record<string, string>>;
  /** When the key or the workload's token ends; null: never. */
  expiresAt: Date | null;
};

/** The id of the bootstrap key (`ADMIN_KEY`). The id of every other key is longer. */
export const bootstrapKeyId = "admin";

/** What a new key is to be allowed. */
type Gift = { abilities: readonly Ability[]; connections: readonly string[]; expiresAt: Date | null };

/** The fields of a client that decide who may use it. */
type Usable = { patterns: readonly string[]; scopes: readonly string[] };

/** What a client is to be used for. `required`: scopes that the provider's definition always asks for. */
type WantedUse = { connection: string; scopes: readonly string[]; required?: readonly string[] };

/** Whether one of the principal's patterns covers the connection. A further token is reached only through its connection. */
export function mayUse({ connections }: Pick<Principal, "connections">, name: string): boolean {
  return publicName(name) === name && isCovered(name, connections);
}

/**
 * Whether the principal may use the client's secret for a connection. With `admin`: any client, for connections that its own patterns
 * cover. Without: the client's patterns must cover the connection, too, and if the client has scopes, they must include all that are asked
 * for. A request without scopes would get whatever the provider gives, so it must name some.
 */
export function mayUseClient(principal: Principal, client: Usable, wanted: WantedUse): boolean {
  if (!mayUse(principal, wanted.connection)) return false;
  if (principal.abilities.includes("admin")) return true;
  if (!isCovered(wanted.connection, client.patterns)) return false;
  if (client.scopes.length === 0) return true;
  const allowed = new Set([...client.scopes, ...(wanted.required ?? [])]);
  return wanted.scopes.length > 0 && wanted.scopes.every((scope) => allowed.has(scope));
}

/** The answer for a client that does not exist and for one that the caller may not use: the same, byte for byte. */
export function unknownClient(name: string): BrokerError {
  return new BrokerError(
    "invalid_request",
    `client: there is no client named "${name}" that this key may use for this connection.`,
  );
}

/**
 * No key gives more than it has: no other abilities or patterns, and no later end.
 * @throws BrokerError forbidden, naming the field and what is allowed
 */
export function requireMayGive(principal: Principal, { abilities, connections, expiresAt }: Gift): void {
  const more = abilities.find((ability) => !principal.abilities.includes(ability));
  if (more !== undefined) {
    throw forbidden("abilities", `this key has no "${more}"; it may give ${principal.abilities.join(", ")}`);
  }
  requireMayCover(principal, connections);
  const end = principal.expiresAt;
  if (end !== null && (expiresAt === null || expiresAt > end)) {
    throw forbidden("expires_at", `this key ends at ${end.toISOString()}; what it gives must end by then`);
  }
}

/**
 * A client or key without patterns counts as `*`, here and in queries for what lies within patterns. So only a principal that covers `*`
 * can make, change or end it.
 * @throws BrokerError forbidden for a pattern that goes beyond all of the principal's own, and for no patterns
 */
export function requireMayCover({ connections }: Principal, patterns: readonly string[]): void {
  if (patterns.length === 0 && !coversAll({ connections })) {
    const own = connections.join(", ");
    throw forbidden("connections", `none at all is for a key whose patterns cover *; name some within ${own}`);
  }
  // A star of the inner pattern counts as a character that no name has, so only a star of the outer pattern matches it.
  const beyond = patterns.find((pattern) => !isCovered(pattern, connections));
  if (beyond === undefined) return;
  const own = connections.length === 0 ? "it has none" : `its own are ${connections.join(", ")}`;
  throw forbidden("connections", `"${beyond}" goes beyond the patterns of this key; ${own}`);
}

/**
 * Runs `store`, which stores a grant. If another connection has its refresh token already, that connection is named only to a principal whose
 * patterns cover it. Everybody else gets the same answer, byte for byte.
 */
export async function namingHolders<Stored>(principal: Principal, store: () => Promise<Stored>): Promise<Stored> {
  try {
    return await store();
  } catch (error) {
    if (!(error instanceof DuplicateGrantError)) throw error;
    const known = error.holders.find((name) => mayUse(principal, name));
    if (known === undefined) throw error;
    const detail = `The connection "${known}" holds the same refresh token; two would invalidate each other's. Use that one, or delete it first, with revoke=false.`;
    throw new BrokerError("duplicate_grant", detail, error.context);
  }
}

/** Whether there is no connection that the principal's patterns leave out. */
export function coversAll({ connections }: Pick<Principal, "connections">): boolean {
  return isCovered("*", connections);
}

/** The same as SQL's LIKE patterns. */
export function likePatterns({ connections }: Pick<Principal, "connections">): string[] {
  return connections.map((pattern) => pattern.replaceAll(/[\\%_]/g, String.raw`\$&`).replaceAll("*", "%"));
}

/** Whether one of the patterns covers a name, or all names that another pattern covers. */
function isCovered(nameOrPattern: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => matches(pattern, nameOrPattern));
}

/** Looks for the parts between stars, one after the other, from the left. */
function matches(pattern: string, name: string): boolean {
  const [first = "", ...rest] = pattern.split("*");
  if (rest.length === 0) return name === pattern;
  if (!name.startsWith(first)) return false;
  const last = rest.pop() ?? "";
  let at = first.length;
  for (const part of rest) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}

function forbidden(field: string, problem: string): BrokerError {
  return new BrokerError("forbidden", `${field}: ${problem}.`);
}
