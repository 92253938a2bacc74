import { randomUUID } from "node:crypto";
import type { RefreshNews } from "../leases/lease.ts";
import type { RefreshRules } from "../providers/definition.ts";
import type { Failure, Grant, TokenAnswer } from "../providers/grant.ts";
import { hostInputs } from "../providers/requirements.ts";
import type { PermitKey, RecordedFailure } from "../store/row-sql.ts";
import type { TokenRow } from "../store/token-row.ts";
import { UnreadableSecretError } from "../unreadable.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { backoffSeconds } from "./backoff.ts";
import { budgets } from "./budgets.ts";
import { anewPlan, firstPlan, isUselessTo } from "./refresh-token.ts";
import type { Kept } from "./keeping.ts";
import { isRefused } from "./refusal.ts";
import { orphanRule } from "./takeover.ts";
import { refreshBase, schedulerFor, sealGrant } from "./sealed-set.ts";
import { furtherGranted, otherGrant, otherRecord } from "./granted.ts";
import { openRecord, resealFor, type AnswerRecord } from "./answer-record.ts";
import { grantedFor, provenCaptures } from "./destination.ts";
import { openSendWindow, type Permit, type RefreshOutcome, type RefreshParts } from "./permit.ts";
import type { Sendable, SendPlan } from "./sending.ts";
import { bothRefused, learnFromSuccess, withOlderSecret } from "./two-secrets.ts";

/**
 * Steps 5 to 11 under a permit: send, classify, store; once more under a new permit where there is a second way.
 * Null: the time to send had passed, nothing was sent, the permit is given back, and `mayStartOver` lets it be asked for again.
 */
export async function attempt(
  parts: RefreshParts,
  first: Permit,
  { sendable, mayStartOver }: { sendable: Sendable; mayStartOver: boolean },
): Promise<RefreshOutcome | null> {
  const { rows, clock, observer } = parts;
  let permit = first;
  let plan = first.isRetry ? retryPlan : planFor(parts, first, sendable);
  while (plan !== null) {
    const current = underPermit(sendable, permit);
    const startedMs = clock.monotonicMs();
    const answer = together(await send(parts, permit, { sendable: current, plan }), plan);
    const passedSeconds = () => (clock.monotonicMs() - startedMs) / 1000;
    if (answer.kind === "granted") {
      const outcome = await keep(parts, permit, { sendable: current, grant: answer.grant });
      observer.succeeded(current, { replay: permit.isReplay, seconds: passedSeconds() });
      // The answer is safe by now; that an old secret is forgotten a refresh later does no harm.
      await learnFromSuccess(parts, sendable, plan);
      return outcome;
    }
    const refused: Refused = { failure: answer.failure, plan, sendable: current };
    if (answer.failure.code === "limit_reached" && !permit.isRetry) parts.secondPlans.keep(current, plan);
    const next = await anotherWay(parts, permit, refused);
    if (next === null) {
      observer.failed(current, { ...refused, replay: permit.isReplay, seconds: passedSeconds() });
      const startsOver = mayStartOver && refused.failure.code === "send_window_passed" && !permit.isReplay;
      return startsOver ? await startOver(parts, permit) : await giveUp(parts, permit, refused);
    }
    ({ permit, plan } = next);
  }
  // The row lost its last way to a token between the caller's look and the permit.
  await rows.dropPermit(permit.key);
  return { kind: "failed", row: await rows.readById(permit.key.connectionId) };
}

/**
 * The row as the permit gave it, but for the inputs: a request goes where they led when they were checked, and what it brings is
 * sealed for there, whatever somebody writes into a row meanwhile.
 */
function underPermit(sendable: Sendable, { row }: Permit): Sendable {
  return { ...sendable, row: { ...row, inputsInForce: sendable.row.inputsInForce } };
}

/** Of a grant that has ended nothing else is tried, least of all a login. */
const retryPlan: SendPlan = { grant: "refresh_token", secretIndex: 0 };

function together(answer: TokenAnswer, plan: SendPlan): TokenAnswer {
  return answer.kind === "granted" ? answer : { kind: "failed", failure: bothRefused(answer.failure, plan) };
}

