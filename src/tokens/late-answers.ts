import { isDeepStrictEqual } from "node:util";
import { isStorageUnavailable } from "../errors.ts";
import type { AccountRows } from "../store/account-rows.ts";
import type { SealedGrant } from "../store/row-sql.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenRows } from "../store/token-rows.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { openTokens, resealFor, sealRecord, type AnswerRecord } from "./answer-record.ts";
import { placeOf } from "./destination.ts";
import { livesBy } from "./granted.ts";
import { openedRefreshToken } from "./sealed-set.ts";
import { nextGeneration } from "../store/generation.ts";

/**
 * What became of an answer.
 * - `stored`: it is, or has been, the row's newest set.
 * - `promoted`: it came late, and is the newest set now.
 * - `candidate`: it came late; it is tried before the grant ends.
 * - `duplicate`: another connection holds its refresh token and goes on with it; nothing was stored here, and nothing may be revoked.
 * - `unwanted`: the connection is gone (`row` null), or a person has replaced its grant.
 */
export type Fate =
  | { kind: "stored" | "promoted" | "candidate" | "unwanted"; row: TokenRow | null }
  | { kind: "duplicate"; row: TokenRow; holders: readonly string[] };

type Parts = { rows: TokenRows; accounts: Pick<AccountRows, "holdGrant">; vault: TokenVault };

/** Puts an answer where it belongs, by CAS: as often as one likes, from any replica. @throws while Postgres is gone */
export async function placeAnswer(parts: Parts, record: AnswerRecord): Promise<Fate> {
  const fate = await placeByKind(parts, record);
  const isKept = fate.kind !== "unwanted" && fate.kind !== "duplicate" && record.kind !== "held";
  if (record.other !== undefined && isKept && fate.row !== null) await placeOther(parts, fate.row, record.other);
  return fate;
}

/** Beside a set that is stored: what cannot be kept is no reason to hold that up. @throws while Postgres is gone */
async function placeOther(parts: Parts, row: TokenRow, other: AnswerRecord): Promise<void> {
  try {
    await keepCandidate(parts, row, { ...other, authorization: row.authorization });
  } catch (error) {
    if (isStorageUnavailable(error)) throw error;
  }
}

async function placeByKind(parts: Parts, record: AnswerRecord): Promise<Fate> {
  switch (record.kind) {
    case "held":
      return await placeHeld(parts, record);
    case "grant":
      return await placeGrant(parts, record);
    case "further":
      return await placeFurther(parts, record);
    default:
      return await placeRefreshed(parts, record);
  }
}

/** A refresh's own token first, then what came along with it, unless a person has replaced the grant. */
async function placeRefreshed(parts: Parts, record: AnswerRecord): Promise<Fate> {
  const fate = await placeRefresh(parts, record);
  if (fate.kind === "unwanted") return fate;
  for (const further of record.further ?? []) await placeFurther(parts, further);
  return fate;
}

/**
 * A further token that came along may be older than what its row has by its own refreshes: where that still works, it waits to
 * be tried; else it takes the place.
 */
