import { isDeepStrictEqual } from "node:util";
import { type Clock, withDeadline } from "../clock.ts";
import type { Leases } from "../coordination/leases.ts";
import type { Marks } from "../coordination/marks.ts";
import { isStorageUnavailable } from "../errors.ts";
import type { Grant } from "../providers/oauth/token-answer.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { SealedGrant } from "../store/row-sql.ts";
import { nextGeneration, type TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { refreshTimes, retentionTimes } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { RefreshObserver } from "./core.ts";
import type { Spools } from "./recovery.ts";
import type { RequestContext, Sender } from "./request.ts";
import {
  type AnswerRecord,
  usesToken,
  openedRefreshToken,
  openTokens,
  placeOf,
  resealFor,
  sealRecord,
} from "./seal.ts";

/** A token endpoint's grant, as it came. */
export type Answer = {
  record: AnswerRecord;
  context: RequestContext;
  grant: Grant;
  /** When it came, by this process's monotonic clock. */
  answeredMs: number;
};

/** `spooled`: durable, but not in Postgres yet; the row is as it will be. */
export type Persisted = {
  kind: Placement["kind"] | "spooled";
  row: TokenRow | null;
  /** For a duplicate: the connections that have its refresh token. */
  holders?: readonly string[];
  /** For a spooled one: its placement, once Postgres has it. Never rejects. */
  stored?: Promise<Placement>;
};

export type AnswerStore = {
  /** Steps 8 and 9: resolves with the first durable copy, and goes on until the row has the answer. Never rejects. */
  persist(answer: Answer): Promise<Persisted>;
  /** The answers that the database does not have yet. */
  unstored(): AnswerRecord[];
  /** Whether this process has an unstored answer to this generation. */
  hasUnstored(connectionId: string, generation: number): boolean;
  /** For the end of the process: spools every unstored answer at once. */
  spoolAll(): Promise<void>;
  /** Resolves when there is no unstored answer. */
  idle(): Promise<void>;
};

export type AnswerStoreParts = {
  rows: TokenStatements;
  accounts: Pick<AccountRows, "addUnconfirmed">;
  vault: TokenVault;
  leases: Pick<Leases, "announce">;
  spools: Spools;
  marks: Pick<Marks, "raise">;
  sender: Pick<Sender, "revokeGrant">;
  clock: Clock;
  random: () => number;
  observer: RefreshObserver;
  /** Gives the cache a row that was stored after its caller had left. */
  learn: (row: TokenRow) => void;
};

/** `concluded`: the row has the answer, and all spooled copies are removed. */
type UnstoredAnswer = {
  answer: Answer;
  spooling: Promise<boolean> | null;
  isStored: boolean;
  concluded: Promise<void>;
};

/** Persists every answer: in memory, in Postgres, and after 200 ms without Postgres in the spools. */
export function createAnswerStore(parts: AnswerStoreParts): AnswerStore {
  const { spools, marks, sender, clock, random, observer } = parts;
  const unstored = new Set<UnstoredAnswer>();

  /** Tries until Postgres takes the answer, however long that is. */
  const placePatiently = async (record: AnswerRecord, { row }: RequestContext): Promise<Placement> => {
    let delayMs = refreshTimes.commitRetryFirstMs;
    for (;;) {
      try {
        return await placeAnswer(parts, record);
      } catch (error) {
        observer.commitDelayed(row, error);
        await clock.sleep(delayMs * (0.5 + random()));
        delayMs = Math.min(delayMs * 2, refreshTimes.commitRetryMaxMs);
      }
    }
  };

  const spool = async (one: UnstoredAnswer): Promise<boolean> => {
    const { record } = one.answer;
    const put = async () => await spools.put({ ...record, record: sealRecord(parts.vault, record) });
    // If it was spooled before, it is spooled again: a full place may have room now, and a copy may have been lost.
    one.spooling = one.spooling === null ? put() : one.spooling.then(async (safe) => (await put()) || safe);
    const isSafe = await one.spooling;
    // failpoint: spooled
    return isSafe;
  };

  /** Asks all places again until one takes the answer, or Postgres has it. */
  const spoolPatiently = async (one: UnstoredAnswer): Promise<boolean> => {
    while (!one.isStored) {
      if (await spool(one)) return true;
      await clock.sleep(refreshTimes.commitRetryMaxMs);
    }
    return false;
  };

  /** After the row has the answer: removes all spooled copies. */
  const conclude = async (one: UnstoredAnswer, placement: Placement): Promise<void> => {
    // failpoint: committed
    const { record, context, grant } = one.answer;
    if (placement.row !== null) marks.raise(placement.row.id, placement.row);
    if (placement.kind !== "stored") observer.cameLate(context.row, placement.kind);
    if (one.spooling !== null) {
      await one.spooling;
      await spools.remove(record);
      if (placement.row !== null) parts.learn(placement.row);
    }
    // A person has just connected, so every replica must know of it.
    if (one.spooling !== null || record.kind === "grant") announceStored(parts, record);
    const isUnwanted = placement.kind === "unwanted" && isRevocable(parts.vault, context, { placement, tokens: grant });
    if (isUnwanted) await sender.revokeGrant(context, grant);
  };

  return {
    async persist(answer) {
      // failpoint: answered
      const { record, context, answeredMs } = answer;
      const storing = placePatiently(record, context);
      const one: UnstoredAnswer = { answer, spooling: null, isStored: false, concluded: Promise.resolve() };
      unstored.add(one);
      one.concluded = storing
        .then((placement) => {
          one.isStored = true; // from here on nothing is spooled, since nobody would remove it
          return conclude(one, placement);
        })
        .catch((error: unknown) => observer.commitDelayed(context.row, error))
        .finally(() => void unstored.delete(one));
      const soon = await withDeadline(storing, refreshTimes.spoolAfterMs, clock);
      const asPersisted = async (safe: boolean): Promise<Persisted> =>
        safe ? { ...asSpooled(answer), stored: storing } : await storing;
      const spooled = soon === null ? spoolPatiently(one).then(asPersisted) : storing;
      const persisted: Persisted = soon ?? (await Promise.race([storing, spooled]));
      observer.durable(context.row, { seconds: (clock.monotonicMs() - answeredMs) / 1000 });
      // failpoint: durable
      return persisted;
    },
    hasUnstored: (connectionId, generation) =>
      [...unstored].some(
        ({ answer: { record } }) => record.connectionId === connectionId && record.generation === generation,
      ),
    unstored: () => [...unstored].map(({ answer }) => answer.record),
    spoolAll: async () => void (await Promise.all([...unstored].map(spool))),
    async idle() {
      while (unstored.size > 0) await Promise.allSettled([...unstored].map(({ concluded }) => concluded));
    },
  };
}

/** Whether an unwanted grant may be revoked: only if that cannot end the grant that replaced it. */
export function isRevocable(
  vault: TokenVault,
  { definition }: Pick<RequestContext, "definition">,
  { placement, tokens }: { placement: Placement; tokens: Pick<Grant, "accessToken" | "refreshToken"> },
): boolean {
  if (placement.row === null) return true;
  return definition.revocation?.kills === "token" && usesToken(vault, placement.row, tokens) === false;
}

function announceStored({ leases }: Pick<AnswerStoreParts, "leases">, record: AnswerRecord): void {
  const { connectionId: connection, generation, attemptId: attempt } = record;
  leases.announce({ connection, generation, attempt, outcome: "stored" });
}

function asSpooled({ record, context: { row } }: Answer): Persisted {
  return { kind: "spooled", row: record.kind === "held" ? row : asStored(row, record) };
}

/**
 * The row as the statement that stores this answer will leave it (`commitRefresh`, `replaceGrant`): its version is this attempt's own,
 * whoever else may store something meanwhile. A test holds both against each other.
 */
export function asStored(row: TokenRow, record: AnswerRecord): TokenRow {
  const { grant } = record;
  const isGrant = record.kind === "grant";
  const step = isGrant && row.version > 0 ? 2 : 1;
  const versionFloor = Math.max(row.version, row.versionFloor) + row.attemptReplays;
  const { refreshDueAt: _due, refreshFingerprint: _fingerprint, ...columns } = grant;
  const { keepsRefreshToken, grantedScopes, lastError, ...tokens } = columns;
  const isOver = grant.expiresAt !== null && grant.expiresAt <= grant.issuedAt;
  const backoffUntil = isOver ? new Date(grant.issuedAt.getTime() + refreshTimes.deadOnArrivalSeconds * 1000) : null;
  return {
    ...row,
    ...tokens,
    ...(isGrant && granted(row, record)),
    grantedScopes: grantedScopes ?? row.grantedScopes,
    refreshTokenExpiresAt: keepsRefreshToken ? row.refreshTokenExpiresAt : grant.refreshTokenExpiresAt,
    generation: record.sealedFor,
    version: isGrant || grant.accessToken !== null ? versionFloor + step : row.version,
    versionFloor,
    untried: false,
    status: row.status === "disabled" ? "disabled" : "connected",
    attemptId: null,
    attemptStartedAt: null,
    leaseUntil: null,
    attemptOutcome: null,
    attemptReplays: 0,
    lastAttemptId: record.attemptId,
    backoffUntil: isGrant ? null : backoffUntil,
    consecutiveFailures: 0,
    refusals: 0,
    probablyDeadSince: null,
    lastErrorCode: lastError?.code ?? null,
    lastErrorDetail: lastError?.detail ?? null,
    inUse: false,
    goneBackFrom: null,
  };
}

/** The other columns that a person's grant changes. */
function granted(row: TokenRow, { grant, clientId = null, account }: AnswerRecord): Partial<TokenRow> {
  const isNewest = row.authorizedAt === null || row.authorizedAt < grant.issuedAt;
  return {
    authorization: row.authorization + 1,
    authorizedAt: isNewest ? grant.issuedAt : row.authorizedAt,
    authorizedClientId: clientId,
    ...(account && { account: account.account, accountLabel: account.label, lookedUp: null }),
  };
}

/**
 * The placement of an answer (docs/refresh-protocol.md, "Where an answer goes").
 * - `stored`: it is, or was, the row's newest set.
 * - `promoted`: it came late, and is the newest set now.
 * - `candidate`: it came late, and is tried before the grant ends.
 * - `duplicate`: another connection has its refresh token and uses it; nothing was stored here, and nothing may be revoked.
 * - `unwanted`: the connection is gone (`row` null), or a person has replaced its grant.
 */
export type Placement =
  | { kind: "stored" | "promoted" | "candidate" | "unwanted"; row: TokenRow | null }
  | { kind: "duplicate"; row: TokenRow; holders: readonly string[] };

type PlacementParts = { rows: TokenStatements; accounts: Pick<AccountRows, "addUnconfirmed">; vault: TokenVault };

/** Places an answer by compare-and-swap. Any replica may do it, any number of times. @throws while Postgres is away */
export async function placeAnswer(parts: PlacementParts, record: AnswerRecord): Promise<Placement> {
  const placement = await placeByKind(parts, record);
  const isPlaced = placement.kind !== "unwanted" && placement.kind !== "duplicate" && record.kind !== "held";
  if (record.other !== undefined && isPlaced && placement.row !== null) {
    await placeOther(parts, placement.row, record.other);
  }
  return placement;
}

/** Stores the second refresh token of an answer as a candidate. If that fails, the first one still counts. @throws while Postgres is away */
async function placeOther(parts: PlacementParts, row: TokenRow, other: AnswerRecord): Promise<void> {
  try {
    await storeCandidate(parts, row, { ...other, authorization: row.authorization });
  } catch (error) {
    if (isStorageUnavailable(error)) throw error;
  }
}

async function placeByKind(parts: PlacementParts, record: AnswerRecord): Promise<Placement> {
  switch (record.kind) {
    case "held":
      return await placeUnconfirmed(parts, record);
    case "grant":
      return await placeGrant(parts, record);
    case "further":
      return await placeFurther(parts, record);
    default:
      return await placeRefreshed(parts, record);
  }
}

/** Places the refreshed set first, then further tokens that came with it, unless a person has replaced the grant. */
async function placeRefreshed(parts: PlacementParts, record: AnswerRecord): Promise<Placement> {
  const placement = await placeRefresh(parts, record);
  if (placement.kind === "unwanted") return placement;
  for (const further of record.further ?? []) await placeFurther(parts, further);
  return placement;
}

/**
 * A further token that came with a refresh may be older than the one that its row has by its own refreshes. If the row refreshes itself, it
 * becomes a candidate; otherwise it replaces the row's set.
 */
async function placeFurther(parts: PlacementParts, record: AnswerRecord): Promise<Placement> {
  const { rows, vault } = parts;
  const { row, wasStored } = await rows.readForAnswer(record);
  if (row === null || row.authorization !== record.authorization) return { kind: "unwanted", row };
  if (wasStored) return { kind: "stored", row };
  if (usesToken(vault, row, readTokens(vault, record)) === true) return { kind: "stored", row };
  if (refreshesItself(row) || isTooOld(row, record)) {
    return (await storeCandidate(parts, row, record)) ? { kind: "candidate", row } : await placeFurther(parts, record);
  }
  const generation = nextGeneration(row);
  const sealed = resealFor(vault, record, { row, generation });
  // Noted once, and not for each of them.
  const since = sealed.noRefreshTokenSince && (row.noRefreshTokenSince ?? sealed.noRefreshTokenSince);
  const event = { type: "came_along" as const, detail: { generation, attempt: record.attemptId } };
  const given = { attemptId: record.attemptId, generation, event };
  const stored = await rows.promoteLate(row, { ...sealed, noRefreshTokenSince: since }, given);
  return stored === null ? await placeFurther(parts, record) : { kind: "stored", row: stored };
}

function refreshesItself(row: TokenRow): boolean {
  return row.status !== "needs_reauthorization" && row.generation > 0 && row.refreshToken !== null;
}

function readTokens(vault: TokenVault, record: AnswerRecord) {
  const { accessToken, refreshToken } = openTokens(vault, record);
  return { ...(accessToken !== null && { accessToken }), ...(refreshToken !== null && { refreshToken }) };
}

/** Stores an unconfirmed grant, which changes nothing before a person confirms it. */
async function placeUnconfirmed({ rows, accounts, vault }: PlacementParts, record: AnswerRecord): Promise<Placement> {
  const isAdded = await accounts.addUnconfirmed({ ...record, record: sealRecord(vault, record) });
  return isAdded ? { kind: "stored", row: await rows.readById(record.connectionId) } : { kind: "unwanted", row: null };
}

/** Step 8: stores the answer under its permit, else places it as a late answer. */
async function placeRefresh(parts: PlacementParts, record: AnswerRecord): Promise<Placement> {
  const { generation, attemptId, grant } = record;
  const event = { generation: generation + 1, attempt: attemptId };
  const stored = await parts.rows.commitRefresh(record, grant, event);
  return stored === null ? await placeLate(parts, record) : { kind: "stored", row: stored };
}

/** A late answer of the same authorization is never dropped: it may be the only set that still works. */
async function placeLate(parts: PlacementParts, record: AnswerRecord): Promise<Placement> {
  const { rows, vault } = parts;
  const { row, wasStored } = await rows.readForAnswer(record);
  if (row === null || row.authorization > record.authorization) return { kind: "unwanted", row };
  if (wasStored) return { kind: "stored", row };
  if (!isTooOld(row, record) && isPromotable(row, record)) {
    const generation = Math.max(row.generation, record.generation) + 1;
    const event = { type: "late_answer_stored" as const, detail: { generation, attempt: record.attemptId } };
    const given = { attemptId: record.attemptId, generation, event };
    const promoted = await rows.promoteLate(row, resealFor(vault, record, { row, generation }), given);
    return promoted === null ? await placeLate(parts, record) : { kind: "promoted", row: promoted };
  }
  return (await storeCandidate(parts, row, record)) ? { kind: "candidate", row } : await placeLate(parts, record);
}

/** False: a person has replaced the grant, or the row is gone. */
async function storeCandidate({ rows, vault }: PlacementParts, row: TokenRow, record: AnswerRecord): Promise<boolean> {
  const { authorization } = row;
  const candidate = { ...record, authorization, baseGeneration: record.generation, record: sealRecord(vault, record) };
  return await rows.addCandidate(candidate, { generation: record.generation + 1 });
}

/** Whether an answer may have been stored so long ago that nobody knows of it any more. */
function isTooOld({ now }: TokenRow, { grant }: AnswerRecord): boolean {
  return now.getTime() - grant.issuedAt.getTime() > retentionTimes.storedAnswerDays * 24 * 3600 * 1000;
}

/** Whether an answer is the newest set of its grant: nothing was stored since, or what was stored has ended. */
function isPromotable(row: TokenRow, { generation, authorization, sealedFor }: AnswerRecord): boolean {
  if (row.goneBackFrom !== null) return sealedFor >= row.goneBackFrom;
  if (row.authorization < authorization) return true; // the database was restored from before the grant of this answer
  const hasEnded = row.status === "needs_reauthorization" && row.lastErrorCode === "refresh_outcome_lost";
  return row.generation <= generation || hasEnded;
}

/** A person's grant replaces what is there, unless a person has brought a newer one since. */
async function placeGrant(parts: PlacementParts, record: AnswerRecord): Promise<Placement> {
  const { rows, vault } = parts;
  const { row, wasStored } = await rows.readForAnswer(record);
  if (row === null) return { kind: "unwanted", row };
  if (wasStored) return { kind: "stored", row };
  if (isTooOld(row, record)) {
    return (await storeCandidate(parts, row, record)) ? { kind: "candidate", row } : { kind: "unwanted", row };
  }
  // The consent that began last counts, whichever exchange took longer.
  const isOlder = row.authorizedAt !== null && row.authorizedAt > record.grant.issuedAt;
  if (row.authorization > record.authorization && isOlder) return { kind: "unwanted", row };
  const event = { type: record.event, detail: { attempt: record.attemptId } };
  const sealed = resealFor(vault, record, { row, generation: nextGeneration(row) });
  const place = { ...row, attemptId: record.attemptId };
  const given = { event, exclusive: record.exclusive === true, clientId: record.clientId, account: record.account };
  const reused = withOldRefreshToken(vault, row, { record, sealed });
  const stored = await (reused === null
    ? rows.replaceGrant(place, sealed, given)
    : rows.replaceGrant(place, reused.sealed, { ...given, oldTokenOf: reused.account }));
  if (stored !== null) return { kind: "stored", row: stored };
  const holders = await otherHolders(rows, record);
  return holders.length > 0 ? { kind: "duplicate", row, holders } : await placeGrant(parts, record);
}

/** The connections that have a refresh token which only one may have. */
async function otherHolders(
  rows: TokenStatements,
  { connectionId, exclusive, grant }: AnswerRecord,
): Promise<string[]> {
  const { refreshFingerprint } = grant;
  return exclusive === true && refreshFingerprint !== null
    ? await rows.holdersElsewhere(connectionId, refreshFingerprint)
    : [];
}

/**
 * The set with the refresh token from before; null: that must not be used. A consent that brought no refresh token goes on with the one from
 * before only if all of this is true: refresh tokens stay valid at this
 * provider, the account is known to be the same, the client id is the one that the token was given to, no host has changed, the grant has not
 * been refused, and the new scopes include all of the old ones. The refresh token counts as missing until it has
 * worked.
 */
function withOldRefreshToken(
  vault: TokenVault,
  row: TokenRow,
  { record, sealed }: { record: AnswerRecord; sealed: SealedGrant },
): { sealed: SealedGrant; account: string } | null {
  const { account } = row;
  const isSame = account !== null && record.account?.account === account;
  const isSameClient = row.authorizedClientId !== null && record.clientId === row.authorizedClientId;
  const isLiving = row.status === "connected" && row.goneBackFrom === null;
  const covers = row.grantedScopes.every((scope) => sealed.grantedScopes?.includes(scope));
  // A value captured by the new consent may fill a host. The old token must not be sent there.
  const isSamePlace = isDeepStrictEqual(row.captured, sealed.captured);
  const mayBeReused = isSame && isSameClient && isSamePlace && isLiving && covers;
  if (!record.mayKeepRefreshToken || !mayBeReused) return null;
  const refreshToken = openedRefreshToken(vault, row);
  if (refreshToken === null) return null;
  const { captured, accountCaptured } = sealed;
  const to = placeOf({ ...row, captured, accountCaptured, generation: nextGeneration(row) });
  const refreshFingerprint = vault.fingerprint(refreshToken, row.clientRef ?? row.provider);
  const own = { accessToken: null, refreshToken: row.refreshToken };
  const resealed = { refreshToken: vault.resealTokens(own, placeOf(row), to).refreshToken };
  const stays = { keepsRefreshToken: true, keepAliveAt: row.keepAliveAt, refreshFingerprint };
  return { sealed: { ...sealed, ...resealed, ...stays }, account };
}
