import { createHash, randomBytes } from "node:crypto";
import { isIP } from "node:net";
import type { FastifyInstance } from "fastify";
import type { Config } from "../config.ts";
import { ConsentError } from "../consent/problem.ts";
import { callerTimes } from "../time.ts";

/** A limit of requests per minute for each caller, for any number of callers. */
export type MinuteLimit = {
  /** Counts one more. Null: it is within the limit; else the seconds after which the caller may come again. */
  take(caller: string): number | null;
  /** Whether the next request would exceed the limit. */
  isSpent(caller: string): boolean;
};

/** Two bytes of a digest choose a cell of a row. */
const width = 65_536;
const rows = [0, 1] as const;

/**
 * Counts in a table of a fixed size, so that many callers can neither make it grow nor push out the counts of others. Each caller has one
 * cell in each of two rows, and the lower of both counts. A minute begins with a caller's first request. Two callers count as one only
 * if both of their cells are the same. Nobody can cause that, since `secret` chooses the cells.
 */
export function createMinuteLimit(
  perMinute: number,
  clock: { monotonicMs(): number },
  secret: Uint8Array = randomBytes(32),
): MinuteLimit {
  const counts = rows.map(() => new Uint16Array(width));
  /** The second in which the minute of a cell is over. */
  const ends = rows.map(() => new Uint32Array(width));

  const cellsOf = (caller: string) => {
    const digest = createHash("sha256").update(secret).update(caller).digest();
    const now = clock.monotonicMs() / 1000;
    return rows.map((row) => {
      const index = digest.readUInt16LE(row * 2);
      const end = ends[row]?.[index] ?? 0;
      const left = Math.max(0, end - now);
      return { row, index, left, count: left === 0 ? 0 : (counts[row]?.[index] ?? 0), now };
    });
  };
  const countOf = (cells: ReturnType<typeof cellsOf>) => Math.min(...cells.map(({ count }) => count));

  return {
    isSpent: (caller) => countOf(cellsOf(caller)) >= perMinute,
    take(caller) {
      const cells = cellsOf(caller);
      const count = countOf(cells);
      if (count >= perMinute) return Math.max(1, Math.ceil(Math.min(...cells.map(({ left }) => left))));
      for (const { row, index, left, now, count: own } of cells) {
        if (left === 0) ends[row]?.set([Math.ceil(now) + callerTimes.limitWindowSeconds], index);
        counts[row]?.set([Math.max(own, count + 1)], index);
      }
      return null;
    },
  };
}

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

/** Refuses requests that come too often, before anything is read or consumed. The same request works a minute later. */
export function limitConsent(scope: FastifyInstance, limits: ConsentLimits): void {
  scope.addHook("onRequest", async ({ ip, method, params, routeOptions }) => {
    const isCallback = routeOptions.url?.startsWith("/callback/") === true;
    take(isCallback ? limits.callbacks : limits.linkPages, networkOf(ip));
    const { link } = (params ?? {}) as { link?: string };
    // Counted by the whole link: somebody who knows only its id, for instance from the history, cannot use up its holder's requests.
    if (method === "POST" && link !== undefined) take(limits.linkPosts, link);
  });
}

function take(limit: MinuteLimit, caller: string): void {
  const retryAfterSeconds = limit.take(caller);
  if (retryAfterSeconds !== null) throw new ConsentError("too_many_requests", null, { retryAfterSeconds });
}

/**
 * The caller that an address counts as: an IPv4 address, or the /64 of an IPv6 address, which belongs to one customer (RFC 6177).
 * All spellings of an address give the same text. Values that are no address, as a proxy may send, count together as one caller.
 */
export function networkOf(address: string): string {
  // As some proxies write it, with a port; and without the zone of a link-local address (RFC 4007, section 11).
  const [, bracketed, dotted] = /^\[(.*)\](?::\d+)?$|^([\d.]+):\d+$/s.exec(address) ?? [];
  const plain = (bracketed ?? dotted ?? address).replace(/%.*$/s, "");
  if (isIP(plain) === 4) return plain;
  if (isIP(plain) !== 6) return "no address";
  const groups = groupsOf(plain);
  const first = groups.slice(0, 6).join(":");
  // An IPv6 address that stands for an IPv4 address counts as the latter. Otherwise all of them would share one /64.
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
  const missing = Array.from({ length: 8 - head.length - tail.length }, () => "0");
  return [...head, ...missing, ...tail];
}

function asBytes(group: string): string {
  const value = Number.parseInt(group, 16);
  return `${value >> 8}.${value & 255}`;
}