async function placeFurther(parts: Parts, record: AnswerRecord): Promise<Fate> {
  const { rows, vault } = parts;
  const row = await rows.readById(record.connectionId);
  if (row === null || row.authorization !== record.authorization) return { kind: "unwanted", row };
  if (row.lastAttemptId === record.attemptId || (await rows.wasStored(record))) return { kind: "stored", row };
  if (livesBy(vault, row, readTokens(vault, record)) === true) return { kind: "stored", row };
  if (refreshesItself(row)) {
    return (await keepCandidate(parts, row, record)) ? { kind: "candidate", row } : await placeFurther(parts, record);
  }
  const generation = nextGeneration(row);
  const sealed = resealFor(vault, record, { row, generation });
  // Told once, not with each of them.
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

/** A grant that changes nothing before a person has said so. */
async function placeHeld({ rows, accounts, vault }: Parts, record: AnswerRecord): Promise<Fate> {
  const isKept = await accounts.holdGrant({ ...record, record: sealRecord(vault, record) });
  return isKept ? { kind: "stored", row: await rows.readById(record.connectionId) } : { kind: "unwanted", row: null };
}

/** Step 8: under the permit that it was got with, else as a late answer. */
async function placeRefresh(parts: Parts, record: AnswerRecord): Promise<Fate> {
  const { generation, attemptId, grant } = record;
  const event = { generation: generation + 1, attempt: attemptId };
  const stored = await parts.rows.commitRefresh(record, grant, event);
  return stored === null ? await placeLate(parts, record) : { kind: "stored", row: stored };
}

/** A late answer of the same authorization is never dropped: it may be the only set that still lives. */
async function placeLate(parts: Parts, record: AnswerRecord): Promise<Fate> {
  const { rows, vault } = parts;
  const row = await rows.readById(record.connectionId);
  if (row === null || row.authorization > record.authorization) return { kind: "unwanted", row };
  if (row.lastAttemptId === record.attemptId || (await rows.wasStored(record))) return { kind: "stored", row };
  if (isPromotable(row, record)) {
    const generation = Math.max(row.generation, record.generation) + 1;
    const event = { type: "late_answer_stored" as const, detail: { generation, attempt: record.attemptId } };
    const given = { attemptId: record.attemptId, generation, event };
    const promoted = await rows.promoteLate(row, resealFor(vault, record, { row, generation }), given);
    return promoted === null ? await placeLate(parts, record) : { kind: "promoted", row: promoted };
  }
  return (await keepCandidate(parts, row, record)) ? { kind: "candidate", row } : await placeLate(parts, record);
}

/** False: a person has replaced the grant, or the row is gone. */
async function keepCandidate({ rows, vault }: Parts, row: TokenRow, record: AnswerRecord): Promise<boolean> {
  const { authorization } = row;
  const candidate = { ...record, authorization, baseGeneration: record.generation, record: sealRecord(vault, record) };
  return await rows.addCandidate(candidate, { generation: record.generation + 1 });
}

/** Whether an answer is the newest thing known of its grant: nothing was stored since, or what was stored has ended. */
function isPromotable(row: TokenRow, { generation, authorization, sealedFor }: AnswerRecord): boolean {
  if (row.goneBackFrom !== null) return sealedFor >= row.goneBackFrom;
  if (row.authorization < authorization) return true; // the database went back to before the grant of this answer
  const hasEnded = row.status === "needs_reauthorization" && row.lastErrorCode === "refresh_outcome_lost";
  return row.generation <= generation || hasEnded;
}

/** A person's grant takes the place of what is there, unless a person has come with a newer one since. */
async function placeGrant(parts: Parts, record: AnswerRecord): Promise<Fate> {
  const { rows, vault } = parts;
  const row = await rows.readById(record.connectionId);
  if (row === null) return { kind: "unwanted", row };
  if (row.lastAttemptId === record.attemptId || (await rows.wasStored(record))) return { kind: "stored", row };
  // Whoever began last has the last word, whichever exchange took longer.
  const isOlder = row.authorizedAt !== null && row.authorizedAt > record.grant.issuedAt;
  if (row.authorization > record.authorization && isOlder) return { kind: "unwanted", row };
  const event = { type: record.event, detail: { attempt: record.attemptId } };
  const sealed = resealFor(vault, record, { row, generation: nextGeneration(row) });
  const place = { ...row, attemptId: record.attemptId };
  const given = { event, exclusive: record.exclusive === true, clientId: record.clientId, account: record.account };
  const kept = keepRefreshToken(vault, row, { record, sealed });
  const stored = await (kept === null
    ? rows.replaceGrant(place, sealed, given)
    : rows.replaceGrant(place, kept.sealed, { ...given, keptFor: kept.account }));
  if (stored !== null) return { kind: "stored", row: stored };
  const holders = await otherHolders(rows, record);
  return holders.length > 0 ? { kind: "duplicate", row, holders } : await placeGrant(parts, record);
}

/** Connections that hold what may be held once. */
async function otherHolders(rows: TokenRows, { connectionId, exclusive, grant }: AnswerRecord): Promise<string[]> {
  const { refreshFingerprint } = grant;
  return exclusive === true && refreshFingerprint !== null
    ? await rows.holdersElsewhere(connectionId, refreshFingerprint)
    : [];
}

/**
 * A consent that brought no refresh token goes on with the one from before only where nothing speaks against it: at this provider
 * a refresh token stays good, the account is known to be the same, the client id is the one that it was given to, no host is another
 * one now, the grant has not been refused, and the person grants now all that it stands for. It counts as lacking until it has worked.
 */
function keepRefreshToken(
  vault: TokenVault,
  row: TokenRow,
  { record, sealed }: { record: AnswerRecord; sealed: SealedGrant },
): { sealed: SealedGrant; account: string } | null {
  const { account } = row;
  const isSame = account !== null && record.account?.account === account;
  const isSameClient = row.authorizedClientId !== null && record.clientId === row.authorizedClientId;
  const isLiving = row.status === "connected" && row.goneBackFrom === null;
  const covers = row.grantedScopes.every((scope) => sealed.grantedScopes?.includes(scope));
  // What came with the new consent may fill a host: a token from before is not sent to where that one says.
  const isSamePlace = isDeepStrictEqual(row.captured, sealed.captured);
  const isKept = isSame && isSameClient && isSamePlace && isLiving && covers;
  if (!record.mayKeepRefreshToken || !isKept) return null;
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
