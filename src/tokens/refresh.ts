import { randomUUID } from "node:crypto";
import type { Clock } from "../clock.ts";
import { createGate, type Gate, inTurn } from "../concurrency.ts";
import type { Leases, RefreshNews } from "../coordination/leases.ts";
import type { Mark, Marks } from "../coordination/marks.ts";
import { BrokerError, DatabaseBusyError, UnreadableSecretError } from "../errors.ts";
import { rulesOfGrant } from "../grant-types.ts";
import type { RefreshRules } from "../providers/format/definition.ts";
import type { Failure, Grant, TokenAnswer } from "../providers/oauth/token-answer.ts";
import type { Clients } from "../store/clients.ts";
import type { DatabaseHealth } from "../store/database.ts";
import type { PermitKey, RecordedFailure } from "../store/row-sql.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { refreshTimes } from "../time.ts";
import type { KeyList } from "../vault/keyring.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { Accounts } from "./accounts.ts";
import type { Alarms, Lifecycle, RefreshObserver } from "./core.ts";
import type { RequestLimiter } from "./limits.ts";
import type { AnswerStore, Persisted } from "./persist.ts";
import type { Recovery } from "./recovery.ts";
import {
  bothRefused,
  isRefused,
  eraseOrReportPreviousSecret,
  type PlannedContext,
  type RequestContext,
  type Sender,
  type SendPlan,
  withPreviousSecret,
} from "./request.ts";
import {
  anewPlan,
  backoffSeconds,
  firstPlan,
  rowForbidsRefresh,
  mayTakeOver,
  mustWaitForSpools,
  type Need,
  abandonedRule,
  type Recoverer,
  refreshableStatuses,
  refusalsBeforeDead,
  takeoverOf,
} from "./row-rules.ts";
import { openRecord, recordOfRefresh, resealFor } from "./seal.ts";
import type { Waiting } from "./waiting.ts";

/**
 * - `moved`: a newer generation is stored.
 * - `failed`: read the reason in `row`. If `row` is null, the connection was deleted.
 * - `left`: this process is shutting down and has begun nothing. Another replica may begin.
 *
 * `failure`: the provider's answer, if this process has sent the request.
 */
export type RefreshOutcome = { kind: "moved" | "failed" | "left"; row: TokenRow | null; failure?: Failure };

export type RefreshParts = {
  rows: TokenStatements;
  clients: Pick<Clients, "forgetPreviousSecret" | "noteOldSecret">;
  leases: Leases;
  waiting: Waiting;
  sender: Sender;
  limits: Pick<RequestLimiter, "send">;
  postponedPlans: PostponedPlans;
  /** Finds out what only the provider knows about a stored set. Never rejects. */
  lookups: Pick<Accounts, "followUp">;
  /** Gives the cache a row to which a lookup has added something. */
  learn: (row: TokenRow) => void;
  vault: TokenVault;
  keys: KeyList;
  answerStore: Pick<AnswerStore, "persist">;
  recovery: Pick<Recovery, "clear">;
  marks: Pick<Marks, "read" | "raise">;
  health: DatabaseHealth;
  clock: Clock;
  random: () => number;
  observer: RefreshObserver;
  alarms: Pick<Alarms, "unreadable">;
  lifecycle: Lifecycle;
};

/** The permission to send one request. */
export type Permit = {
  row: TokenRow;
  key: PermitKey;
  /** Taken over from an attempt with an unknown outcome. */
  isReplay: boolean;
  /** True for a replay, and for the candidate that is tried after a refused replay. If the provider ends the grant now, an earlier answer was lost. */
  followsLoss: boolean;
  /** A retry of an ended grant: a failure leaves it ended, and only its refresh token is tried. */
  isRetry: boolean;
  mayStillSend: () => boolean;
};

export type Refresh = (row: TokenRow, need: Need) => Promise<RefreshOutcome>;

/** Who wants a refresh, and until when it waits for others. */
type Flight = { need: Need; giveUpAtMs: number };

/** What a flight does next. `ask`: ask for the permit for `row`. Any other value is the flight's result. */
type Next = { kind: "ask"; row: TokenRow; startedOver: boolean; prepared?: Preparing } | RefreshOutcome;

/** What its request is made of, if that was asked for before. */
type Preparing = Promise<PlannedContext> | undefined;

