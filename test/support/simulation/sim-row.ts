import type { ConnectionStatus, TokenRow } from "../../../src/store/token-row.ts";
import { isThrottled, type AbandonedRule, type RecordedFailure, type SealedGrant } from "../../../src/store/row-sql.ts";

/** A whole row of `connections`, as far as the refresh protocol goes. Rows are replaced, never changed. */
export type SimRow = Omit<TokenRow, "now"> & {
  enabledStatus: ConnectionStatus;
  refreshFingerprint: Uint8Array | null;
  nextRefreshAt: Date | null;
  refreshDueAt: Date | null;
  refusal: string | null;
  refusedSince: Date | null;
};

const hidden = ["enabledStatus", "refreshFingerprint", "nextRefreshAt", "refreshDueAt", "refusal", "refusedSince"];

/** As the statements return it. */
export function viewOf(row: SimRow, nowMs: number): TokenRow {
  const view: Record<string, unknown> = { ...row, now: new Date(nowMs) };
  for (const name of hidden) delete view[name];
  return view as TokenRow;
}

type NewRow = Pick<SimRow, "id" | "name" | "provider" | "clientRef" | "grant" | "version"> &
  Partial<Pick<SimRow, "account" | "labels">>;

/** What an INSERT leaves. */
export function newRow(given: NewRow): SimRow {
  return {
    status: "pending",
    enabledStatus: "pending",
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
    generation: 0,
    authorization: 0,
    accessToken: null,
    refreshToken: null,
    refreshFingerprint: null,
    tokenType: null,
    grantedScopes: [],
    issuedAt: null,
    expiresAt: null,
    refreshTokenExpiresAt: null,
    authorizedAt: null,
    authorizedClientId: null,
    noRefreshTokenSince: null,
    unreadableLifetime: false,
    untried: false,
    ...noPermit,
    lastAttemptId: null,
    backoffUntil: null,
    consecutiveFailures: 0,
    lastErrorCode: null,
    lastErrorDetail: null,
    ...noRefusals,
    retriedAt: null,
    inUse: false,
    goneBackFrom: null,
    versionFloor: 0,
    mac: "proof",
    nextRefreshAt: null,
    refreshDueAt: null,
    keepAliveAt: null,
    ...given,
  };
}

export const noPermit = {
  attemptId: null,
  attemptStartedAt: null,
  leaseUntil: null,
  attemptOutcome: null,
  attemptReplays: 0,
} as const;

/** Versions that former attempts may have handed out are not given again. */
export function freePermit(row: SimRow) {
  return { ...noPermit, versionFloor: highestVersion(row) + row.attemptReplays };
}

export function highestVersion({ version, versionFloor }: SimRow): number {
  return Math.max(version, versionFloor);
}

type Moment = Date | null;

/** SQL's, which pass over what is null. */
export function greatest(...times: Moment[]): Moment {
  return extreme(times, (ms) => Math.max(...ms));
}

export function least(...times: Moment[]): Moment {
  return extreme(times, (ms) => Math.min(...ms));
}

function extreme(times: readonly Moment[], choose: (ms: readonly number[]) => number): Moment {
  const known = times.flatMap((time) => (time === null ? [] : [time.getTime()]));
  return known.length === 0 ? null : new Date(choose(known));
}

/** Columns of times keep whole milliseconds. */
export function after(nowMs: number, seconds: number): Date {
  return new Date(Math.round(nowMs + seconds * 1000));
}

const noRefusals = { refusal: null, refusals: 0, refusedSince: null, probablyDeadSince: null } as const;

function refusalColumns(row: SimRow, { refusal }: RecordedFailure, now: Date) {
  if (refusal === undefined) return {};
  const isEqual = row.refusal === refusal;
  return {
    refusal,
    refusals: isEqual ? row.refusals + 1 : 1,
    refusedSince: isEqual ? row.refusedSince : now,
  };
}

export function failureColumns(row: SimRow, failure: RecordedFailure, now: Date) {
  return {
    ...refusalColumns(row, failure, now),
    consecutiveFailures: row.consecutiveFailures + (isThrottled(failure) ? 0 : 1),
    lastErrorCode: failure.code,
    lastErrorDetail: failure.detail,
  };
}

export function statusColumns(row: SimRow, status: ConnectionStatus) {
  return { status: row.status === "disabled" ? row.status : status, enabledStatus: status };
}

export function grantColumns(row: SimRow, grant: SealedGrant, generation: number) {
  return {
    generation,
    ...statusColumns(row, "connected"),
    accessToken: grant.accessToken,
    refreshToken: grant.refreshToken,
    refreshFingerprint: grant.refreshFingerprint,
    tokenType: grant.tokenType,
    grantedScopes: grant.grantedScopes ?? row.grantedScopes,
    captured: grant.captured,
    redirectUri: grant.redirectUri,
    accountCaptured: grant.accountCaptured,
    issuedAt: grant.issuedAt,
    expiresAt: grant.expiresAt,
    refreshTokenExpiresAt: grant.keepsRefreshToken ? row.refreshTokenExpiresAt : grant.refreshTokenExpiresAt,
    refreshDueAt: grant.refreshDueAt,
    keepAliveAt: grant.keepAliveAt,
    noRefreshTokenSince: grant.noRefreshTokenSince,
    unreadableLifetime: grant.unreadableLifetime,
    untried: false,
    inUse: false,
    goneBackFrom: null,
    ...noRefusals,
    consecutiveFailures: 0,
    lastErrorCode: grant.lastError?.code ?? null,
    lastErrorDetail: grant.lastError?.detail ?? null,
  };
}

const deadOnArrivalSeconds = 30;

export function freeSchedule(row: SimRow, grant: SealedGrant, nowMs: number) {
  const isOver = grant.expiresAt !== null && grant.expiresAt <= grant.issuedAt;
  return {
    ...freePermit(row),
    nextRefreshAt: grant.keepAliveAt,
    backoffUntil: isOver ? after(nowMs, deadOnArrivalSeconds) : null,
  };
}

export function attemptVersion(row: SimRow, { accessToken }: SealedGrant): number {
  return accessToken === null ? row.version : highestVersion(row) + 1 + row.attemptReplays;
}

export function nextDue(row: SimRow, earliest: Date): Moment {
  if (row.status === "pending" || row.enabledStatus === "pending") return earliest;
  const ahead = row.inUse ? row.refreshDueAt : null;
  return ahead === null && row.keepAliveAt === null ? null : greatest(least(ahead, row.keepAliveAt), earliest);
}

export function abandonedDue(row: SimRow, leaseEnd: Moment, { quietSeconds, promptly }: AbandonedRule): Moment {
  const abandoned = leaseEnd === null ? null : after(leaseEnd.getTime(), quietSeconds);
  if (promptly) return abandoned;
  return row.expiresAt === null ? null : greatest(row.expiresAt, abandoned);
}