/** Step 6, if the limits let it: nobody is told of what they hold back. */
async function send(
  parts: RefreshParts,
  permit: Permit,
  { sendable, plan }: { sendable: Sendable; plan: SendPlan },
): Promise<TokenAnswer> {
  const sendOnce = async () => {
    announce(parts, permit, "started");
    return await parts.sender.send(sendable, plan, { mayStillSend: permit.mayStillSend });
  };
  const isProven = permit.row.status === "connected" && !permit.row.untried;
  return await parts.limits.keep(sendable, sendOnce, { cannotWait: false, isProven });
}

/** Where the last attempt's first way was refused, and its second held back by the limits, the next one begins with that. */
function planFor({ secondPlans }: RefreshParts, { row, isReplay }: Permit, sendable: Sendable): SendPlan | null {
  const first = firstPlan(row, sendable.definition);
  const second = secondPlans.take({ ...sendable, row });
  // What is replayed is the grant whose outcome nobody knows.
  return second === null || (isReplay && second.grant !== first?.grant) ? first : second;
}

/** Steps 8 and 9. Between the answer and its first durable copy nothing runs that can throw, log or wait. */
async function keep(
  parts: RefreshParts,
  permit: Permit,
  { sendable, grant }: { sendable: Sendable; grant: Grant },
): Promise<RefreshOutcome> {
  const { vault, random, keeper, clock } = parts;
  const { key } = permit;
  const { row } = sendable;
  const answeredMs = clock.monotonicMs();
  const rules = sendable.definition.refresh;
  const hosts = hostInputs(sendable.definition);
  const isUseless = isUselessTo(sendable.definition, row.grant);
  const base = refreshBase(vault, row, rules);
  const given = { sentAt: countedFrom(permit, rules), scheduler: schedulerFor(rules, random), hosts, isUseless };
  const seal = (one: Grant) => sealGrant(vault, base, { grant: one, ...given });
  const record: AnswerRecord = {
    kind: "refresh",
    ...key,
    authorization: row.authorization,
    event: "refreshed",
    sealedFor: key.generation + 1,
    destination: grantedFor(row, hosts),
    grant: seal(grant),
    ...(grant.extras && { further: furtherRecords(parts, sendable, grant) }),
  };
  const other = otherGrant(grant);
  if (other !== null) record.other = otherRecord(record, seal(other));
  const kept = await keeper.keep({ record, sendable, grant, answeredMs });
  const kind = kept.row !== null && kept.row.generation > key.generation ? "moved" : "failed";
  announce(parts, permit, kind === "moved" ? "stored" : "failed");
  // failpoint: announced
  void followUpStored(parts, sendable, kept);
  return { kind, row: kept.row };
}

/** What is found out about a set is noted in its row: one that is spooled is followed up when Postgres has it. Never rejects. */
async function followUpStored(parts: RefreshParts, sendable: Sendable, kept: Kept): Promise<void> {
  const { kind, row } = (await kept.stored) ?? kept;
  if (kind === "stored" && row !== null) await parts.followUp(sendable, row);
}

/**
 * When the life of what was granted begins. Where a provider answers a replay with the set that the first send was given, it is
 * as old as that; elsewhere its success proves that the first was not processed.
 */
function countedFrom({ row, isReplay }: Permit, { reuse }: RefreshRules): Date {
  const isFirstAnswer = isReplay && (reuse === "grace" || reuse === "until_successor_used");
  return isFirstAnswer ? (row.attemptStartedAt ?? row.now) : row.now;
}

/** What came along, for rows of its own, to be stored with what was asked for. */
function furtherRecords(parts: RefreshParts, sendable: Sendable, grant: Grant): AnswerRecord[] {
  const { captured } = provenCaptures(parts.vault, sendable.row);
  const { redirectUri } = sendable.row;
  return furtherGranted(parts, sendable, { grant, captured, redirectUri }).map(({ record }) =>
    Object.assign(record, { kind: "further" as const }),
  );
}

/** The newest late answer of this grant takes the refused token's place, with a permit of its own. Null: there is none. */
async function tryCandidate(
  parts: RefreshParts,
  permit: Permit,
  { row, definition }: Sendable,
): Promise<Permit | null> {
  const { rows, clock, marks } = parts;
  const { key } = permit;
  const candidate = await openNewest(parts, row, key.generation + 1);
  if (candidate === null) return null;
  const mayStillSend = openSendWindow(clock);
  const attemptId = randomUUID();
  const given = { candidateId: candidate.attemptId, attemptId, leaseSeconds: budgets.leaseSeconds };
  const tried = await rows.tryCandidate(key, candidate.grant, {
    ...given,
    orphan: orphanRule(row, definition.refresh),
  });
  if (tried === null) return null;
  marks.raise(tried.id, tried);
  const nextKey = { ...key, generation: tried.generation, attemptId };
  return { ...permit, row: tried, key: nextKey, isReplay: false, mayStillSend };
}