/** How many permits a process asks for at a time: many go together, and waiting would use up the send window. */
const permitsAtOnce = 32;

/**
 * The refresh protocol (docs/refresh-protocol.md), steps 3 to 11. Each generation has one run in a process (step 2, read.ts).
 * A run takes the lease, asks for the permit until it gets one, or until another replica's refresh makes that unnecessary, and makes one
 * attempt.
 */
export function createRefresh(parts: RefreshParts): Refresh {
  const { leases, clock } = parts;
  const permitGate = createGate(permitsAtOnce);
  return async (row, need) => {
    const flight = { need, giveUpAtMs: clock.monotonicMs() + refreshTimes.flightMs };
    // The mark and what a request is made of are asked for beside the lease, so that all take the time of one.
    const marked = parts.marks.read(row.id);
    const prepared = parts.lifecycle.isDraining ? undefined : prepareOrNote(parts, row);
    prepared?.catch(() => undefined); // who waits for it gets the error
    // 3. Lease. It only keeps replicas from asking all at once: where it is unavailable, the permit alone decides.
    const lease = await leases.acquire(`refresh:${row.id}:${row.generation}`, refreshTimes.leaseSeconds * 1000);
    try {
      // Leases and marks are kept in the same place, so without leases there is no mark to read.
      const restored = lease.state === "unavailable" ? null : await suspendIfRestored(parts, row, marked);
      if (restored !== null) return restored;
      // The attempt in a cached row may have ended long ago. Only the row in Postgres shows the attempt of the lease's owner.
      let next: Next =
        lease.state === "held"
          ? await follow(parts, flight, { row: { ...row, attemptId: null } })
          : { kind: "ask", row, startedOver: false, prepared };
      while (next.kind === "ask") next = await askAndSend(parts, flight, { ...next, permitGate });
      return next;
    } finally {
      // 11. Release.
      if (lease.state === "owned") lease.release();
    }
  };
}

/** Steps 4 to 10 for a row as it was last read: the permit, and an attempt under it. */
async function askAndSend(
  parts: RefreshParts,
  flight: Flight,
  {
    row,
    startedOver,
    prepared,
    permitGate,
  }: { row: TokenRow; startedOver: boolean; prepared?: Preparing; permitGate: Gate },
): Promise<Next> {
  if (parts.lifecycle.isDraining) return { kind: "left", row };
  const context = await (prepared ?? prepareOrNote(parts, row));
  const takesOver =
    row.attemptId !== null && mayTakeOver(row, context.definition.refresh, recoverer(parts, flight, row));
  // The answer to the attempt that stands in the row may wait in a spool.
  const mustWait = takesOver && !(await isCleared(parts, row, context));
  // 4. Permit. It is committed before anything is sent, and it shows that Postgres takes writes before a token is spent.
  // failpoint: before permit
  const takeIt = async () => await takePermit(parts, flight, { row, context, takesOver });
  const permit = mustWait ? null : await inTurn(permitGate, takeIt);
  // failpoint: permit taken
  // 5. to 10. Check, send, classify, persist, announce.
  const outcome = permit === null ? null : await attempt(parts, permit, { context, mayStartOver: !startedOver });
  if (outcome !== null) return outcome;
  // We got no permit, or the send window passed. Read the row again to find out why.
  return await nextWithoutPermit(parts, flight, { row, context, startedOver, mustWait });
}

/** What to do without a permit: end with the row's result or its reason, wait for another replica's attempt, or ask once more. */
async function nextWithoutPermit(
  parts: RefreshParts,
  flight: Flight,
  {
    row,
    context,
    startedOver,
    mustWait,
  }: { row: TokenRow; context: RequestContext; startedOver: boolean; mustWait: boolean },
): Promise<Next> {
  const { rows, clock } = parts;
  const seen = await rows.readById(row.id);
  if (seen === null || seen.generation > row.generation) return outcomeOf(seen, row);
  if (seen.generation < row.generation) {
    return await handleOlderRow(parts, flight, { row: seen, known: row, startedOver });
  }
  const isTooLate = clock.monotonicMs() >= flight.giveUpAtMs;
  if (mustWait || rowForbidsRefresh(seen) || isTooLate) return outcomeOf(seen, row);
  const isFree = seen.attemptId === null;
  if (isFree || mayTakeOver(seen, context.definition.refresh, recoverer(parts, flight, seen))) {
    // Postgres has refused the permit twice, and the row does not show why: another connection may be sending the same refresh token.
    if (startedOver) await clock.sleep(refreshTimes.pollFirstMs);
    return { kind: "ask", row: seen, startedOver: true };
  }
  // If an attempt has an unknown outcome, or its owner is gone, no announcement will come.
  if (seen.attemptOutcome === "unknown" || shouldStopWaiting(seen, flight.need)) return outcomeOf(seen, row);
  return await follow(parts, flight, { row: seen, startedOver });
}

