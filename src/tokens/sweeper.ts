import { type Clock, withDeadline } from "../clock.ts";
import { isStorageUnavailable } from "../errors.ts";
import type { Failure } from "../providers/oauth/token-answer.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { refreshTimes } from "../time.ts";
import type { RefreshOutcome } from "./refresh.ts";
import type { Reads } from "./read.ts";
import { backoffSeconds, hasWayToRefresh } from "./row-rules.ts";

export type Sweeper = {
  /** Sweeps until `stop`. */
  start(): void;
  /** Claims nothing more. Work that runs goes on. */
  stop(): void;
  /** Notes the tokens that were read since the last sweep, so that other replicas refresh them ahead. Never rejects. */
  markInUse(): Promise<void>;
};

export type SweeperParts = {
  rows: Pick<TokenStatements, "claimDue" | "postpone" | "markInUse" | "tidy">;
  reads: Reads;
  /** The core's own refresh, shared with callers. */
  refreshAhead: (row: TokenRow) => Promise<RefreshOutcome>;
  /** The host that a row's token request goes to. */
  tokenHost: (row: TokenRow) => Promise<string>;
  /** Polls for user codes. */
  pollDevices: () => Promise<void>;
  /** Recovers when Postgres or Redis has come back. */
  recover: () => Promise<void>;
  /** Frees the permits of abandoned retries. */
  lapseRetries: () => Promise<void>;
  clock: Clock;
  random: () => number;
  onError: (error: unknown) => void;
};

/** How many refreshes run at a time: in this process, and with one token host; and how many rows one claim takes. */
const maxRunning = 64;
const requestsPerHost = 8;
const perClaim = 16;
/** If so many rows of one provider wait for a turn, no more of its rows are claimed. */
const maxQueued = 8;