/**
 * The newest candidate that opens, sealed for the generation that it becomes. @throws UnreadableSecretError for one that another
 * replica can open: the permit is left to it, since the grant may live on by that candidate
 */
async function openNewest(parts: RefreshParts, row: TokenRow, generation: number) {
  const { rows, vault, keys, alarms } = parts;
  const passedOver: string[] = [];
  for (;;) {
    const newest = await rows.newestCandidate(row.id, row.authorization, passedOver);
    if (newest === null) return null;
    const { attemptId, baseGeneration, record } = newest;
    try {
      const opened = openRecord(vault, record, { connectionId: row.id, generation: baseGeneration });
      // Whoever changes the column beside a record does not change what stands in it.
      if (opened.authorization === row.authorization) {
        return { attemptId, grant: resealFor(vault, opened, { row, generation }) };
      }
      passedOver.push(attemptId);
    } catch (error) {
      if (!(error instanceof UnreadableSecretError)) throw error;
      alarms.unreadable(error.of(row.name));
      if (await keys.isSilent(error)) throw error;
      passedOver.push(attemptId);
    }
  }
}

/** Step 5, "otherwise". */
async function startOver({ rows }: RefreshParts, { key }: Permit): Promise<null> {
  await rows.dropPermit(key);
  return null;
}

type Refused = { failure: Failure; plan: SendPlan; sendable: Sendable };

async function giveUp(parts: RefreshParts, permit: Permit, refused: Refused): Promise<RefreshOutcome> {
  const row = (await settle(parts, permit, refused)) ?? (await parts.rows.readById(permit.key.connectionId));
  announce(parts, permit, "failed");
  const kind = row !== null && row.generation > permit.key.generation ? "moved" : "failed";
  return { kind, row, failure: refused.failure };
}

type Way = { permit: Permit; plan: SendPlan | null };

/** What is left to be tried after a refusal, under a permit of its own. Null: nothing. */
async function anotherWay(parts: RefreshParts, permit: Permit, refused: Refused): Promise<Way | null> {
  const { failure, plan, sendable } = refused;
  const second = secondPlan(failure, plan, { sendable, isRetry: permit.isRetry });
  const swapped = second === null ? null : await swap(parts, permit, second.grant === plan.grant);
  if (swapped !== null) return { permit: swapped, plan: second };
  const candidate = isFinal(failure, plan) && !permit.isRetry ? await tryCandidate(parts, permit, sendable) : null;
  return candidate === null ? null : { permit: candidate, plan: firstPlan(candidate.row, sendable.definition) };
}

/**
 * The second way, if there is one: the secret before the newest, or, when the refresh token has died or does not open, asking anew
 * where that needs no person. A further token that is exchanged has no refresh token to begin with.
 */
function secondPlan(
  failure: Failure,
  plan: SendPlan,
  { sendable, isRetry }: { sendable: Sendable; isRetry: boolean },
): SendPlan | null {
  const older = withOlderSecret(failure, plan, sendable);
  if (older !== null) return older;
  const isOver = failure.class === "refused_for_good" || failure.code === "unreadable_secret";
  return isOver && plan.grant === "refresh_token" && !isRetry ? anewPlan(sendable.row) : null;
}

/**
 * One permit, one send. Null: it is not ours any more. A refused secret says nothing about the token, so that a replay of
 * it (`isSameGrant`) is still one; another grant replays nothing.
 */
async function swap({ rows, clock }: RefreshParts, permit: Permit, isSameGrant: boolean): Promise<Permit | null> {
  const mayStillSend = openSendWindow(clock);
  const key = { ...permit.key, attemptId: randomUUID() };
  const row = await rows.swapPermit(permit.key, { attemptId: key.attemptId, leaseSeconds: budgets.leaseSeconds });
  return row === null
    ? null
    : {
        row,
        key,
        isRetry: permit.isRetry,
        isReplay: permit.isReplay && isSameGrant,
        followsLoss: permit.followsLoss && isSameGrant,
        mayStillSend,
      };
}

