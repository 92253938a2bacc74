import type { RefreshRules } from "../providers/definition.ts";

/** The ends that a refresh can come ahead of, by Postgres's clock. */
export type Ends = {
  issuedAt: Date;
  /** Null: the access token does not expire. */
  expiresAt: Date | null;
  /** As the provider stated it; null: it did not. */
  refreshTokenExpiresAt: Date | null;
  authorizedAt: Date | null;
};

type Rules = Pick<RefreshRules, "aheadFraction" | "minAgeSeconds" | "idleLifeSeconds" | "absoluteLifeSeconds">;

/** When a set is to be refreshed by itself. */
export type Schedule = {
  /** Ahead of the access token's end, where somebody reads it; null: it does not end. */
  refreshDueAt: Date | null;
  /** Ahead of the end of refresh token or grant, read or not; null: neither ends. */
  keepAliveAt: Date | null;
};

const jitterFraction = 0.05;
const longestMarginMs = 86_400_000;
const marginFraction = 0.1;

/** Pure: the same ends, rules and random numbers give the same schedule. */
export function scheduleRefresh(ends: Ends, rules: Rules, random: () => number): Schedule {
  const issuedMs = ends.issuedAt.getTime();
  const earliestMs = issuedMs + rules.minAgeSeconds * 1000;
  const at = (ms: number) => new Date(Math.max(ms, earliestMs));
  const aheadMs = aheadOfAccessEnd(ends, rules, random);
  const keepMs = keepAliveTerms(ends, rules)
    .map((term) => beforeEnd(term, random))
    // What has passed already was the reason for this very refresh: it would be due for ever.
    .filter((ms) => ms > issuedMs);
  return {
    refreshDueAt: aheadMs === null ? null : at(aheadMs),
    keepAliveAt: keepMs.length === 0 ? null : at(Math.min(...keepMs)),
  };
}

function aheadOfAccessEnd({ issuedAt, expiresAt }: Ends, { aheadFraction }: Rules, random: () => number) {
  if (expiresAt === null) return null;
  const lifeMs = Math.max(expiresAt.getTime() - issuedAt.getTime(), 0);
  const jitter = (2 * random() - 1) * jitterFraction;
  return issuedAt.getTime() + lifeMs * Math.max(0, 1 - aheadFraction + jitter);
}

type Term = { fromMs: number; endMs: number };

function keepAliveTerms(ends: Ends, { idleLifeSeconds, absoluteLifeSeconds }: Rules): Term[] {
  const { issuedAt, refreshTokenExpiresAt, authorizedAt } = ends;
  const issuedMs = issuedAt.getTime();
  const firstMs = authorizedAt?.getTime() ?? issuedMs;
  const terms: Term[] = [];
  if (idleLifeSeconds !== null) terms.push({ fromMs: issuedMs, endMs: issuedMs + idleLifeSeconds * 1000 });
  if (absoluteLifeSeconds !== null) terms.push({ fromMs: firstMs, endMs: firstMs + absoluteLifeSeconds * 1000 });
  if (refreshTokenExpiresAt !== null) terms.push({ fromMs: issuedMs, endMs: refreshTokenExpiresAt.getTime() });
  return terms;
}

/** A tenth of the life before its end, at most a day, spread so that what began together does not come together. */
function beforeEnd({ fromMs, endMs }: Term, random: () => number): number {
  const marginMs = Math.min((endMs - fromMs) * marginFraction, longestMarginMs);
  return endMs - marginMs * (1 + random());
}