/** Refreshes due rows ahead of callers, and takes over abandoned attempts. Its cost depends on what is due, not on what is stored. */
export function createSweeper(parts: SweeperParts): Sweeper {
  const { rows, reads, refreshAhead, tokenHost, clock, random, onError } = parts;
  const gates = createHostGates({ perHost: requestsPerHost, monotonicMs: () => clock.monotonicMs(), random });
  const running = new Map<string, { provider: string; isQueued: boolean }>();
  /** Those that wait for a turn at their host, in the order in which they came. */
  const turns = new Set<{ ways: Ways; come: () => void }>();
  /** Resolves when rows can be claimed that could not be before. */
  let room = Promise.withResolvers<void>();
  const stopped = new AbortController();
  let tidiedMs = -Infinity;
  let lapsedMs = -Infinity;

  const queuedOf = (provider: string): number =>
    [...running.values()].filter((one) => one.isQueued && one.provider === provider).length;
  const busyProviders = (): string[] => {
    const providers = new Set([...running.values()].map(({ provider }) => provider));
    return [...providers].filter((provider) => queuedOf(provider) >= maxQueued);
  };

  const waitSeconds = (ways: Ways): number => Math.max(gates.waitSeconds(ways.host), gates.waitSeconds(ways.client));
  const isOpen = ({ host, client }: Ways): boolean => gates.isOpen(host) && gates.isOpen(client);

  /** Waits until it may be its turn, but not for long, since a gate may open by itself. */
  const nextTurn = async (ways: Ways): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const turn = { ways, come: resolve };
    turns.add(turn);
    await withDeadline(promise, refreshTimes.sweepAgainMs, clock);
    turns.delete(turn);
  };

  /** A request has ended: the first of those that may go now has its turn. */
  const callNext = (): void => {
    for (const turn of turns) {
      if (!isOpen(turn.ways)) continue;
      turns.delete(turn);
      return turn.come();
    }
  };

  /** Waits for a turn at the host. False: that would take too long, so another replica may take the row. */
  const enter = async (ways: Ways): Promise<boolean> => {
    const giveUpMs = clock.monotonicMs() + (refreshTimes.claimSeconds * 1000) / 2;
    while (!isOpen(ways)) {
      const isLong = waitSeconds(ways) * 1000 > refreshTimes.sweepMs;
      if (isLong || stopped.signal.aborted || clock.monotonicMs() >= giveUpMs) return false;
      await nextTurn(ways);
    }
    gates.enter(ways.host);
    gates.enter(ways.client);
    return true;
  };

  const leave = (ways: Ways, failure: Failure | undefined): void => {
    gates.leave(ways.host, troubleOf(failure));
    // The limits may throttle one client and admit another.
    const { isOfClient, retryAfterSeconds } = failure ?? {};
    gates.leave(ways.client, isOfClient === true ? { retryAfterSeconds } : undefined);
    callNext();
  };

  /** Notes what became of a row in hand; null: it is not in hand any more. Rows that were left because of it can be claimed now. */
  const note = (row: TokenRow, state: { isQueued: boolean } | null): void => {
    const { provider } = row;
    const wasFull = queuedOf(provider) >= maxQueued || running.size >= maxRunning;
    if (state === null) running.delete(row.id);
    else running.set(row.id, { provider, ...state });
    if (wasFull && queuedOf(provider) < maxQueued && running.size < maxRunning) room.resolve();
  };

  const refresh = async (row: TokenRow): Promise<void> => {
    const host = await tokenHost(row);
    const ways = { host, client: `${host} ${row.clientRef ?? row.provider}` };
    if (!(await enter(ways))) {
      // With jitter, so that they do not all come when the wait ends.
      return await rows.postpone(row, waitSeconds(ways) * (1 + random()) + random());
    }
    note(row, { isQueued: false });
    let outcome: RefreshOutcome | undefined;
    try {
      outcome = await refreshAhead(row);
    } finally {
      leave(ways, outcome?.failure);
    }
    // Claimed just before the shutdown began: give it back, so that other replicas need not wait for the end of the claim.
    if (outcome.kind === "left") await rows.postpone(row, 0);
  };

  const begin = (row: TokenRow): void => {
    note(row, { isQueued: true });
    const work = !hasWayToRefresh(row) ? rows.postpone(row, null) : refresh(row);
    void work.catch(onError).finally(() => note(row, null));
  };

  /** True if more rows are due than could be claimed. */
  const sweep = async (): Promise<boolean> => {
    const limit = Math.min(maxRunning - running.size, perClaim);
    if (limit <= 0) return true;
    const due = await rows.claimDue({ limit, claimSeconds: refreshTimes.claimSeconds, busyProviders: busyProviders() });
    for (const row of due) if (!running.has(row.id)) begin(row);
    return due.length === limit;
  };

  const markInUse = async (): Promise<void> => {
    const read = reads.take();
    if (read.length === 0) return;
    const left = await rows.markInUse(read).catch((error: unknown) => {
      reads.giveBack(read);
      throw error;
    });
    reads.giveBack(left);
  };

  const tidy = async (): Promise<void> => {
    if (clock.monotonicMs() - tidiedMs < refreshTimes.tidyMs) return;
    tidiedMs = clock.monotonicMs();
    await rows.tidy();
  };

  const lapse = async (): Promise<void> => {
    if (clock.monotonicMs() - lapsedMs < refreshTimes.lapseMs) return;
    lapsedMs = clock.monotonicMs();
    await parts.lapseRetries();
  };

  /** If one kind of work fails, the others are still done. */
  const attempt = async <Result>(work: () => Promise<Result>): Promise<Result | null> => {
    try {
      return await work();
    } catch (error) {
      if (!isStorageUnavailable(error)) onError(error);
      return null;
    }
  };

  let recovering: Promise<void | null> | null = null;
  /** Recovery comes first, but due rows wait for it at most one round: storing an answer may have to wait for a locked row. */
  const recoverFirst = async (): Promise<void> => {
    recovering ??= attempt(parts.recover).finally(() => (recovering = null));
    await withDeadline(recovering, refreshTimes.sweepMs, clock);
  };

  const round = async (): Promise<boolean> => {
    await recoverFirst();
    await attempt(markInUse);
    const isMoreDue = await attempt(sweep);
    await attempt(parts.pollDevices);
    await attempt(lapse);
    await attempt(tidy);
    return isMoreDue ?? false;
  };

  const loop = async (): Promise<void> => {
    // With jitter, so that replicas that start together do not sweep together.
    await clock.sleep(random() * refreshTimes.sweepMs, stopped.signal);
    while (!stopped.signal.aborted) {
      room = Promise.withResolvers<void>();
      const pauseMs = (await round()) ? refreshTimes.sweepAgainMs : refreshTimes.sweepMs;
      await withDeadline(room.promise, pauseMs * (0.75 + random() / 2), clock);
    }
  };

  return {
    start: () => void loop(),
    stop() {
      stopped.abort();
      room.resolve();
      for (const { come } of turns) come();
    },
    markInUse: async () => void (await attempt(markInUse)),
  };
}

