import type { RefreshRules } from "../providers/definition.ts";
import type { Expiry, Grant } from "../providers/grant.ts";
import { nextGeneration } from "../store/generation.ts";
import type { SealedGrant } from "../store/row-sql.ts";
import type { TokenRow } from "../store/token-row.ts";
import { openedOrNull } from "../unreadable.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { lackingSince, type LackingBase } from "./refresh-token.ts";
import { destinationOf, placeOf, provenCaptures } from "./destination.ts";
import { scheduleRefresh, type Ends, type Schedule } from "./schedule.ts";

/** The row that a grant is sealed for, and what of it carries over. */
export type GrantBase = LackingBase & {
  id: string;
  name: string;
  parentId: string | null;
  generation: number;
  goneBackFrom: number | null;
  provider: string;
  clientRef: string | null;
  inputsInForce: Record<string, string>;
  captured: Record<string, string>;
  redirectUri: string | null;
  accountCaptured: Record<string, string>;
  refreshTokenExpiresAt: Date | null;
  authorizedAt: Date | null;
  /** What an answer that names no scopes grants (RFC 6749, section 5.1); null: what was granted before. */
  impliedScopes: string[] | null;
};

/** When a new set is to be refreshed by itself. */
export type Scheduler = (ends: Ends) => Schedule;

export function schedulerFor(rules: RefreshRules, random: () => number): Scheduler {
  return (ends) => scheduleRefresh(ends, rules, random);
}

/** What carries over when a token set is refreshed: all but the access token, and a refresh token that does not open. */
export function refreshBase(vault: TokenVault, row: TokenRow, { rotation }: Pick<RefreshRules, "rotation">): GrantBase {
  return {
    ...row,
    ...provenCaptures(vault, row),
    rotation,
    refreshToken: openedRefreshToken(vault, row),
    impliedScopes: row.generation === 0 ? row.scopes : null,
  };
}

/** Null: there is none, or it does not open. Between an answer and its first copy nothing may throw: that is not kept with it. */
export function openedRefreshToken(vault: TokenVault, row: TokenRow): string | null {
  const { refreshToken } = row;
  return openedOrNull(() => refreshToken && vault.openRefreshToken(refreshToken, placeOf(row)));
}

type ToSeal = { grant: Grant; sentAt: Date; scheduler: Scheduler; hosts: readonly string[]; isUseless?: boolean };

/**
 * Seals what a provider granted for the next generation of a row. A kept refresh token is sealed anew with it.
 * @param sentAt Postgres's time when the request was permitted: lives are counted from no later than the sending.
 * @param hosts the inputs that fill a host: with others the tokens do not open.
 * @param isUseless a refresh token is not kept: nothing could be sent with it (`isUselessTo`).
 */
export function sealGrant(
  vault: TokenVault,
  base: GrantBase,
  { grant, sentAt, scheduler, hosts, isUseless = false }: ToSeal,
): SealedGrant {
  const accessToken = grant.accessToken ?? null;
  const refreshToken = isUseless ? null : (grant.refreshToken ?? base.refreshToken);
  const { accountCaptured } = base;
  const captured = { ...base.captured, ...grant.captured };
  const destination = destinationOf({ ...base, captured }, hosts);
  const place = { connectionId: base.id, generation: nextGeneration(base), destination };
  const isOver = accessToken === null || !isUsable(accessToken);
  const expiresAt = isOver ? sentAt : expiryDate(grant.accessExpiry, sentAt, unstatedSeconds);
  const keepsRefreshToken = grant.refreshToken === undefined && refreshToken !== null;
  const refreshTokenExpiresAt = isUseless ? null : expiryDate(grant.refreshExpiry, sentAt, null);
  const ends = {
    issuedAt: sentAt,
    expiresAt,
    refreshTokenExpiresAt: keepsRefreshToken ? base.refreshTokenExpiresAt : refreshTokenExpiresAt,
    authorizedAt: base.authorizedAt,
  };
  const schedule = refreshToken === null ? { ...scheduler(ends), keepAliveAt: null } : scheduler(ends);
  return {
    ...vault.sealTokens({ accessToken, refreshToken }, place),
    refreshFingerprint: refreshToken === null ? null : vault.fingerprint(refreshToken, base.clientRef ?? base.provider),
    tokenType: grant.tokenType,
    grantedScopes: grant.scopes ?? base.impliedScopes,
    captured,
    accountCaptured,
    redirectUri: base.redirectUri,
    issuedAt: sentAt,
    expiresAt,
    refreshTokenExpiresAt,
    keepsRefreshToken,
    unreadableLifetime: grant.unreadableLifetime === true,
    lastError: accessToken !== null && isOver ? unusableToken : null,
    noRefreshTokenSince: grant.refreshToken === undefined ? lackingSince(base, { sentAt, expiresAt }) : null,
    ...schedule,
  };
}

/** Whether a header can carry an access token as it is (RFC 6749, appendix A.12: printable ASCII). Others are kept and never handed out. */
export function isUsable(accessToken: string): boolean {
  return /^[\x20-\x7e]+$/.test(accessToken);
}

const unusableToken = {
  code: "unusable_token",
  detail:
    "The provider's newest access token holds a character that no header can carry: a control character, or one beyond ASCII. It is stored and not handed out; a refresh may bring another one.",
};

const unstatedSeconds = 3600;
/** Ten years: whatever lives longer counts as that. */
const longestSeconds = 315_360_000;

/** When a token runs out that was asked for at `sentAt`; null: never. At most ten years, and never before it was asked for. */
export function expiryDate(expiry: Expiry, sentAt: Date, unstated: number | null): Date | null {
  if (expiry.kind === "never") return null;
  const sentSeconds = sentAt.getTime() / 1000;
  const stated =
    expiry.kind === "at" ? expiry.epochSeconds - sentSeconds : expiry.kind === "in" ? expiry.seconds : unstated;
  return stated === null ? null : new Date((sentSeconds + Math.min(Math.max(stated, 0), longestSeconds)) * 1000);
}
