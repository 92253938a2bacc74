import { createHash } from "node:crypto";
import type { SealedGrant } from "../../../src/store/row-sql.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { Answer } from "../../../src/tokens/persist.ts";
import { type AnswerRecord, grantDestination, placeOf } from "../../../src/tokens/seal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { define } from "../providers/definitions.ts";
import { inSeconds, now, tokenRow } from "./token-row.ts";

export const key = createHash("sha256").update("answers").digest();
export const vault = createTokenVault(createKeyring([{ id: "k1", key }]));
export const attemptId = "3c1e0e5c-6a3b-4a44-9b7e-5f6a7b8c9d10";

/** Tokens "a2" and "second", sealed for the generation after the row's. */
export function sealedFor(row: TokenRow, changes: Partial<SealedGrant> = {}): SealedGrant {
  const { captured = { shop: "north" }, accountCaptured = row.accountCaptured } = changes;
  const place = placeOf({ ...row, captured, accountCaptured, generation: row.generation + 1 });
  return {
    ...vault.sealTokens({ accessToken: "a2", refreshToken: "second" }, place),
    refreshFingerprint: vault.fingerprint("second", row.provider),
    tokenType: "Bearer",
    grantedScopes: ["read"],
    captured,
    accountCaptured,
    redirectUri: null,
    issuedAt: now,
    expiresAt: inSeconds(3600),
    refreshTokenExpiresAt: inSeconds(86_400),
    keepsRefreshToken: false,
    noRefreshTokenSince: null,
    unreadableLifetime: false,
    lastError: null,
    refreshDueAt: inSeconds(2700),
    keepAliveAt: inSeconds(50_000),
    ...changes,
  };
}

export function answerRecord(row: TokenRow = tokenRow(), changes: Partial<AnswerRecord> = {}): AnswerRecord {
  return {
    kind: "refresh",
    connectionId: row.id,
    generation: row.generation,
    authorization: row.authorization,
    destination: grantDestination(row, []),
    attemptId,
    event: "refreshed",
    sealedFor: row.generation + 1,
    grant: sealedFor(row),
    ...changes,
  };
}

/** The same as it comes from a provider. */
export function answerTo(row: TokenRow = tokenRow(), changes: Partial<AnswerRecord> = {}): Answer {
  const context = { row, owner: row, definition: define(""), client: null, clientSecrets: [] };
  const expiry = { accessExpiry: { kind: "in", seconds: 3600 }, refreshExpiry: { kind: "unstated" } } as const;
  const grant = { accessToken: "a2", refreshToken: "second", tokenType: "Bearer", ...expiry, captured: {} };
  return { record: answerRecord(row, changes), context, grant, answeredMs: 1000 };
}
