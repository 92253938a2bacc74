import type { TokenRow } from "../../../src/store/token-row.ts";

export const now = new Date("2026-11-20T12:00:00.000Z");

/** The time so many seconds after `now`. */
export function inSeconds(seconds: number): Date {
  return new Date(now.getTime() + seconds * 1000);
}

/** A connected row with ten minutes to live, read at `now`. */
export function tokenRow(changes: Partial<TokenRow> = {}): TokenRow {
  return {
    id: "6f5d6a3e-4a39-4d0b-9d2c-0d5c3f1f8a10",
    name: "acme",
    provider: "own",
    clientRef: null,
    grant: "authorization_code",
    status: "connected",
    scopes: [],
    inputs: {},
    inputsInForce: {},
    labels: {},
    captured: {},
    redirectUri: null,
    parentId: null,
    chain: null,
    account: null,
    accountLabel: null,
    accountCaptured: {},
    lookedUp: null,
    lookupFailures: 0,
    lookupFailedAt: null,
    credentials: null,
    credentialsRevision: 0,
    generation: 3,
    authorization: 1,
    version: 5,
    accessToken: new Uint8Array([1]),
    refreshToken: new Uint8Array([2]),
    tokenType: "Bearer",
    grantedScopes: [],
    issuedAt: inSeconds(-3000),
    expiresAt: inSeconds(600),
    refreshTokenExpiresAt: null,
    authorizedAt: null,
    authorizedClientId: null,
    noRefreshTokenSince: null,
    unreadableLifetime: false,
    untried: false,
    keepAliveAt: null,
    attemptId: null,
    attemptStartedAt: null,
    leaseUntil: null,
    attemptOutcome: null,
    lastAttemptId: null,
    attemptReplays: 0,
    backoffUntil: null,
    consecutiveFailures: 0,
    lastErrorCode: null,
    lastErrorDetail: null,
    refusals: 0,
    probablyDeadSince: null,
    retriedAt: null,
    inUse: false,
    goneBackFrom: null,
    versionFloor: 0,
    mac: null,
    now,
    ...changes,
  };
}

/** The same with a permit in it, whose lease ended so many seconds ago. */
export function attemptedRow(leaseEndedSecondsAgo: number, changes: Partial<TokenRow> = {}): TokenRow {
  return tokenRow({
    attemptId: "0b9a2f4e-8a53-4a7e-a1c8-3c1a3f2f7e11",
    attemptStartedAt: inSeconds(-leaseEndedSecondsAgo - 30),
    leaseUntil: inSeconds(-leaseEndedSecondsAgo),
    ...changes,
  });
}
