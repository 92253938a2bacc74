import type { Actor } from "../audit/entries.ts";
import { binds, carries, type Labels } from "../labels.ts";
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
  labels: Labels;
  /** When the key or the workload's token ends; null: never. */
  expiresAt: Date | null;
  /** Of a workload that was declared by the API: the id of its row. */
  declaration?: string;
};

/** The id of the bootstrap key (`ADMIN_KEY`). The id of every other key is longer. */
export const bootstrapKeyId = "admin";

/** What a new key is to be allowed. */
type Gift = { abilities: readonly Ability[]; connections: readonly string[]; labels: Labels; expiresAt: Date | null };

/** The fields of a client that decide who may use it. */
type Usable = { patterns: readonly string[]; scopes: readonly string[] };

/** What a client is to be used for. `required`: scopes that the provider's definition always asks for. */
type WantedUse = { connection: string; scopes: readonly string[]; required?: readonly string[] };

/** What a principal may use: connections of these names, with these labels. */
type Reach = Pick<Principal, "connections" | "labels">;

/**
 * Whether the principal may use the connection: one of its patterns covers the name, and the connection carries each of its labels. A further
 * token is reached only through its connection.
 */
export function mayUse(principal: Reach, { name, labels }: { name: string; labels: Labels }): boolean {
  return coversName(principal, name) && carries(labels, principal.labels);
}

/** Whether one of the principal's patterns covers the name. If the principal is bound to labels, those of the connection must be checked, too. */
export function coversName({ connections }: Pick<Principal, "connections">, name: string): boolean {
  return publicName(name) === name && isCovered(name, connections);
}

/**
 * Those of the names that an answer about another connection may tell the principal. One that is bound to labels is told none: nobody has
 * looked which labels these connections carry.
 */
export function toldNames(principal: Reach, names: readonly string[]): string[] {
  return binds(principal.labels) ? [] : names.filter((name) => coversName(principal, name));
}

/** Whether the principal administers clients and labels: it has `admin`, and is bound to no labels. */
export function isAdmin({ abilities, labels }: Pick<Principal, "abilities" | "labels">): boolean {
  return abilities.includes("admin") && !binds(labels);
}

/**
 * Whether the principal may use the client's secret for a connection. An admin: any client, for connections that its own patterns
 * cover. Everybody else: the client's patterns must cover the connection, too, and if the client has scopes, they must include all that are asked
 * for. A request without scopes would get whatever the provider gives, so it must name some.
 */
