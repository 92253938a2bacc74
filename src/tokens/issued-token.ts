import { publicName } from "../chain-name.ts";
import { missingScopes } from "../providers/scopes.ts";
import type { FreshnessWarning } from "./freshness.ts";
import { explainLacking, lacksRefreshToken } from "./refresh-token.ts";
import type { KnownConnection } from "./token-cache.ts";

export const warningCodes = [
  "min_ttl_exceeds_lifetime",
  "recently_refreshed",
  "refresh_failing",
  "no_refresh_token",
  "lifetime_unreadable",
] as const;
export type WarningCode = FreshnessWarning | "refresh_failing";
type Warning = { code: (typeof warningCodes)[number]; detail: string };

/** What a caller gets. The only type that leaves the token core with a secret: the access token. */
export type IssuedToken = {
  connection: string;
  /** Which further token of the connection it is; null: its own. */
  token: string | null;
  accessToken: string;
  tokenType: string;
  /** Null: it does not expire. */
  expiresAt: Date | null;
  /** Whole seconds left, by Postgres's clock. */
  expiresInSeconds: number | null;
  scopes: string[];
  /** Asked for and not granted. */
  missingScopes: string[];
  version: number;
  warnings: Warning[];
};

const details: Record<WarningCode, string> = {
  min_ttl_exceeds_lifetime: "The provider's tokens do not live as long as min_ttl asks for; this is the newest one.",
  recently_refreshed: "The rejected version is only seconds old; the same token is returned once more.",
  refresh_failing: "The token is still valid, but its refresh is failing; see the connection's last_error.",
};

/** The newest token with its warnings; null when there is none or it has run out: an expired one is never handed out. */
export function issueToken(
  { row, accessToken }: Pick<KnownConnection, "row" | "accessToken">,
  codes: readonly WarningCode[],
  nowMs: number,
): IssuedToken | null {
  const remainingMs = row.expiresAt === null ? Infinity : row.expiresAt.getTime() - nowMs;
  if (accessToken === null || remainingMs <= 0) return null;
  const failing: WarningCode[] = row.lastErrorCode === null ? [] : ["refresh_failing"];
  return {
    connection: publicName(row.name),
    token: row.chain,
    accessToken,
    tokenType: row.tokenType ?? "Bearer",
    expiresAt: row.expiresAt,
    expiresInSeconds: row.expiresAt === null ? null : Math.floor(remainingMs / 1000),
    scopes: row.grantedScopes,
    missingScopes: missingOf(row),
    version: row.version,
    warnings: [
      ...[...new Set([...codes, ...failing])].map((code) => ({ code, detail: details[code] })),
      ...(lacksRefreshToken(row) ? [noRefreshToken(row)] : []),
      ...(row.unreadableLifetime ? [unreadableLifetime] : []),
    ],
  };
}

const unreadableLifetime: Warning = {
  code: "lifetime_unreadable",
  detail:
    "The provider's answer states how long a token lives in a way that cannot be read. The definition's fallback counts, else an hour; correct `response.expires` or `response.refresh_expires` of the definition.",
};

/** A further token has scopes of its own, which nobody asked for by name. */
function missingOf({ chain, scopes, grantedScopes, refreshToken, grant }: KnownConnection["row"]): string[] {
  return chain === null
    ? missingScopes(scopes, { granted: grantedScopes, hasRefreshToken: refreshToken !== null, grant })
    : [];
}

/** This connection ends with this token, as far as anybody knows. */
export function noRefreshToken(row: KnownConnection["row"]): Warning {
  return { code: "no_refresh_token", detail: explainLacking({ ...row, hasRefreshToken: row.refreshToken !== null }) };
}
