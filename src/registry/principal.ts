import { publicName } from "../chain-name.ts";
import type { Ability } from "../store/api-keys.ts";

/** Who calls, and what they may. */
export type Principal = {
  /** The key's id; `admin` for the bootstrap key. */
  keyId: string;
  abilities: readonly Ability[];
  /** Names of connections, `*` standing for any characters. */
  connections: readonly string[];
};

/** Whether one of the principal's patterns covers the connection. Rows of further tokens are reached through theirs alone. */
export function mayUse({ connections }: Principal, name: string): boolean {
  return publicName(name) === name && connections.some((pattern) => matches(pattern, name));
}

/** The same as SQL's LIKE patterns. */
export function likePatterns({ connections }: Principal): string[] {
  return connections.map((pattern) => pattern.replaceAll(/[\\%_]/g, String.raw`\$&`).replaceAll("*", "%"));
}

/** The parts between stars, found one after the other from the left. */
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
