import { randomUUID } from "node:crypto";
import { withDeadline } from "../clock.ts";
import { BrokerError, connectionNotFound } from "../errors.ts";
import type { ProviderDefinition } from "../providers/format/definition.ts";
import type { Failure } from "../providers/oauth/token-answer.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { TokenRow } from "../store/token-row.ts";
import { refreshTimes } from "../time.ts";
import type { TokenCache } from "./cache.ts";
import {
  attempt,
  suspendIfRestored,
  openSendWindow,
  type Permit,
  type RefreshOutcome,
  type RefreshParts,
} from "./refresh.ts";
import { refusal, type RequestContext } from "./request.ts";
import { mustWaitForSpools } from "./row-rules.ts";

/** What an operator can do about the end of a grant if the provider's answers are wrong. */
export type GrantEnds = {
  /**
   * Sends the stored refresh token of an ended connection once more: the provider may have been mistaken. The connection changes only if a token
   * comes of it. No login and no other token is tried.
   * `force`: though this may end other connections of the same account. @throws BrokerError that says why nothing was sent, or what
   * the provider answered
   */
  retry(connectionId: string, given: { by: string; force: boolean }): Promise<void>;
  /** Ends a connection that is probably dead. @throws BrokerError conflict, refresh_in_progress */
  end(connectionId: string, by: string): Promise<void>;
  /** Frees the permits of abandoned retries. Their connections have ended as before. */
  lapse(): Promise<void>;
  /** Resolves when no retry runs in this process any more. */
  idle(): Promise<void>;
};

type GrantEndsParts = RefreshParts & {
  accounts: Pick<AccountRows, "mayShareAccount">;
  cache: Pick<TokenCache, "learn">;
};

export function createGrantEnds(parts: GrantEndsParts): GrantEnds {
  const { rows, cache, clock, recovery, accounts, vault, health } = parts;
  const running = new Set<Promise<RefreshOutcome>>();

  const read = async (id: string): Promise<TokenRow> => {
    const row = await rows.readById(id);
    if (row === null) throw connectionNotFound("");
    vault.connections.check(row);
    return row;
  };

  /** If the answer of an earlier retry waits in a spool, it is stored and nothing is sent. */
  const isCleared = async (row: TokenRow, { definition }: RequestContext): Promise<boolean> => {
    const cleared = await recovery.clear(row);
    if (cleared !== "silent" || !mustWaitForSpools(row, definition.refresh)) return cleared !== "drained";
    const detail = "An answer to an earlier refresh may wait where this replica cannot look now; nothing was sent.";
    throw new BrokerError("storage_unavailable", detail, inSeconds(row, refreshTimes.quietSeconds));
  };

  /** A grace window is long over by now, so there, too, a second use counts as theft. */
  const isDangerous = async (row: TokenRow, { id, formerly, refresh }: ProviderDefinition): Promise<boolean> => {
    const kills = refresh.rotation !== "never" && (refresh.reuse === "kills_family" || refresh.reuse === "grace");
    return kills && (await accounts.mayShareAccount(row, [id, ...formerly]));
  };

  const takePermit = async (row: TokenRow, { definition }: RequestContext, by: string): Promise<Permit | null> => {
    const mayStillSend = openSendWindow(clock);
    const key = { connectionId: row.id, generation: row.generation, attemptId: randomUUID() };
    const { leaseSeconds, retryPauseSeconds: pauseSeconds } = refreshTimes;
    const exclusive = definition.refresh.rotation !== "never";
    const permitted = await rows.takeRetryPermit({ ...key, leaseSeconds, pauseSeconds, exclusive, by });
    // A lost answer was counted when the connection ended, so it is not counted again.
    const rest = { isReplay: false, followsLoss: false, isRetry: true, mayStillSend };
    return permitted === null ? null : { row: permitted, key, ...rest };
  };

  const send = async (row: TokenRow, context: RequestContext, by: string): Promise<RefreshOutcome> => {
    const suspended = await suspendIfRestored(parts, row);
    if (suspended !== null) return suspended;
    const permit = (await isCleared(row, context)) ? await takePermit(row, context, by) : null;
    const outcome = permit && (await attempt(parts, permit, { context, mayStartOver: false }));
    if (outcome !== null) return outcome;
    // Another retry may just have brought a token.
    const now = await read(row.id);
    if (now.generation > row.generation) return { kind: "moved", row: now };
    throw whyNoRetry(now);
  };

  /** It goes on if its caller leaves. */
  const run = async (work: Promise<RefreshOutcome>): Promise<RefreshOutcome | null> => {
    running.add(work);
    void work.catch(() => undefined).finally(() => running.delete(work));
    return await withDeadline(work, refreshTimes.orderedRefreshMs, clock);
  };

  return {
    async retry(connectionId, { by, force }) {
      const row = await read(connectionId);
      if (parts.lifecycle.isDraining) throw shuttingDown(row);
      const reason = whyNotEnded(row);
      if (reason !== null) throw reason;
      const context = await parts.sender.prepareToSend(row);
      if (context.plan?.grant !== "refresh_token") throw nothingToRetry(row);
      if (!force && (await isDangerous(row, context.definition))) throw endangersOthers(row);
      const outcome = await run(send(row, context, by));
      if (outcome === null) throw stillRunning(row);
      if (outcome.row === null) throw connectionNotFound(row.name);
      cache.learn(outcome.row);
      if (outcome.kind === "failed") throw failureOf(outcome.row, outcome.failure);
    },

    async end(connectionId, by) {
      const row = await read(connectionId);
      const ended = await rows.endProbablyDead(row, { by, quietSeconds: refreshTimes.quietSeconds });
      if (ended === null) throw whyNotEnding(await read(connectionId));
      cache.learn(ended);
    },

    async lapse() {
      // As before a takeover: an owner who waits for Postgres to store an answer goes first.
      if (health.uninterruptedMs() >= refreshTimes.uninterruptedMs) await rows.lapseRetries(refreshTimes.quietSeconds);
    },

    async idle() {
      while (running.size > 0) await Promise.allSettled(running);
    },
  };
}

