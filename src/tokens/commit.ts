import type { Clock } from "../clock.ts";
import type { Expiry, Grant } from "../providers/grant.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { PermitKey, SealedGrant, TokenRows } from "../store/token-rows.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { budgets } from "./budgets.ts";

/** `lost`: the row has moved on without this answer. */
export type CommitResult = { kind: "stored" | "lost"; row: TokenRow | null };

/** The row that a grant is sealed for, and what of it carries over. */
export type GrantBase = {
  id: string;
  generation: number;
  provider: string;
  clientRef: string | null;
  captured: Record<string, string>;
  /** Stays in force when the answer names no new one. */
  refreshToken: string | null;
  /** What an answer that names no scopes grants (RFC 6749, section 5.1); null: what was granted before. */
  impliedScopes: string[] | null;
};

/** What carries over when a token set is refreshed: all but the access token. */
export function refreshBase(vault: TokenVault, row: TokenRow): GrantBase {
  const place = { connectionId: row.id, generation: row.generation };
  return {
    ...row,
    refreshToken: row.refreshToken === null ? null : vault.openRefreshToken(row.refreshToken, place),
    impliedScopes: row.generation === 0 ? row.scopes : null,
  };
}

/**
 * Seals what a provider granted for the next generation of a row. A kept refresh token is sealed anew with it.
 * @param sentAt Postgres's time when the request was permitted: lives are counted from no later than the sending.
 */
export function sealGrant(
  vault: TokenVault,
  base: GrantBase,
  { grant, sentAt }: { grant: Grant; sentAt: Date },
): SealedGrant {
  const accessToken = grant.accessToken ?? null;
  const refreshToken = grant.refreshToken ?? base.refreshToken;
  const place = { connectionId: base.id, generation: base.generation + 1 };
  const expiresAt = expiryDate(grant.accessExpiry, sentAt, unstatedSeconds);
  return {
    ...vault.sealTokens({ accessToken, refreshToken }, place),
    refreshFingerprint: refreshToken === null ? null : vault.fingerprint(refreshToken, base.clientRef ?? base.provider),
    tokenType: grant.tokenType,
    grantedScopes: grant.scopes ?? base.impliedScopes,
    captured: { ...base.captured, ...grant.captured },
    issuedAt: sentAt,
    expiresAt: accessToken === null ? sentAt : expiresAt,
    refreshTokenExpiresAt: expiryDate(grant.refreshExpiry, sentAt, null),
    keepsRefreshToken: grant.refreshToken === undefined && base.refreshToken !== null,
  };
}

const unstatedSeconds = 3600;
/** Ten years: whatever lives longer counts as that. */
const longestSeconds = 315_360_000;

function expiryDate(expiry: Expiry, sentAt: Date, unstated: number | null): Date | null {
  if (expiry.kind === "never") return null;
  const sentSeconds = sentAt.getTime() / 1000;
  const stated =
    expiry.kind === "at" ? expiry.epochSeconds - sentSeconds : expiry.kind === "in" ? expiry.seconds : unstated;
  return stated === null ? null : new Date((sentSeconds + Math.min(stated, longestSeconds)) * 1000);
}

type Options = { rows: TokenRows; clock: Clock; random: () => number; onTrouble: (error: unknown) => void };

/**
 * Step 8: stores an answer, whatever it takes. While Postgres is gone it is kept here and tried again; a commit whose
 * outcome is unknown is recognised by `lastAttemptId`.
 */
export async function commitGrant(
  key: PermitKey,
  sealed: SealedGrant,
  { rows, clock, random, onTrouble }: Options,
): Promise<CommitResult> {
  let delayMs = budgets.commitRetryFirstMs as number;
  for (;;) {
    try {
      const stored = await rows.commitRefresh(key, sealed, { generation: key.generation + 1 });
      if (stored !== null) return { kind: "stored", row: stored };
      const row = await rows.readById(key.connectionId);
      return { kind: row?.lastAttemptId === key.attemptId ? "stored" : "lost", row };
    } catch (error) {
      onTrouble(error);
      await clock.sleep(delayMs * (0.5 + random()));
      delayMs = Math.min(delayMs * 2, budgets.commitRetryMaxMs);
    }
  }
}