/**
 * Steps 5 to 10 under a permit: sends one request and persists its answer. If it is refused and there is another way (`anotherWay`), sends
 * a second request under a new permit. Null: the send window had passed and nothing was sent; the permit is given back, and the caller may
 * ask for it again (only if `mayStartOver`).
 */
export async function attempt(
  parts: RefreshParts,
  first: Permit,
  { context, mayStartOver }: { context: RequestContext; mayStartOver: boolean },
): Promise<RefreshOutcome | null> {
  const { rows, clock, observer } = parts;
  let permit = first;
  let plan = first.isRetry ? retryPlan : planFor(parts, first, context);
  while (plan !== null) {
    const current = underPermit(context, permit);
    const startedMs = clock.monotonicMs();
    // 5. Check, 6. send, 7. classify: the HTTP client checks when it is about to write, and classifies what comes back.
    const answer = await send(parts, permit, { context: current, plan });
    const passedSeconds = () => (clock.monotonicMs() - startedMs) / 1000;
    if (answer.kind === "granted") {
      // 8. Persist, 9. spool. 10. Announce.
      const outcome = await persist(parts, permit, { context: current, grant: answer.grant });
      observer.succeeded(current, { replay: permit.isReplay, seconds: passedSeconds() });
      // The answer is safe by now. If this fails, the old secret is erased one refresh later.
      await eraseOrReportPreviousSecret(parts, context, plan);
      return outcome;
    }
    const refused: Refused = { failure: bothRefused(answer.failure, plan), plan, context: current };
    if (refused.failure.code === "limit_reached" && !permit.isRetry) parts.postponedPlans.postpone(current, plan);
    const next = await anotherWay(parts, permit, refused);
    if (next === null) {
      observer.failed(current, { ...refused, replay: permit.isReplay, seconds: passedSeconds() });
      const startsOver = mayStartOver && refused.failure.code === "send_window_passed" && !permit.isReplay;
      // 7. What the class of the failure asks for goes into the row. 10. Announce.
      if (!startsOver) return await giveUp(parts, permit, refused);
      await rows.dropPermit(permit.key);
      return null;
    }
    ({ permit, plan } = next);
  }
  // Between the caller's read and the permit the row has lost its last way to get a token.
  await rows.dropPermit(permit.key);
  return { kind: "failed", row: await rows.readById(permit.key.connectionId) };
}

/** A row behind its mark comes from a restored database: its refresh token has most likely been spent. */
export async function suspendIfRestored(
  parts: RefreshParts,
  row: TokenRow,
  marked: Promise<Mark | null> = parts.marks.read(row.id),
): Promise<RefreshOutcome | null> {
  const mark = await marked;
  return mark === null || mark.generation <= row.generation ? null : await suspend(parts, row, mark);
}

/** Suspends a row that is behind what is known to have been stored. */
async function suspend({ rows, observer }: RefreshParts, row: TokenRow, mark: Mark): Promise<RefreshOutcome> {
  const { generation, version } = mark;
  const [suspended] = await rows.suspendRestored([{ connectionId: row.id, generation, version }]);
  if (suspended === undefined) return outcomeOf(await rows.readById(row.id), row);
  observer.suspendedAfterRestore(suspended);
  return { kind: "failed", row: suspended };
}

/** If the provider's metadata are away, the row gets the reason, since no attempt will note it. */
async function prepareOrNote({ sender, rows }: RefreshParts, row: TokenRow): Promise<PlannedContext> {
  try {
    return await sender.prepareToSend(row);
  } catch (error) {
    const isAway = error instanceof BrokerError && error.code === "provider_unavailable";
    if (isAway) await rows.noteUnprepared(row, error.message).catch(() => undefined);
    throw error;
  }
}

