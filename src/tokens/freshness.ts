/** When the newest token of a connection was issued and runs out, by Postgres's clock. */
export type Lifetime = { issuedAtMs: number; /** Null: never. */ expiresAtMs: number | null };

/** What the definition says about when to refresh. */
export type RefreshTiming = {
  /** The part of a life at whose beginning a refresh starts ahead of need: 0.25 is the last quarter. */
  aheadFraction: number;
  /** The provider refuses to refresh a token younger than this. */
  minAgeSeconds: number;
};

export type Wish = {
  /** The token should live at least this long. */
  minTtlSeconds: number;
  /** The caller was told by the provider that the newest token is no good. */
  rejected: boolean;
};

export type FreshnessWarning = "min_ttl_exceeds_lifetime" | "recently_refreshed";

/**
 * - `fresh`: hand it out.
 * - `due`: hand it out, and start a refresh behind it.
 * - `stale`: refresh first. `usable` tells whether it may still be handed out when that fails.
 */
export type Verdict =
  | { kind: "fresh" | "due"; warnings: FreshnessWarning[] }
  | { kind: "stale"; usable: boolean; warnings: FreshnessWarning[] };

const recentlyRefreshedMs = 10_000;

/** True while the provider would still accept the token. */
export function isLive({ expiresAtMs }: Lifetime, nowMs: number): boolean {
  return expiresAtMs === null || expiresAtMs > nowMs;
}

/** Judges the newest token. At most half of the issued life counts as a wish, so that no wish can cause a refresh loop. */
export function judge(
  lifetime: Lifetime,
  wish: Wish,
  { timing, nowMs }: { timing: RefreshTiming; nowMs: number },
): Verdict {
  const { issuedAtMs, expiresAtMs } = lifetime;
  const lifeMs = expiresAtMs === null ? Infinity : expiresAtMs - issuedAtMs;
  const remainingMs = expiresAtMs === null ? Infinity : expiresAtMs - nowMs;
  const ageMs = nowMs - issuedAtMs;
  if (wish.rejected) return judgeRejected({ ageMs, lifeMs, remainingMs });
  if (remainingMs <= 0) return { kind: "stale", usable: false, warnings: [] };
  const wishedMs = wish.minTtlSeconds * 1000;
  const warnings: FreshnessWarning[] = remainingMs < wishedMs ? ["min_ttl_exceeds_lifetime"] : [];
  if (ageMs < timing.minAgeSeconds * 1000) return { kind: "fresh", warnings };
  if (remainingMs < Math.min(wishedMs, lifeMs / 2)) return { kind: "stale", usable: true, warnings };
  const isDue = expiresAtMs !== null && remainingMs <= timing.aheadFraction * lifeMs;
  return { kind: isDue ? "due" : "fresh", warnings };
}

/** A token this young was most likely refreshed between the caller's attempt and its report. */
function judgeRejected({
  ageMs,
  lifeMs,
  remainingMs,
}: {
  ageMs: number;
  lifeMs: number;
  remainingMs: number;
}): Verdict {
  const young = ageMs < Math.min(recentlyRefreshedMs, lifeMs / 4);
  if (young && remainingMs > 0) return { kind: "fresh", warnings: ["recently_refreshed"] };
  return { kind: "stale", usable: false, warnings: [] };
}
