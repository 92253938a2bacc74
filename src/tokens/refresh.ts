import { randomUUID } from "node:crypto";
import type { Clock } from "../clock.ts";
import type { Leases } from "../leases/lease.ts";
import type { Failure, Grant } from "../providers/grant.ts";
import type { Clients } from "../store/clients.ts";
import type { DatabaseHealth } from "../store/database-health.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { PermitKey, TokenRows } from "../store/token-rows.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { backoffSeconds } from "./backoff.ts";
import { budgets } from "./budgets.ts";
import { commitGrant, refreshBase, sealGrant } from "./commit.ts";
import type { RefreshObserver } from "./observer.ts";
import type { Sendable, Sender, SendPlan } from "./sending.ts";
import { mayTakeOver, takeoverOf, type Need } from "./takeover.ts";
import { isRefreshable, refreshableStatuses } from "./unavailable.ts";
import type { Waiting } from "./waiting.ts";

/**
 * `moved`: a newer generation is stored. `failed`: the row, as it stands now, says why; null: it is deleted.
 * `failure`: what the provider answered, where this process was the one that asked.
 */
export type RefreshOutcome = { kind: "moved" | "failed"; row: TokenRow | null; failure?: Failure };

export type RefreshParts = {
  rows: TokenRows;
  clients: Clients;
  leases: Leases;
  waiting: Waiting;
  sender: Sender;
  vault: TokenVault;
  health: DatabaseHealth;
  clock: Clock;
  random: () => number;
  observer: RefreshObserver;
};

/** A granted permission to send once. */
type Permit = { row: TokenRow; key: PermitKey; isReplay: boolean; mayStillSend: () => boolean };

export type Refresh = (row: TokenRow, need: Need) => Promise<RefreshOutcome>;

/** The request by which a connection gets its next token; null: only a person can give it one. */
export function firstPlan(row: Pick<TokenRow, "refreshToken" | "grant" | "credentials">): SendPlan | null {
  if (row.refreshToken !== null) return { grant: "refresh_token", secretIndex: 0 };
  if (row.grant === "client_credentials") return { grant: "client_credentials", secretIndex: 0 };
  if (row.grant === "password" && row.credentials !== null) return { grant: "password", secretIndex: 0 };
  return null;
}