export function mayUseClient(principal: Principal, client: Usable, wanted: WantedUse): boolean {
  if (!coversName(principal, wanted.connection)) return false;
  if (isAdmin(principal)) return true;
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
 * No key gives more than it has: no other abilities or patterns, none of its own labels left out, and no later end.
 * @throws BrokerError forbidden, naming the field and what is allowed
 */
export function requireMayGive(principal: Principal, { abilities, connections, labels, expiresAt }: Gift): void {
  const more = abilities.find((ability) => !principal.abilities.includes(ability));
  if (more !== undefined) {
    throw forbidden("abilities", `this key has no "${more}"; it may give ${principal.abilities.join(", ")}`);
  }
  requireMayCover(principal, connections);
  requireOwnLabels(principal, labels);
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
  if (patterns.length === 0 && !isCovered("*", connections)) {
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
 * What a principal that is bound to labels makes or changes carries them.
 * @throws BrokerError forbidden, naming the labels
 */
export function requireOwnLabels(principal: Reach, labels: Labels): void {
  if (carries(labels, principal.labels)) return;
  throw forbidden("labels", `this key is bound to ${JSON.stringify(principal.labels)}, so these must be among them`);
}

/**
 * For what is about everybody, whichever connections they use.
 * @throws BrokerError forbidden for a principal that is bound to labels
 */
export function requireUnbound(principal: Reach): void {
  if (!binds(principal.labels)) return;
  throw new BrokerError(
    "forbidden",
    "This is about all connections, or about clients, which belong to everybody: only a key that is bound to no labels may ask for it.",
  );
}

/**
 * For what tells of everything, or concerns it, such as encryption keys and the proofs of the audit.
 * @throws BrokerError forbidden for a principal whose patterns or labels leave out any connection
 */
export function requireAll(principal: Reach): void {
  if (coversAll(principal)) return;
  const detail =
    "This is about all connections: only a key whose patterns cover *, and which is bound to no labels, may ask for it.";
  throw new BrokerError("forbidden", detail);
}

/**
 * Runs `store`, which stores a grant. If another connection has its refresh token already, that connection is named only to a principal whose
 * patterns cover it, and which is bound to no labels. Everybody else gets the same answer, byte for byte.
 */
export async function namingHolders<Stored>(principal: Principal, store: () => Promise<Stored>): Promise<Stored> {
  try {
    return await store();
  } catch (error) {
    if (!(error instanceof DuplicateGrantError)) throw error;
    const [known] = toldNames(principal, error.holders);
    if (known === undefined) throw error;
    const detail = `The connection "${known}" holds the same refresh token; two would invalidate each other's. Use that one, or delete it first, with revoke=false.`;
    throw new BrokerError("duplicate_grant", detail, error.context);
  }
}

/** Whether there is no connection that the principal's patterns or labels leave out. */
export function coversAll({ connections, labels }: Reach): boolean {
  return isCovered("*", connections) && !binds(labels);
}

/** What the principal's lists lie within. */
export function boundsOf(principal: Reach): { patterns: string[]; labels: Labels } {
  return { patterns: likePatterns(principal), labels: principal.labels };
}

/** The principal's patterns, as SQL's LIKE patterns. */
export function likePatterns({ connections }: Pick<Principal, "connections">): string[] {
  return connections.map((pattern) => pattern.replaceAll(/[\\%_]/g, String.raw`\$&`).replaceAll("*", "%"));
}

/** Whether one of the patterns covers a name, or all names that another pattern covers. */
function isCovered(nameOrPattern: string, patterns: readonly string[]): boolean {
  let index = patternIndexes.get(patterns);
  if (index === undefined) patternIndexes.set(patterns, (index = indexOf(patterns)));
  for (const length of index.lengths) {
    const candidates = index.byBegin.get(nameOrPattern.slice(0, length));
    if (candidates?.some((parts) => matchesParts(parts, nameOrPattern)) === true) return true;
  }
  return false;
}

/** Patterns that were split at their stars, by what stands before the first one, and how long that is: those of a caller are tried for each read. */
type PatternIndex = { byBegin: Map<string, string[][]>; lengths: Set<number> };

const patternIndexes = new WeakMap<readonly string[], PatternIndex>();

/** A name is compared only with patterns that begin as it does, so it costs the same for a caller with one pattern as for one with hundreds. */
function indexOf(patterns: readonly string[]): PatternIndex {
  const split = patterns.map((pattern) => pattern.split("*"));
  const byBegin = Map.groupBy(split, ([begin = ""]) => begin);
  return { byBegin, lengths: new Set([...byBegin.keys()].map(({ length }) => length)) };
}

/** Whether a pattern fits a whole text, `*` standing for any characters. */
export function matchesStars(pattern: string, name: string): boolean {
  return matchesParts(pattern.split("*"), name);
}

/** Looks for the parts between stars, one after the other, from the left. */
function matchesParts(parts: readonly string[], name: string): boolean {
  const [first = ""] = parts;
  if (parts.length === 1) return name === first;
  if (!name.startsWith(first)) return false;
  const last = parts.at(-1) ?? "";
  let at = first.length;
  for (const part of parts.slice(1, -1)) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}

function forbidden(field: string, problem: string): BrokerError {
  return new BrokerError("forbidden", `${field}: ${problem}.`);
}