/** Step 4. Null: the row does not allow one, or is locked. */
async function takePermit(
  parts: RefreshParts,
  flight: Flight,
  { row, context: { definition }, takesOver }: { row: TokenRow; context: RequestContext; takesOver: boolean },
): Promise<Permit | null> {
  const { rows, clock, health } = parts;
  const mayStillSend = openSendWindow(clock);
  const key = { connectionId: row.id, generation: row.generation, attemptId: randomUUID() };
  const takeover = takesOver ? takeoverOf(row, definition.refresh, recoverer(parts, flight, row)) : null;
  const request = {
    ...key,
    leaseSeconds: refreshTimes.leaseSeconds,
    statuses: refreshableStatuses(row.grant),
    exclusive: definition.refresh.rotation !== "never",
    ifAbandoned: abandonedRule(row, definition.refresh),
    takeover,
  };
  const permitted = await rows.takePermit(request).catch((error: unknown) => {
    if (error instanceof DatabaseBusyError) health.rowWasBusy(row.id);
    throw error;
  });
  // The row may be locked, which also delays an owner who waits to store its answer. That owner goes first.
  if (permitted === null && takeover !== null) health.rowWasBusy(row.id);
  if (permitted === null) return null;
  const isReplay = permitted.attemptReplays > 0;
  return { row: permitted, key, isReplay, followsLoss: isReplay, isRetry: false, mayStillSend };
}

/** This flight's need, and for how long Postgres has answered this process without a gap. */
function recoverer({ health }: RefreshParts, { need }: Flight, { id }: TokenRow): Recoverer {
  return { need, uninterruptedMs: health.uninterruptedMs(id) };
}

/** Whether no spool has the answer to the row's attempt, or sending again costs nothing. */
async function isCleared({ recovery }: RefreshParts, row: TokenRow, { definition }: RequestContext): Promise<boolean> {
  const cleared = await recovery.clear(row);
  return cleared === "clear" || (cleared === "silent" && !mustWaitForSpools(row, definition.refresh));
}

/** Step 5. A suspended machine stops the monotonic clock, a wall clock may be set back: both must agree. */
export function openSendWindow(clock: Clock): () => boolean {
  const [monotonicMs, wallMs] = [clock.monotonicMs(), clock.wallMs()];
  return () =>
    clock.monotonicMs() - monotonicMs < refreshTimes.sendWindowMs &&
    Math.abs(clock.wallMs() - wallMs) < refreshTimes.sendWindowMs;
}

/**
 * The row that the permit returned, but with the inputs that were checked: the request goes to those hosts, and its answer is sealed for
 * them, even if somebody changes the row meanwhile.
 */
function underPermit(context: RequestContext, { row }: Permit): RequestContext {
  return { ...context, row: { ...row, inputsInForce: context.row.inputsInForce } };
}

/** A retry of an ended grant sends only the refresh token, never a login. */
const retryPlan: SendPlan = { grant: "refresh_token", secretIndex: 0 };

/** If the provider refused the last attempt's first request and the limits did not admit the second, begin with the second. */
function planFor(
  { postponedPlans }: RefreshParts,
  { row, isReplay }: Permit,
  context: RequestContext,
): SendPlan | null {
  const first = firstPlan(row, context.definition);
  const second = postponedPlans.take({ ...context, row });
  // A replay must send the grant whose outcome is unknown.
  return second === null || (isReplay && second.grant !== first?.grant) ? first : second;
}

/** Steps 5 to 7, if the limits admit the request. A throttled request is not announced. */
async function send(
  parts: RefreshParts,
  permit: Permit,
  { context, plan }: { context: RequestContext; plan: SendPlan },
): Promise<TokenAnswer> {
  const sendOnce = async () => {
    announce(parts, permit, "started");
    return await parts.sender.send(context, plan, { mayStillSend: permit.mayStillSend });
  };
  const isProven = permit.row.status === "connected" && !permit.row.untried;
  return await parts.limits.send(context, sendOnce, { cannotWait: false, isProven });
}

