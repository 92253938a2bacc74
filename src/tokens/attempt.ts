import { randomUUID } from "node:crypto";
import type { RefreshNews } from "../leases/lease.ts";
import type { Failure, Grant } from "../providers/grant.ts";
import type { TokenRow } from "../store/token-row.ts";
import { backoffSeconds } from "./backoff.ts";
import { budgets } from "./budgets.ts";
import { commitGrant, refreshBase, sealGrant } from "./commit.ts";
import { openSendWindow, type Permit, type RefreshOutcome, type RefreshParts } from "./permit.ts";
import type { Sendable, SendPlan } from "./sending.ts";

/** The request by which a connection gets its next token; null: only a person can give it one. */
export function firstPlan(row: Pick<TokenRow, "refreshToken" | "grant" | "credentials">): SendPlan | null {
  if (row.refreshToken !== null) return { grant: "refresh_token", secretIndex: 0 };
  if (row.grant === "client_credentials") return { grant: "client_credentials", secretIndex: 0 };
  if (row.grant === "password" && row.credentials !== null) return { grant: "password", secretIndex: 0 };
  return null;
}

/**
 * Steps 5 to 11 under a permit: send, classify, store; once more under a new permit where there is a second way.
 * Null: the time to send had passed, nothing was sent, and the permit is given back.
 */
export async function attempt(parts: RefreshParts, first: Permit, sendable: Sendable): Promise<RefreshOutcome | null> {
  const { rows, sender, clock, observer } = parts;
  let permit = first;
  let plan = firstPlan(permit.row);
  while (plan !== null) {
    const current = { ...sendable, row: permit.row };
    announce(parts, permit, "started");
    const startedMs = clock.monotonicMs();
    const answer = await sender.send(current, plan, { mayStillSend: permit.mayStillSend });
    if (answer.kind === "granted") {
      const outcome = await keep(parts, permit, answer.grant);
      observer.succeeded(current, { replay: permit.isReplay, seconds: (clock.monotonicMs() - startedMs) / 1000 });
      await forgetOldSecret(parts, sendable, plan);
      return outcome;
    }
    const next: SendPlan | null = secondPlan(answer.failure, plan, current);
    const swapped = next === null ? null : await swap(parts, permit, next.grant === plan.grant);
    if (swapped === null) {
      const seconds = (clock.monotonicMs() - startedMs) / 1000;
      observer.failed(current, { failure: answer.failure, replay: permit.isReplay, seconds });
      return await giveUp(parts, permit, answer.failure);
    }
    permit = swapped;
    plan = next;
  }
  // The row lost its last way to a token between the caller's look and the permit.
  await rows.dropPermit(permit.key);
  return { kind: "failed", row: await rows.readById(permit.key.connectionId) };
}

/** Step 8. Between the answer and the commit nothing runs that can throw, log or wait. */
async function keep(parts: RefreshParts, permit: Permit, grant: Grant): Promise<RefreshOutcome> {
  const { rows, vault, clock, random, observer } = parts;
  const { row, key } = permit;
  const sealed = sealGrant(vault, refreshBase(vault, row), { grant, sentAt: row.now });
  const onTrouble = (error: unknown) => observer.commitDelayed(row, error);
  const result = await commitGrant(key, sealed, { rows, clock, random, onTrouble });
  if (result.kind === "lost") observer.answerLost(row, result.row);
  const kind = result.row !== null && result.row.generation > key.generation ? "moved" : "failed";
  announce(parts, permit, kind === "moved" ? "stored" : "failed");
  return { kind, row: result.row };
}

async function giveUp(parts: RefreshParts, permit: Permit, failure: Failure): Promise<RefreshOutcome | null> {
  const { rows } = parts;
  if (failure.code === "send_window_passed" && !permit.isReplay) {
    await rows.dropPermit(permit.key);
    return null;
  }
  const row = (await settle(parts, permit, failure)) ?? (await rows.readById(permit.key.connectionId));
  announce(parts, permit, "failed");
  return { kind: row !== null && row.generation > permit.key.generation ? "moved" : "failed", row, failure };
}

/** The second way, if there is one: the secret before the newest, or logging in again when the refresh token has died. */
function secondPlan(failure: Failure, plan: SendPlan, { row, clientSecrets }: Sendable): SendPlan | null {
  if (failure.class === "client_rejected" && plan.secretIndex + 1 < clientSecrets.length) {
    return { ...plan, secretIndex: plan.secretIndex + 1 };
  }
  const canLogIn = row.grant === "password" && row.credentials !== null && plan.grant === "refresh_token";
  return failure.class === "refused_for_good" && canLogIn ? { grant: "password", secretIndex: 0 } : null;
}

/**
 * One permit, one send. Null: it is not ours any more. A refused secret says nothing about the token, so that a replay of
 * it (`isSameGrant`) is still one; another grant replays nothing.
 */
async function swap({ rows, clock }: RefreshParts, permit: Permit, isSameGrant: boolean): Promise<Permit | null> {
  const mayStillSend = openSendWindow(clock);
  const key = { ...permit.key, attemptId: randomUUID() };
  const row = await rows.swapPermit(permit.key, { attemptId: key.attemptId, leaseSeconds: budgets.leaseSeconds });
  return row === null ? null : { row, key, isReplay: permit.isReplay && isSameGrant, mayStillSend };
}

async function forgetOldSecret({ clients }: RefreshParts, { client }: Sendable, plan: SendPlan): Promise<void> {
  if (plan.secretIndex > 0 || client === null || client.previousSecret === null) return;
  await clients.forgetPreviousSecret(client.id, client.secretRevision);
}

/** Step 7: leaves the row in the state that the failure's class asks for. Null: it has moved on. */
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

function announce({ leases }: RefreshParts, { key }: Permit, outcome: RefreshNews["outcome"]): void {
  const { connectionId: connection, generation, attemptId } = key;
  leases.announce({ connection, generation, attempt: attemptId, outcome });
}
