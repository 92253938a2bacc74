import type { Clock } from "../clock.ts";
import type { Expiry, Grant } from "../providers/grant.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { PermitKey, SealedGrant, TokenRows } from "../store/token-rows.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { budgets } from "./budgets.ts";

/** `lost`: the row has moved on without this answer. */
export type CommitResult = { kind: "stored" | "lost"; row: TokenRow | null };

/**
 * Seals what a provider granted for the next generation of a row. A kept refresh token is sealed anew with it.
 * @param sentAt Postgres's time when the request was permitted: lives are counted from no later than the sending.
 */
export function sealGrant(vault: TokenVault, row: TokenRow, { grant, sentAt }: { grant: Grant; sentAt: Date }): SealedGrant {
  const accessToken = grant.accessToken ?? null;
  const refreshToken = grant.refreshToken ?? keptRefreshToken(vault, row);
  const sealed = vault.sealTokens(
    { accessToken, refreshToken },
    { connectionId: row.id, generation: row.generation + 1 },
  );
  return {
    ...sealed,
    refreshFingerprint: refreshToken === null ? null : vault.fingerprint(refreshToken, row.clientRef ?? row.provider),
    tokenType: grant.tokenType,
    // An answer that names no scopes grants what was asked for (RFC 6749, section 5.1).
    grantedScopes: grant.scopes ?? (row.generation === 0 ? row.scopes : null),
    captured: { ...row.captured, ...grant.captured },
    issuedAt: sentAt,
    expiresAt: accessToken === null ? sentAt : expiryDate(grant.accessExpiry, sentAt, unstatedSeconds),
    refreshTokenExpiresAt: expiryDate(grant.refreshExpiry, sentAt, null),
  };
}

const unstatedSeconds = 3600;

function expiryDate(expiry: Expiry, sentAt: Date, unstated: number | null): Date | null {
  if (expiry.kind === "never") return null;
  if (expiry.kind === "at") return new Date(expiry.epochSeconds * 1000);
  const seconds = expiry.kind === "in" ? expiry.seconds : unstated;
  return seconds === null ? null : new Date(sentAt.getTime() + seconds * 1000);
}

function keptRefreshToken(vault: TokenVault, row: TokenRow): string | null {
  if (row.refreshToken === null) return null;
  return vault.openRefreshToken(row.refreshToken, { connectionId: row.id, generation: row.generation });
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