/** Steps 8 and 9. Between the answer and its first durable copy nothing runs that can throw, log or wait. */
async function persist(
  parts: RefreshParts,
  permit: Permit,
  { context, grant }: { context: RequestContext; grant: Grant },
): Promise<RefreshOutcome> {
  const { key } = permit;
  const answeredMs = parts.clock.monotonicMs();
  const sentAt = countedFrom(permit, context.definition.refresh);
  const record = recordOfRefresh(parts, context, { grant, key, sentAt });
  const persisted = await parts.answerStore.persist({ record, context, grant, answeredMs });
  const kind = persisted.row !== null && persisted.row.generation > key.generation ? "moved" : "failed";
  announce(parts, permit, kind === "moved" ? "stored" : "failed");
  // failpoint: announced
  void followUpStored(parts, context, persisted);
  return { kind, row: persisted.row };
}

/** Once Postgres has stored the set, asks the provider for what the answer did not say (account, expiry): that is stored in the row. Never rejects. */
async function followUpStored(parts: RefreshParts, context: RequestContext, persisted: Persisted): Promise<void> {
  const { kind, row } = (await persisted.stored) ?? persisted;
  if (kind !== "stored" || row === null) return;
  const known = await parts.lookups.followUp(context, row);
  if (known !== row) parts.learn(known);
}

/**
 * The time from which lifetimes count. If a provider answers a replay with the first send's tokens, count from the first send. At other
 * providers a replay succeeds only if the first send was not processed, so count from this one.
 */
function countedFrom({ row, isReplay }: Permit, { reuse }: RefreshRules): Date {
  const isFirstAnswer = isReplay && (reuse === "grace" || reuse === "until_successor_used");
  return isFirstAnswer ? (row.attemptStartedAt ?? row.now) : row.now;
}

function announce({ leases }: RefreshParts, { key }: Permit, outcome: RefreshNews["outcome"]): void {
  const { connectionId: connection, generation, attemptId } = key;
  leases.announce({ connection, generation, attempt: attemptId, outcome });
}

type Refused = { failure: Failure; plan: SendPlan; context: RequestContext };

type Way = { permit: Permit; plan: SendPlan | null };

/** The next way to try after a refusal, with a new permit. Null: there is none. */
async function anotherWay(parts: RefreshParts, permit: Permit, refused: Refused): Promise<Way | null> {
  const { failure, plan, context } = refused;
  const second = secondPlan(failure, plan, { context, isRetry: permit.isRetry });
  const swapped = second === null ? null : await swap(parts, permit, second.grant === plan.grant);
  if (swapped !== null) return { permit: swapped, plan: second };
  const candidate = isFinal(failure, plan) && !permit.isRetry ? await tryCandidate(parts, permit, context) : null;
  return candidate === null ? null : { permit: candidate, plan: firstPlan(candidate.row, context.definition) };
}

/**
 * The second request, if there is one: the same with the client's previous secret; or, if the refresh token has ended or cannot be opened,
 * one for a new set, where that needs no person. A further token that comes by token exchange has no refresh token.
 */
function secondPlan(
  failure: Failure,
  plan: SendPlan,
  { context, isRetry }: { context: RequestContext; isRetry: boolean },
): SendPlan | null {
  const older = withPreviousSecret(failure, plan, context);
  if (older !== null) return older;
  const isOver = failure.class === "refused_for_good" || failure.code === "unreadable_secret";
  return isOver && plan.grant === "refresh_token" && !isRetry ? anewPlan(context.row) : null;
}

/**
 * Swaps the permit, since one permit covers one send. Null: the permit is no longer ours. `isSameGrant`: the second request sends the same
 * token, so a replay stays a replay. A request with another grant type is no replay.
 */