/** The refresh protocol: README.md has the states, this file the order. At most one run per generation in a process. */
export function createRefresh(parts: RefreshParts): Refresh {
  const { rows, leases, waiting, sender, health, clock } = parts;

  const recoverer = (need: Need) => ({ need, uninterruptedMs: health.uninterruptedMs() });

  const takePermit = async (row: TokenRow, { definition }: Sendable, need: Need): Promise<Permit | null> => {
    const askedAt = { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
    const key = { connectionId: row.id, generation: row.generation, attemptId: randomUUID() };
    const takeover = takeoverOf(row, definition.refresh, recoverer(need));
    const statuses = refreshableStatuses(row.grant);
    const permitted = await rows.takePermit({ ...key, leaseSeconds: budgets.leaseSeconds, statuses, takeover });
    if (permitted === null) return null;
    return { row: permitted, key, isReplay: row.attemptId !== null, mayStillSend: sendWindow(clock, askedAt) };
  };

  const waitFor = async (row: TokenRow, need: Need, seen: { attemptId: string | null; giveUpAtMs: number }) => {
    const { definition } = await sender.prepare(row);
    return await waiting.until({
      connectionId: row.id,
      generation: row.generation,
      giveUpAtMs: seen.giveUpAtMs,
      seenAttemptId: seen.attemptId,
      mayTakeOver: (current) => mayTakeOver(current, definition.refresh, recoverer(need)),
    });
  };

  /** Asks for the permit until it is given, or somebody else's refresh makes it needless. */
  const contend = async (first: TokenRow, need: Need, giveUpAtMs: number): Promise<RefreshOutcome> => {
    let row = first;
    for (;;) {
      const sendable = await sender.prepare(row);
      const permit = await takePermit(row, sendable, need);
      if (permit !== null) {
        const outcome = await attempt(parts, permit, sendable);
        if (outcome !== "not_sent_in_time") return outcome;
      }
      const seen = await rows.readById(row.id);
      if (seen === null) return { kind: "failed", row: null };
      if (seen.generation > row.generation) return { kind: "moved", row: seen };
      if (clock.monotonicMs() >= giveUpAtMs) return { kind: "failed", row: seen };
      if (seen.attemptId === null ? permit !== null : mayTakeOver(seen, sendable.definition.refresh, recoverer(need))) {
        row = seen;
        continue;
      }
      if (isSettled(seen)) return { kind: "failed", row: seen };
      const end = await waitFor(seen, need, { attemptId: seen.attemptId, giveUpAtMs });
      if (end.kind !== "free" || end.row === null) return { kind: end.kind === "moved" ? "moved" : "failed", row: end.row };
      row = end.row;
    }
  };

  return async (row, need) => {
    const giveUpAtMs = clock.monotonicMs() + budgets.flightMs;
    const lease = await leases.acquire(`refresh:${row.id}:${row.generation}`, budgets.leaseSeconds * 1000);
    try {
      if (lease.state !== "held") return await contend(row, need, giveUpAtMs);
      const end = await waitFor(row, need, { attemptId: null, giveUpAtMs });
      if (end.kind === "free" && end.row !== null) return await contend(end.row, need, giveUpAtMs);
      return { kind: end.kind === "moved" ? "moved" : "failed", row: end.row };
    } finally {
      if (lease.state === "owned") lease.release();
    }
  };
}

/** True when waiting would bring nothing: the row itself says why no request may be sent now. */
function isSettled(row: TokenRow): boolean {
  if (!isRefreshable(row)) return true;
  if (row.backoffUntil !== null && row.backoffUntil > row.now) return true;
  return row.attemptId !== null && row.attemptOutcome === "unknown";
}

/** Step 5. A suspended machine stops the monotonic clock, a wall clock may be set back: both must agree. */
function sendWindow(clock: Clock, askedAt: { monotonicMs: number; wallMs: number }): () => boolean {
  return () =>
    clock.monotonicMs() - askedAt.monotonicMs < budgets.sendWindowMs &&
    Math.abs(clock.wallMs() - askedAt.wallMs) < budgets.sendWindowMs;
}

/** Steps 5 to 8 under a permit: send, classify, store; once more under a new permit where there is a second way. */
async function attempt(
  parts: RefreshParts,
  first: Permit,
  sendable: Sendable,
): Promise<RefreshOutcome | "not_sent_in_time"> {
  const { rows, sender, leases, clock, observer } = parts;
  const announce = (key: PermitKey, outcome: "started" | "stored" | "failed") =>
    leases.announce({ connection: key.connectionId, generation: key.generation, attempt: key.attemptId, outcome });
  let permit = first;
  let plan = firstPlan(permit.row);
  for (;;) {
    if (plan === null) {
      await rows.dropPermit(permit.key);
      return { kind: "failed", row: await rows.readById(permit.key.connectionId) };
    }
    announce(permit.key, "started");
    const startedMs = clock.monotonicMs();
    const answer = await sender.send({ ...sendable, row: permit.row }, plan, { mayStillSend: permit.mayStillSend });
    if (answer.kind === "granted") {
      const outcome = await keep(parts, permit, answer.grant);
      announce(permit.key, outcome.kind === "moved" ? "stored" : "failed");
      observer.succeeded(sendable, { replay: permit.isReplay, seconds: (clock.monotonicMs() - startedMs) / 1000 });
      await forgetOldSecret(parts, sendable, plan);
      return outcome;
    }
    const { failure } = answer;
    const nextPlan = secondPlan(failure, plan, { ...sendable, row: permit.row });
    const next = nextPlan === null ? null : await swap(parts, permit);
    if (next !== null) {
      [permit, plan] = [next, nextPlan];
      continue;
    }
    observer.failed(sendable, { failure, replay: permit.isReplay, seconds: (clock.monotonicMs() - startedMs) / 1000 });
    if (failure.code === "send_window_passed" && !permit.isReplay) {
      await rows.dropPermit(permit.key);
      return "not_sent_in_time";
    }
    const row = (await settle(parts, permit, failure)) ?? (await rows.readById(permit.key.connectionId));
    announce(permit.key, "failed");
    return { kind: row !== null && row.generation > permit.key.generation ? "moved" : "failed", row, failure };
  }
}

/** Step 8. Between the answer and the commit nothing runs that can throw, log or wait. */
async function keep(parts: RefreshParts, { row, key }: Permit, grant: Grant): Promise<RefreshOutcome> {
  const { rows, vault, clock, random, observer } = parts;
  const sealed = sealGrant(vault, refreshBase(vault, row), { grant, sentAt: row.now });
  const onTrouble = (error: unknown) => observer.commitDelayed(row, error);
  const result = await commitGrant(key, sealed, { rows, clock, random, onTrouble });
  if (result.kind === "lost") observer.answerLost(row, result.row);
  return { kind: result.row !== null && result.row.generation > key.generation ? "moved" : "failed", row: result.row };
}

/** The second way, if there is one: the secret before the newest, or logging in again when the refresh token has died. */
function secondPlan(failure: Failure, plan: SendPlan, { row, clientSecrets }: Sendable): SendPlan | null {
  if (failure.class === "client_rejected" && plan.secretIndex + 1 < clientSecrets.length) {
    return { ...plan, secretIndex: plan.secretIndex + 1 };
  }
  const canLogIn = row.grant === "password" && row.credentials !== null && plan.grant === "refresh_token";
  return failure.class === "refused_for_good" && canLogIn ? { grant: "password", secretIndex: 0 } : null;
}

async function swap({ rows, clock }: RefreshParts, { key }: Permit): Promise<Permit | null> {
  const askedAt = { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
  const next = { attemptId: randomUUID(), leaseSeconds: budgets.leaseSeconds };
  const row = await rows.swapPermit(key, next);
  if (row === null) return null;
  // The first send has been answered, so what follows is no replay of it.
  return { row, key: { ...key, attemptId: next.attemptId }, isReplay: false, mayStillSend: sendWindow(clock, askedAt) };
}

async function forgetOldSecret({ clients }: RefreshParts, { client }: Sendable, plan: SendPlan): Promise<void> {
  if (plan.secretIndex > 0 || client === null || client.previousSecret === null) return;
  await clients.forgetPreviousSecret(client.id, client.secretRevision);
}

/** Leaves the row in the state that the failure's class asks for. Null: it has moved on. */
async function settle(parts: RefreshParts, { row, key, isReplay }: Permit, failure: Failure): Promise<TokenRow | null> {
  const { rows, vault, random } = parts;
  const { code, detail, status } = failure;
  const recorded = { code, detail, ...(status === undefined ? {} : { status }) };
  const backoff = backoffSeconds(row.consecutiveFailures, failure.retryAfterSeconds, random);
  if (failure.class === "refused_for_good") {
    return await rows.endGrant(key, isReplay ? { ...recorded, code: "refresh_outcome_lost" } : recorded);
  }
  if (failure.class !== "unknown" && !isReplay) return await rows.returnPermit(key, recorded, backoff);
  const place = { connectionId: row.id, generation: row.generation };
  const answer = failure.rawAnswer === undefined ? null : vault.sealAnswer(failure.rawAnswer, place);
  const endLease = failure.class !== "unknown";
  return await rows.leaveUnknown(key, recorded, { backoffSeconds: backoff, answer, endLease });
}