/** The gates of a row's request: one for its token host, and one for its client at that host. */
type Ways = { host: string; client: string };

type Trouble = { retryAfterSeconds: number | undefined } | undefined;

/** Whether a failure is about the host and not about one connection. */
function troubleOf(failure: Failure | undefined): Trouble {
  if (failure === undefined) return undefined;
  const isBusy = failure.class === "refused_for_now" && (failure.status === 429 || (failure.status ?? 500) >= 500);
  const isAway = failure.code === "connect_failed" || failure.code === "outcome_unknown";
  return isBusy || isAway ? { retryAfterSeconds: failure.retryAfterSeconds } : undefined;
}

/** How many requests the sweeper has with each token host, and which hosts it leaves alone for now. */
export type HostGates = {
  /** Whether another request may go to the host now. */
  isOpen(host: string): boolean;
  enter(host: string): void;
  /** `trouble`: the host refused or was away; undefined: it answered. */
  leave(host: string, trouble?: { retryAfterSeconds: number | undefined }): void;
  /** Seconds until the host may be asked again; 0: now, or when another request has ended. */
  waitSeconds(host: string): number;
};

type Gate = { running: number; failures: number; closedUntilMs: number };

type Options = { perHost: number; monotonicMs: () => number; random: () => number };

/** After trouble a host is left alone for a while, with full jitter, and then gets one request before it gets many. */
export function createHostGates({ perHost, monotonicMs, random }: Options): HostGates {
  const gates = new Map<string, Gate>();
  const gateOf = (host: string): Gate => gates.get(host) ?? { running: 0, failures: 0, closedUntilMs: 0 };
  const limitOf = ({ failures }: Gate) => (failures > 0 ? 1 : perHost);
  return {
    isOpen(host) {
      const gate = gateOf(host);
      return gate.running < limitOf(gate) && gate.closedUntilMs <= monotonicMs();
    },
    enter(host) {
      const gate = gateOf(host);
      gates.set(host, { ...gate, running: gate.running + 1 });
    },
    leave(host, trouble) {
      const gate = gateOf(host);
      const running = Math.max(gate.running - 1, 0);
      if (trouble === undefined) {
        // The pause that the host asked for stays, even if a request that was under way has succeeded.
        const isClosed = gate.closedUntilMs > monotonicMs();
        if (running === 0 && !isClosed) gates.delete(host);
        else gates.set(host, { ...gate, running, failures: isClosed ? gate.failures : 0 });
        return;
      }
      const waitMs = backoffSeconds(gate.failures, trouble.retryAfterSeconds, random) * 1000;
      const closedUntilMs = Math.max(gate.closedUntilMs, monotonicMs() + waitMs);
      gates.set(host, { running, failures: gate.failures + 1, closedUntilMs });
    },
    waitSeconds: (host) => Math.max(0, gateOf(host).closedUntilMs - monotonicMs()) / 1000,
  };
}