async function swap({ rows, clock }: RefreshParts, permit: Permit, isSameGrant: boolean): Promise<Permit | null> {
  const mayStillSend = openSendWindow(clock);
  const key = { ...permit.key, attemptId: randomUUID() };
  const row = await rows.swapPermit(permit.key, { attemptId: key.attemptId, leaseSeconds: refreshTimes.leaseSeconds });
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

/** Replaces the refused token by the newest candidate, and gets a new permit for it. Null: there is no candidate. */
async function tryCandidate(
  parts: RefreshParts,
  permit: Permit,
  { row, definition }: RequestContext,
): Promise<Permit | null> {
  const { rows, clock, marks } = parts;
  const { key } = permit;
  const candidate = await openNewest(parts, row, key.generation + 1);
  if (candidate === null) return null;
  const mayStillSend = openSendWindow(clock);
  const attemptId = randomUUID();
  const given = { candidateId: candidate.attemptId, attemptId, leaseSeconds: refreshTimes.leaseSeconds };
  const tried = await rows.tryCandidate(key, candidate.grant, {
    ...given,
    ifAbandoned: abandonedRule(row, definition.refresh),
  });
  if (tried === null) return null;
  marks.raise(tried.id, tried);
  const nextKey = { ...key, generation: tried.generation, attemptId };
  return { ...permit, row: tried, key: nextKey, isReplay: false, mayStillSend };
}

/**
 * The newest candidate that can be opened, sealed for its new generation. @throws UnreadableSecretError for one that only another replica
 * can open: that replica must go on, since the candidate may be valid
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
      // Somebody may have changed the column beside the record. The sealed record counts.
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

async function giveUp(parts: RefreshParts, permit: Permit, refused: Refused): Promise<RefreshOutcome> {
  const row = (await recordFailure(parts, permit, refused)) ?? (await parts.rows.readById(permit.key.connectionId));
  announce(parts, permit, "failed");
  const kind = row !== null && row.generation > permit.key.generation ? "moved" : "failed";
  return { kind, row, failure: refused.failure };
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
async function recordFailure(parts: RefreshParts, permit: Permit, refused: Refused): Promise<TokenRow | null> {
  if (permit.isRetry) return await recordRetryFailure(parts, permit, refused);
  const row = await recordRefreshFailure(parts, permit, refused);
  return row === null || refused.failure.isUnexplained !== true ? row : await judgeRefusals(parts, row);
}

async function recordRefreshFailure(parts: RefreshParts, permit: Permit, refused: Refused): Promise<TokenRow | null> {
  const { rows, vault, random, observer } = parts;
  const { failure, plan, context } = refused;
  const { row, key, isReplay, followsLoss } = permit;
  const recorded = recordOf(failure);
  const waitSeconds = Math.max(failure.retryAfterSeconds ?? 0, failure.closedSeconds ?? 0);
  const backoff = backoffSeconds(row.consecutiveFailures, waitSeconds, random);
  if (isFinal(failure, plan)) {
    const final = followsLoss ? { ...recorded, code: "refresh_outcome_lost" } : recorded;
    const { owner } = context;
    // The revision of the credentials that were sent: a person may have set new ones before the permit was taken.
    const { credentialsRevision } = owner.id === row.id ? owner : row;
    const ended = await rows.endGrant({ ...key, credentialsRevision }, final);
    if (ended !== null && followsLoss) observer.lost(ended);
    return ended ?? (await rows.returnPermit(key, recorded, 0)); // a person has set new credentials meanwhile, which may be tried at once
  }
  if (failure.class !== "unknown" && !isReplay) return await rows.returnPermit(key, recorded, backoff);
  const answer = sealedAnswer(vault, key, failure);
  const endLease = failure.class !== "unknown";
  const ifAbandoned = abandonedRule(row, context.definition.refresh);
  return await rows.leaveUnknown(key, recorded, { backoffSeconds: backoff, answer, endLease, ifAbandoned });
}

/** The same for a retry of an ended grant: it stays ended, or the outcome is unknown. */
async function recordRetryFailure(
  { rows, vault }: RefreshParts,
  { key }: Permit,
  { failure }: Refused,
): Promise<TokenRow | null> {
  if (failure.class !== "unknown") return await rows.returnRetryPermit(key, recordOf(failure));
  return await rows.leaveRetryUnknown(key, recordOf(failure), sealedAnswer(vault, key, failure));
}

/** Checks whether the refusal that has just been counted makes the grant probably dead. */
async function judgeRefusals({ rows, observer }: RefreshParts, row: TokenRow): Promise<TokenRow> {
  if (row.probablyDeadSince !== null || row.refusals < refusalsBeforeDead) return row;
  const least = { equal: refusalsBeforeDead, seconds: refreshTimes.refusedBeforeDeadSeconds };
  const judged = await rows.judgeRefusals({ connectionId: row.id, generation: row.generation }, least);
  if (judged !== null) observer.probablyDead(judged);
  return judged ?? row;
}

/** A refused login is final, whatever the reason: repeating it could lock the account. */
function isFinal(failure: Failure, { grant }: SendPlan): boolean {
  if (failure.class === "refused_for_good") return true;
  return rulesOfGrant(grant).isLogin && failure.class !== "client_rejected" && isRefused(failure);
}

function recordOf({ code, detail, status, oauthError, isUnexplained }: Failure): RecordedFailure {
  const said = { code, detail, ...(status === undefined ? {} : { status }) };
  return isUnexplained ? { ...said, refusal: [status, oauthError].filter(Boolean).join(" ") } : said;
}

function sealedAnswer(vault: TokenVault, { connectionId, generation }: PermitKey, { rawAnswer }: Failure) {
  return rawAnswer === undefined ? null : vault.sealAnswer(rawAnswer, { connectionId, generation });
}

/** Step 10 of another replica's attempt: waits for it, and asks for the permit if that one is given up. */
async function follow(
  parts: RefreshParts,
  flight: Flight,
  { row, startedOver = false }: { row: TokenRow; startedOver?: boolean },
): Promise<Next> {
  const { definition } = await parts.sender.prepare(row);
  const end = await parts.waiting.until({
    row,
    giveUpAtMs: flight.giveUpAtMs,
    mayTakeOver: (current) => mayTakeOver(current, definition.refresh, recoverer(parts, flight, current)),
    shouldStopWaiting: (current) => shouldStopWaiting(current, flight.need),
  });
  if (end.row === null) return outcomeOf(null, row);
  if (end.row.generation < row.generation) {
    return await handleOlderRow(parts, flight, { row: end.row, known: row, startedOver });
  }
  return end.kind === "free" ? { kind: "ask", row: end.row, startedOver } : outcomeOf(end.row, row);
}

/** Postgres returned an older row than this process has seen: either the newer answer is not stored yet, or the database was restored. */
async function handleOlderRow(
  parts: RefreshParts,
  { need, giveUpAtMs }: Flight,
  { row, known, startedOver }: { row: TokenRow; known: TokenRow; startedOver: boolean },
): Promise<Next> {
  const { rows, recovery, waiting } = parts;
  const cleared = await recovery.clear(row);
  if (cleared === "clear") return await suspend(parts, row, known);
  if (cleared === "silent" || need === "ahead") return outcomeOf(await rows.readById(row.id), known);
  // The newer token has been handed out already. Before another refresh, it must be stored.
  const { row: stored } = await waiting.until({ row, giveUpAtMs, mayTakeOver: never, shouldStopWaiting: never });
  if (stored === null || stored.generation < known.generation) return outcomeOf(stored, known);
  return { kind: "ask", row: stored, startedOver };
}

/** A refresh ahead does not wait for an abandoned permit. */
function shouldStopWaiting({ leaseUntil, now }: TokenRow, need: Need): boolean {
  return need === "ahead" && leaseUntil !== null && leaseUntil <= now;
}

const never = (): boolean => false;

function outcomeOf(now: TokenRow | null, before: TokenRow): RefreshOutcome {
  return { kind: now !== null && now.generation > before.generation ? "moved" : "failed", row: now };
}

/** Second requests that were throttled. The connection's next attempt begins with that request. */
export type PostponedPlans = {
  postpone(context: RequestContext, plan: SendPlan): void;
  /** Returns a plan once. Null: there is none, or the row or the client has changed. */
  take(context: RequestContext): SendPlan | null;
};

/**
 * Strict limits may never admit the second request of an attempt. Without this, each attempt would begin with the request that is
 * refused. It is only in memory: another replica finds it out by itself.
 */
export function createPostponedPlans(): PostponedPlans {
  const plans = new Map<string, { plan: SendPlan; restsOn: string }>();
  return {
    postpone(context, plan) {
      plans.set(context.row.id, { plan, restsOn: stateOf(context) });
    },
    take(context) {
      const postponed = plans.get(context.row.id);
      plans.delete(context.row.id);
      return postponed?.restsOn === stateOf(context) ? postponed.plan : null;
    },
  };
}

/** The state that decides which requests an attempt may send. If it changes, a postponed request is dropped. */
function stateOf({ row, client }: { row: TokenRow; client: RequestContext["client"] }): string {
  const { generation, authorization, credentialsRevision } = row;
  return [
    generation,
    authorization,
    credentialsRevision,
    client?.secretRevision,
    client?.previousSecret !== null,
  ].join();
}