/**
 * Step 7: leaves the row in the state that the failure asks for. Null: it has moved on.
 *
 * | | first send | replay of an unknown outcome |
 * |---|---|---|
 * | final | grant ended | grant ended, `refresh_outcome_lost` |
 * | not sent, refused for now, client rejected | permit back, back-off | stays unknown; lease over, back-off |
 * | unknown | permit stays, back-off | permit stays, back-off |
 */
async function settle(parts: RefreshParts, permit: Permit, refused: Refused): Promise<TokenRow | null> {
  if (permit.isRetry) return await settleRetry(parts, permit, refused);
  const row = await settleRefresh(parts, permit, refused);
  return row === null || refused.failure.isUnexplained !== true ? row : await judgeRefusals(parts, row);
}

/** The same of a grant that has ended: it has ended as before, whatever was answered, or nobody can tell yet. */
async function settleRetry(
  { rows, vault }: RefreshParts,
  { key }: Permit,
  { failure }: Refused,
): Promise<TokenRow | null> {
  if (failure.class !== "unknown") return await rows.endRetry(key, recordOf(failure));
  return await rows.leaveRetryUnknown(key, recordOf(failure), sealedAnswer(vault, key, failure));
}

/** The refusal that has just been counted may be one too many. */
async function judgeRefusals({ rows, observer }: RefreshParts, row: TokenRow): Promise<TokenRow> {
  if (row.probablyDeadSince !== null || row.refusals < budgets.refusalsBeforeDead) return row;
  const least = { equal: budgets.refusalsBeforeDead, seconds: budgets.refusedBeforeDeadSeconds };
  const judged = await rows.judgeRefusals({ connectionId: row.id, generation: row.generation }, least);
  if (judged !== null) observer.probablyDead(judged);
  return judged ?? row;
}

function recordOf({ code, detail, status, oauthError, isUnexplained }: Failure): RecordedFailure {
  const said = { code, detail, ...(status === undefined ? {} : { status }) };
  return isUnexplained ? { ...said, refusal: [status, oauthError].filter(Boolean).join(" ") } : said;
}

function sealedAnswer(vault: TokenVault, { connectionId, generation }: PermitKey, { rawAnswer }: Failure) {
  return rawAnswer === undefined ? null : vault.sealAnswer(rawAnswer, { connectionId, generation });
}

async function settleRefresh(parts: RefreshParts, permit: Permit, refused: Refused): Promise<TokenRow | null> {
  const { rows, vault, random, observer } = parts;
  const { failure, plan, sendable } = refused;
  const { row, key, isReplay, followsLoss } = permit;
  const recorded = recordOf(failure);
  const waitSeconds = Math.max(failure.retryAfterSeconds ?? 0, failure.closedSeconds ?? 0);
  const backoff = backoffSeconds(row.consecutiveFailures, waitSeconds, random);
  if (isFinal(failure, plan)) {
    const final = followsLoss ? { ...recorded, code: "refresh_outcome_lost" } : recorded;
    const { owner } = sendable;
    // Those that were sent: a person may have given new ones before there was a permit.
    const { credentialsRevision } = owner.id === row.id ? owner : row;
    const ended = await rows.endGrant({ ...key, credentialsRevision }, final);
    if (ended !== null && followsLoss) observer.lost(ended);
    return ended ?? (await rows.returnPermit(key, recorded, 0)); // new credentials came meanwhile: they may be tried at once
  }
  if (failure.class !== "unknown" && !isReplay) return await rows.returnPermit(key, recorded, backoff);
  const answer = sealedAnswer(vault, key, failure);
  const endLease = failure.class !== "unknown";
  const orphan = orphanRule(row, sendable.definition.refresh);
  return await rows.leaveUnknown(key, recorded, { backoffSeconds: backoff, answer, endLease, orphan });
}

/** A refused login is never repeated by itself, whatever it was refused for: accounts get locked. */
function isFinal(failure: Failure, { grant }: SendPlan): boolean {
  if (failure.class === "refused_for_good") return true;
  return grant === "password" && failure.class !== "client_rejected" && isRefused(failure);
}

function announce({ leases }: RefreshParts, { key }: Permit, outcome: RefreshNews["outcome"]): void {
  const { connectionId: connection, generation, attemptId } = key;
  leases.announce({ connection, generation, attempt: attemptId, outcome });
}
