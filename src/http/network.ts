import { isIP } from "node:net";

/**
 * Whose address this is, for counting: an IPv4 address, or the /64 of an IPv6 one, which one customer has to themself (RFC 6177).
 * All spellings of an address give the same text. What is no address, as a proxy may pass on, counts as one caller together.
 */
export function networkOf(address: string): string {
  // As some proxies write it, with a port; and without the zone of a link-local address (RFC 4007, section 11).
  const [, bracketed, dotted] = /^\[(.*)\](?::\d+)?$|^([\d.]+):\d+$/s.exec(address) ?? [];
  const plain = (bracketed ?? dotted ?? address).replace(/%.*$/s, "");
  if (isIP(plain) === 4) return plain;
  if (isIP(plain) !== 6) return "no address";
  const groups = groupsOf(plain);
  const first = groups.slice(0, 6).join(":");
  // What stands for an IPv4 address counts as that: all the others would share one /64.
  if (first === mapped || first === translated) return groups.slice(6).map(asBytes).join(".");
  return `${groups.slice(0, 4).join(":")}::/64`;
}

/** RFC 4291, section 2.5.5.2, and RFC 6052, section 2.1. */
const mapped = "0:0:0:0:0:ffff";
const translated = "64:ff9b:0:0:0:0";

/** The eight groups of an IPv6 address, as the URL parser writes them: hexadecimal, lower case, without leading zeros. */
function groupsOf(address: string): string[] {
  const written = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = [], tail = []] = written.split("::").map((part) => part.split(":").filter((group) => group !== ""));
  const lacking = Array.from({ length: 8 - head.length - tail.length }, () => "0");
  return [...head, ...lacking, ...tail];
}

function asBytes(group: string): string {
  const value = Number.parseInt(group, 16);
  return `${value >> 8}.${value & 255}`;
}