function inSeconds({ name }: TokenRow, retryAfterSeconds: number) {
  return { connection: name, retryAfterSeconds: Math.max(1, Math.ceil(retryAfterSeconds)) };
}

function whyNotEnded({ name, status, goneBackFrom, refreshToken }: TokenRow): BrokerError | null {
  const context = { connection: name };
  if (status === "disabled") {
    return new BrokerError("connection_disabled", "This connection is disabled; enable it first.", context);
  }
  if (status !== "needs_reauthorization") {
    const detail = `retry_ended: only a connection whose grant has ended is tried once more; the status of this one is ${status}.`;
    return new BrokerError("conflict", detail, context);
  }
  if (goneBackFrom !== null) {
    const detail =
      "The broker's database was restored from before this connection's newest token; run `freshet recover` first.";
    return new BrokerError("conflict", detail, context);
  }
  return refreshToken === null ? nothingToRetry({ name }) : null;
}

function shuttingDown(row: TokenRow): BrokerError {
  const detail = "This replica is shutting down and sends nothing any more; ask again.";
  return new BrokerError("refresh_in_progress", detail, inSeconds(row, 1));
}

function nothingToRetry({ name }: Pick<TokenRow, "name">): BrokerError {
  const detail = "This connection has no refresh token that could be tried once more; connect the account again.";
  return new BrokerError("grant_not_applicable", detail, { connection: name });
}

function endangersOthers({ name }: TokenRow): BrokerError {
  const detail =
    "This provider takes a refresh token that it has ended for a stolen one, and may end every grant of the account; another connection of this client may be of the same account. Connect this one again, or send force: true.";
  return new BrokerError("conflict", detail, { connection: name });
}

function stillRunning(row: TokenRow): BrokerError {
  return new BrokerError("refresh_in_progress", "The provider takes its time; the retry goes on.", inSeconds(row, 1));
}

/** Why a row that had ended when it was read got no permit. */
function whyNoRetry(row: TokenRow): BrokerError {
  const reason = whyNotEnded(row);
  if (reason !== null) return reason;
  if (row.attemptId !== null && row.leaseUntil !== null) {
    const detail = "Another retry of this connection is under way, or nobody knows yet what became of it.";
    const isRunning = row.attemptOutcome === null && row.leaseUntil > row.now;
    const untilMs = row.leaseUntil.getTime() + refreshTimes.quietSeconds * 1000;
    const seconds = isRunning ? 1 : (untilMs - row.now.getTime()) / 1000;
    return new BrokerError("refresh_in_progress", detail, inSeconds(row, seconds));
  }
  const againMs = (row.retriedAt?.getTime() ?? 0) + refreshTimes.retryPauseSeconds * 1000;
  if (againMs > row.now.getTime()) {
    const detail = `An ended connection is tried once in ${refreshTimes.retryPauseSeconds} seconds at most.`;
    return new BrokerError("rate_limited", detail, inSeconds(row, (againMs - row.now.getTime()) / 1000));
  }
  const detail =
    "Another connection holds the same refresh token, or this one was just changed; look at it and try again.";
  return new BrokerError("conflict", detail, { connection: row.name });
}

/** The provider's answer as an error. If it says that the grant is over, the error is the one that the row gives. */
function failureOf(row: TokenRow, failure: Failure | undefined): BrokerError {
  if (failure === undefined) return whyNotEnded(row) ?? stillRunning(row);
  if (failure.class === "refused_for_good") {
    const detail = `The provider refuses the stored refresh token still; connect the account again. Its answer: ${failure.detail}`;
    return new BrokerError("needs_reauthorization", detail, { connection: row.name });
  }
  if (failure.class === "unknown") {
    const detail = `Nobody can tell what the provider made of the retry: ${failure.detail}. If its answer still comes, it is stored; else the connection has ended as before.`;
    return new BrokerError(
      "provider_unavailable",
      detail,
      inSeconds(row, refreshTimes.leaseSeconds + refreshTimes.quietSeconds),
    );
  }
  return refusal(row, failure);
}

function whyNotEnding(row: TokenRow): BrokerError {
  if (row.probablyDeadSince !== null && row.attemptId !== null && row.leaseUntil !== null) {
    const untilMs = row.leaseUntil.getTime() + refreshTimes.quietSeconds * 1000;
    const detail = "A request with its refresh token is on its way, or was just now; try again when it is over.";
    return new BrokerError("refresh_in_progress", detail, inSeconds(row, (untilMs - row.now.getTime()) / 1000));
  }
  const detail =
    "end: only a connection with attention probably_dead can be ended; disable this one, or delete it, if it is not to be used.";
  return new BrokerError("conflict", detail, { connection: row.name });
}
