import { LRUCache } from "lru-cache";
import { furtherTokenName, publicName } from "../text.ts";
import { type Clock, withDeadline } from "../clock.ts";
import { createSingleFlight } from "../concurrency.ts";
import type { Leases } from "../coordination/leases.ts";
import { BrokerError, connectionNotFound, isStorageUnavailable } from "../errors.ts";
import { binds, carries, type Labels } from "../labels.ts";
import { missingScopes } from "../providers/format/requirements.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import type { RefreshRules } from "../providers/format/definition.ts";
import { callerTimes, refreshTimes } from "../time.ts";
import type { DatabaseClock, KeptConnection, KnownConnection, TokenCache } from "./cache.ts";
import type { Lifecycle } from "./core.ts";
import type { Refresh, RefreshOutcome } from "./refresh.ts";
import {
  abandonedAtMs,
  hasWayToRefresh,
  explainNoRefreshToken,
  explainUnavailable,
  statusAllowsRefresh,
  mayEndWithItsToken,
  type Need,
} from "./row-rules.ts";
import type { Waiting } from "./waiting.ts";

type TokenWish = {
  /** What the connection must carry; else it is answered as one that does not exist. */
  labels: Labels;
  minTtlSeconds: number;
  rejectedVersion: number | null;
  waitSeconds: number;
  /** A further token of the connection, by name; null: its own. */
  furtherToken?: string | null;
  /** What `load` has read for this caller, whose patterns alone decide. */
  loaded?: Promise<KnownConnection | null> | undefined;
};

/** A row that is trusted, and whose token is fresh. */
export type FreshToken = { found: KeptConnection; expiresInSeconds: number | null };

export type TokenService = {
  /**
   * What `get` has for a caller without wishes, if it needs nothing but memory for it, and begins nothing. Null: ask `get`. Who is bound to labels
   * gets only what `get` has answered with these labels before, so the time tells nothing new about which connections exist.
   */
  fresh(name: string, labels: Labels): FreshToken | null;
  /** Reads the row, so that `fresh` may have it then. It is in memory, or costs a query, which many share. @throws BrokerError */
  load(name: string): Promise<KnownConnection | null>;
  /** Notes that it is handed out. */
  noteFresh(fresh: FreshToken): void;
  /** What `get` answers for it, the seconds aside. */
  issueFresh(fresh: FreshToken): IssuedToken;
  /**
   * @param name of the connection, or `nobodysName` of it if the caller's patterns do not cover it
   * @throws BrokerError when there is no usable token, with a code of docs/api.md
   */
  get(name: string, wish: TokenWish): Promise<IssuedToken>;
  /** Refreshes, whatever the newest token's age is. Joins a refresh under way. @throws BrokerError */
  refreshNow(name: string): Promise<void>;
  /** The same, for callers that want the failure. @throws BrokerError when no refresh can be tried */
  tryRefresh(name: string): Promise<RefreshOutcome>;
  /** Refreshes a due row before anybody needs it. Callers that come meanwhile share it. */
  refreshAhead(row: TokenRow): Promise<RefreshOutcome>;
  /** Resolves when no refresh runs in this process any more. */
  idle(): Promise<void>;
};

export type TokenServiceParts = {
  cache: TokenCache;
  catalog: Pick<Catalog, "get">;
  rows: Pick<TokenStatements, "endUnrefreshable" | "hasLabels">;
  reads: Pick<Reads, "note">;
  lifecycle: Lifecycle;
  /** Whether this is the only replica. */
  isAlone: () => boolean;
  /** Called for each connection whose token is handed out. */
  onServed: (connectionId: string) => void;
  leases: Leases;
  refresh: Refresh;
  waiting: Pick<Waiting, "forOthers">;
  clock: Clock;
  databaseClock: DatabaseClock;
  /** Called for errors in refreshes that nobody waits for. */
  onBackgroundError: (error: unknown) => void;
};

/**
 * How to refresh before answering. `usable`: if the refresh fails, return the current token with `warnings`. A refresh that
 * has failed adds `refresh_failing`.
 */
type RefreshBefore = { need: Need; usable: boolean; warnings: readonly WarningCode[] };

/** Steps 1 and 2 of docs/refresh-protocol.md. */
export function createTokenService(parts: TokenServiceParts): TokenService {
  const { cache, catalog, rows, leases, refresh, waiting, clock, databaseClock, reads, lifecycle, onBackgroundError } =
    parts;
  const flights = createSingleFlight<RefreshOutcome>();
  const labelChecks = createSingleFlight<boolean>();
  const carriers = createCarriers();
  const peers = watchPeerRefreshes({ leases, clock }, (id, generation) => cache.expireOlder(id, generation));

  const get: TokenService["get"] = async (connection, wish) => {
    const { furtherToken = null, labels, loaded } = wish;
    const bypass = wish.rejectedVersion !== null;
    const found =
      furtherToken === null
        ? await find(connection, { bypass, labels, loaded })
        : await findFurther(connection, furtherToken, { bypass, labels });
    const served = await serve(found, wish);
    const token = found.row.grant === "token_exchange" ? await warnOfOwner(connection, served) : served;
    // The connection may have ended since it was read, and its name may belong to another one now.
    if (cache.hasEnded(found)) return await get(connection, { ...wish, loaded: undefined });
    // Its labels may have changed meanwhile.
    const newest = binds(labels) ? cache.peek(connection) : null;
    if (newest !== null && !carries(newest.row.labels, labels)) throw connectionNotFound(publicName(connection));
    return token;
  };

  const serve = async (found: KnownConnection, wish: TokenWish): Promise<IssuedToken> => {
    const rules = rulesOf(found.row);
    const verdict = judgeFor(found, wish, rules);
    if (verdict.kind === "stale") {
      return await refreshAndIssue(found, wish, { need: "required", usable: verdict.usable, warnings: [] });
    }
    const startsRefresh = verdict.kind === "due" && shouldRefreshAhead(found.row);
    if (rules?.oldAccessTokenDies && (startsRefresh || isRefreshing(found.row))) {
      return await refreshAndIssue(found, wish, { need: "ahead", usable: true, warnings: verdict.warnings });
    }
    if (startsRefresh) fly(found.row, "ahead").catch(onBackgroundError);
    return issue(found, verdict.warnings);
  };

  const refreshAndIssue = async (found: KnownConnection, wish: TokenWish, how: RefreshBefore): Promise<IssuedToken> => {
    const { usable, warnings } = how;
    if (!statusAllowsRefresh(found.row)) {
      if (usable) return issue(found, warnings);
      throw unavailable(found.row);
    }
    // If the access token cannot be opened, a refresh brings a new one. Do not refresh if this replica only lacks the key: another replica can
    // open the token.
    const { unreadable } = found;
    const cannotServeHere = unreadable !== null && (!hasWayToRefresh(found.row) || unreadable.reason === "unknown_key");
    if (cannotServeHere) throw unreadable;
    if (!hasWayToRefresh(found.row)) return usable ? issue(found, []) : await endUnrefreshable(found);
    if (isInBackoff(found.row)) {
      if (usable) return issue(found, warnings);
      // The back-off may be over because somebody has corrected the cause, so read the row once more before giving up.
      const { row } = await find(found.row.name, { bypass: true });
      if (row.generation === found.row.generation && isInBackoff(row)) throw unavailable(row);
    }
    const failing: WarningCode[] = lifecycle.isDraining ? [] : ["refresh_failing"];
    const issueOld = (): IssuedToken | null => {
      if (cache.hasEnded(found)) return null;
      parts.onServed(found.row.id);
      return issueToken(found, [...warnings, ...failing], databaseClock.nowMs());
    };
    // Without Postgres nothing can be refreshed, so a caller with a valid token does not wait.
    const tokenDuringOutage = usable && cache.isSilent() ? issueOld() : null;
    if (tokenDuringOutage !== null) return tokenDuringOutage;
    try {
      return await refreshFirst(found, wish, how);
    } catch (error) {
      // Postgres or Redis failed. The token is still valid, so hand it out.
      const isPassing = usable && error instanceof BrokerError && !meansNoToken(error);
      const stillGood = isPassing ? issueOld() : null;
      if (stillGood !== null) return stillGood;
      throw error;
    }
  };

  /** Waits for a refresh as long as the caller wants to, and then answers with the newest token. */
  const refreshFirst = async (found: KnownConnection, wish: TokenWish, how: RefreshBefore): Promise<IssuedToken> => {
    const giveUpAtMs = clock.monotonicMs() + wish.waitSeconds * 1000;
    const outcome = await withDeadline(fly(found.row, how.need), wish.waitSeconds * 1000, clock);
    const isLeft = outcome?.kind === "left";
    // Do not wait for other replicas if there are none, or if the current token can be used.
    if (isLeft && !how.usable && parts.isAlone()) throw shuttingDown(found.row.name);
    if (isLeft && !how.usable) await waiting.forOthers(found.row, giveUpAtMs);
    const newest = await find(found.row.name, { bypass: outcome === null || isLeft });
    if (newest.row.version > found.row.version) {
      const waitSeconds = Math.max(0, giveUpAtMs - clock.monotonicMs()) / 1000;
      if (newest.row.version === wish.rejectedVersion) return await serve(newest, { ...wish, waitSeconds });
      return issue(newest, warningsAfterRefresh(judgeFor(newest, wish, rulesOf(newest.row))));
    }
    if (how.usable) return issue(newest, how.warnings);
    throw unavailable(newest.row);
  };

  const tryRefresh = async (name: string): Promise<RefreshOutcome> => {
    const { row } = await find(name, { bypass: true });
    if (!statusAllowsRefresh(row)) throw unavailable(row);
    if (!hasWayToRefresh(row)) {
      const detail = "This connection has no refresh token to refresh with.";
      throw new BrokerError("grant_not_applicable", detail, { connection: name });
    }
    const outcome = await withDeadline(fly(row, "required"), refreshTimes.orderedRefreshMs, clock);
    if (outcome?.kind === "left") throw shuttingDown(name);
    if (outcome !== null) return outcome;
    throw new BrokerError("refresh_in_progress", "The provider takes its time; the refresh goes on.", {
      connection: name,
      retryAfterSeconds: refreshTimes.retryAfterMinSeconds,
    });
  };

  /** There is nothing to refresh with, so a person must connect again. A rejection by one caller does not end a token that others may still use. */
  const endUnrefreshable = async (found: KnownConnection): Promise<never> => {
    const detail = "The access token has run out or was rejected, and the provider gave no refresh token.";
    if (issueToken(found, [], databaseClock.nowMs()) !== null) {
      throw new BrokerError("needs_reauthorization", detail, { connection: found.row.name });
    }
    const ended = await rows.endUnrefreshable(found.row, { code: "no_refresh_token", detail });
    throw unavailable(ended === null ? found.row : cache.learn(ended).row);
  };

  /** A token that is exchanged for the connection's own token ends with the connection, so it gets that connection's warning. */
  const warnOfOwner = async (connection: string, token: IssuedToken): Promise<IssuedToken> => {
    const owner = await cache.read(connection).catch(() => null); // without the connection's row the token is still handed out
    if (owner === null || !mayEndWithItsToken(owner.row)) return token;
    return { ...token, warnings: [...token.warnings, noRefreshToken(owner.row)] };
  };

  const fly = (row: TokenRow, need: Need): Promise<RefreshOutcome> =>
    flights.run(flightKey(row, need), async () => {
      const outcome = await refresh(row, need);
      if (outcome.row === null) cache.expire(row.name);
      else if (outcome.kind !== "left") cache.learn(outcome.row);
      return outcome;
    });

  const rulesOf = (row: TokenRow) => catalog.get(row.provider)?.refresh;

  /** Whether the old access token has most likely ended: the answer to a refresh was lost, but the provider has most likely done that refresh. */
  const isKilled = (row: TokenRow): boolean =>
    row.status === "needs_reauthorization" &&
    row.lastErrorCode === "refresh_outcome_lost" &&
    rulesOf(row)?.oldAccessTokenDies === true;

  const isRefreshing = (row: Pick<TokenRow, "id" | "generation">): boolean =>
    flights.isRunning(flightKey(row, "required"), flightKey(row, "ahead")) || peers.isRunning(row.id, row.generation);

  const isInBackoff = ({ backoffUntil }: TokenRow): boolean =>
    backoffUntil !== null && backoffUntil.getTime() > databaseClock.nowMs();

  /** Whether to begin a refresh ahead: it is possible, nobody is sending, and no back-off is running. */
  const shouldRefreshAhead = (row: TokenRow): boolean =>
    !lifecycle.isDraining &&
    hasWayToRefresh(row) &&
    statusAllowsRefresh(row) &&
    !isInBackoff(row) &&
    row.attemptId === null;

  const unavailable = (row: TokenRow): BrokerError => {
    const rules = rulesOf(row);
    const endMs = rules === undefined ? null : abandonedAtMs(row, rules);
    return explainUnavailable(row, { nowMs: databaseClock.nowMs(), abandonedAtMs: endMs });
  };

  const issue = (found: KnownConnection, codes: readonly WarningCode[]): IssuedToken => {
    const token = issueToken(found, codes, databaseClock.nowMs());
    if (token === null) throw unavailable(found.row);
    reads.note(found.row);
    parts.onServed(found.row.id);
    return token;
  };

  const judgeFor = (
    { row, accessToken }: KnownConnection,
    wish: TokenWish,
    timing: RefreshTiming = { aheadFraction: 0, minAgeSeconds: 0 },
  ): Verdict => {
    const isBehind = wish.rejectedVersion !== null && wish.rejectedVersion > row.version && row.attemptId !== null;
    // `isBehind`: another replica has handed out the attempt's token already, and is still storing it.
    if (isBehind || accessToken === null || row.issuedAt === null) {
      return { kind: "stale", usable: false, warnings: [] };
    }
    const lifetime = { issuedAtMs: row.issuedAt.getTime(), expiresAtMs: row.expiresAt?.getTime() ?? null };
    const rejected = wish.rejectedVersion === row.version;
    return judge(lifetime, { minTtlSeconds: wish.minTtlSeconds, rejected }, { timing, nowMs: databaseClock.nowMs() });
  };

  /**
   * Reads the row, from Postgres if this process doubts its database clock: the answer corrects the clock. If Postgres is away, the clock is
   * used as it is.
   */
  const readRow = async (name: string, bypass: boolean): Promise<KnownConnection | null> => {
    if (bypass || !databaseClock.isDoubtful() || cache.isSilent()) return await cache.read(name, { bypass });
    return await cache.read(name, { bypass: true }).catch(() => cache.read(name));
  };

  /**
   * The row, if it carries these labels; null: it does not, or there is none. The answer does not show which of the two, nor does what is in memory:
   * what was not answered with these labels before costs one query, which finds nothing.
   */
  const readLabelled = async (
    name: string,
    { bypass, labels }: { bypass: boolean; labels: Labels },
  ): Promise<KnownConnection | null> => {
    if (!binds(labels)) return await readRow(name, bypass);
    if (!carriers.has(name, labels)) return await readUnknown(name, { bypass, labels });
    const found = await readRow(name, bypass);
    if (found !== null && carries(found.row.labels, labels)) return found;
    carriers.delete(name, labels);
    return null;
  };

  /** The same for a row of which is not known that it carries them. */
  const readUnknown = async (name: string, { bypass, labels }: { bypass: boolean; labels: Labels }) => {
    const ask = async () => await rows.hasLabels(name, labels);
    try {
      if (!(await labelChecks.run(JSON.stringify([name, labels]), ask))) return null;
      const found = await readRow(name, true);
      if (found === null || !carries(found.row.labels, labels)) return null;
      carriers.add(name, labels);
      return found;
    } catch (error) {
      // Postgres is away. What was read before can still be handed out.
      const known = isStorageUnavailable(error) && !bypass ? cache.peek(name) : null;
      if (known === null || !carries(known.row.labels, labels)) throw error;
      return known;
    }
  };

  type Finding = { bypass: boolean; labels?: Labels; loaded?: TokenWish["loaded"] };
  const find = async (name: string, { bypass, labels = {}, loaded }: Finding) => {
    const found = await (loaded ?? readLabelled(name, { bypass, labels }));
    // What was loaded for another name is not this one's.
    if (found === null || found.row.name !== name) throw connectionNotFound(publicName(name));
    requireProven(found);
    if (found.row.status === "disabled" || isKilled(found.row)) throw unavailable(found.row);
    return found;
  };

  /** A further token has no labels of its own: those of its connection count. */
  const findFurther = async (
    connection: string,
    furtherToken: string,
    { bypass, labels }: { bypass: boolean; labels: Labels },
  ): Promise<KnownConnection> => {
    if (binds(labels)) {
      const owner = await readLabelled(connection, { bypass: false, labels });
      if (owner === null) throw connectionNotFound(publicName(connection));
      requireProven(owner);
    }
    return await find(furtherTokenName(connection, furtherToken), { bypass }).catch(async (error: unknown) => {
      throw isMissing(error) ? await missingFurtherToken(parts, connection, furtherToken) : error;
    });
  };

  /** Finds out, once for a row, how long it can be handed out as it is. */
  const judgeFreshness = (found: KeptConnection): void => {
    const { row, accessToken, unreadable } = found;
    const rules = rulesOf(row);
    found.freshUntilMs = freshUntilMs({ row, accessToken, unreadable }, rules);
    found.endsByRefresh = rules?.oldAccessTokenDies === true;
  };

  return {
    get,
    fresh(name, labels) {
      if (binds(labels) && !carriers.has(name, labels)) return null;
      const found = cache.trusted(name);
      if (found === null || databaseClock.isDoubtful()) return null;
      const nowMs = databaseClock.nowMs();
      if (Number.isNaN(found.freshUntilMs)) judgeFreshness(found);
      if (nowMs >= found.freshUntilMs || (found.endsByRefresh && isRefreshing(found))) return null;
      const { expiresAtMs } = found;
      return { found, expiresInSeconds: expiresAtMs === Infinity ? null : Math.floor((expiresAtMs - nowMs) / 1000) };
    },
    load: async (name) => await readRow(name, false),
    noteFresh({ found }) {
      reads.note(found);
      parts.onServed(found.id);
    },
    issueFresh: ({ found }) => issueToken(found, [], databaseClock.nowMs()) as IssuedToken,
    tryRefresh,
    refreshAhead: (row) => fly(row, "ahead"),

    async refreshNow(name) {
      const outcome = await tryRefresh(name);
      if (outcome.row === null) throw connectionNotFound(name);
      if (outcome.kind === "failed") throw unavailable(outcome.row);
    },

    idle: () => flights.idle(),
  };
}

/** The error for a missing further token, or for a missing connection. */
async function missingFurtherToken(
  { cache, catalog }: TokenServiceParts,
  name: string,
  wanted: string,
): Promise<BrokerError> {
  const found = await cache.read(name);
  if (found === null) return connectionNotFound(publicName(name));
  const known = catalog.get(found.row.provider)?.furtherTokens.map((one) => one.name) ?? [];
  if (known.includes(wanted)) {
    const detail = `The provider has given no token "${wanted}" yet; connect the account with the scopes that it takes.`;
    return new BrokerError("authorization_pending", detail, { connection: name });
  }
  const has = known.length === 0 ? "this provider gives none" : `this provider gives ${known.join(", ")}`;
  return new BrokerError("invalid_request", `token: there is no further token "${wanted}"; ${has}.`);
}

function shuttingDown(connection: string): BrokerError {
  const detail = "This replica is shutting down and begins no refresh; ask again.";
  return new BrokerError("refresh_in_progress", detail, {
    connection,
    retryAfterSeconds: refreshTimes.retryAfterMinSeconds,
  });
}

/** A row that somebody else has written is not trusted in anything. @throws UnreadableSecretError */
function requireProven({ unreadable }: KnownConnection): void {
  if (unreadable?.place.column === "mac") throw unreadable;
}

function isMissing(error: unknown): boolean {
  return error instanceof BrokerError && error.code === "connection_not_found";
}

/** A caller that needs a token does not share a refresh ahead, since that one may end without a token. */
function flightKey({ id, generation }: Pick<TokenRow, "id" | "generation">, need: Need): string {
  return `${id}:${generation}:${need}`;
}

/** A call causes at most one refresh. If the new token does not live long enough either, the caller gets a warning instead. */
function warningsAfterRefresh(verdict: Verdict): WarningCode[] {
  return verdict.kind === "stale" ? ["min_ttl_exceeds_lifetime"] : verdict.warnings;
}

/** Whether an error ends the use of every token of the connection. After any other error a valid token is still handed out. */
function meansNoToken({ code }: BrokerError): boolean {
  return code === "connection_disabled" || code === "connection_not_found" || code === "needs_reauthorization";
}

/** When the newest token of a connection was issued and when it expires, by Postgres's clock. */
export type Lifetime = { issuedAtMs: number; /** Null: never. */ expiresAtMs: number | null };

/** What the definition says about when to refresh. */
export type RefreshTiming = {
  /** The last part of a token's life, in which it is refreshed ahead: 0.25 is the last quarter. */
  aheadFraction: number;
  /** The provider refuses to refresh a token younger than this. */
  minAgeSeconds: number;
};

export type Wish = {
  /** The token should live at least this long. */
  minTtlSeconds: number;
  /** The provider has rejected the newest token. */
  rejected: boolean;
};

type FreshnessWarning = "min_ttl_exceeds_lifetime" | "recently_refreshed";

/**
 * - `fresh`: hand it out.
 * - `due`: hand it out, and start a refresh behind it.
 * - `stale`: refresh first. `usable` tells whether it may still be handed out when that fails.
 */
export type Verdict =
  | { kind: "fresh" | "due"; warnings: FreshnessWarning[] }
  | { kind: "stale"; usable: boolean; warnings: FreshnessWarning[] };

/**
 * Until when `get` hands a row's token out to a caller without wishes and begins nothing, by Postgres's clock; -Infinity: never. A test holds it
 * against `judge`.
 */
export function freshUntilMs(
  { row, accessToken, unreadable }: Pick<KnownConnection, "row" | "accessToken" | "unreadable">,
  rules: RefreshRules | undefined,
): number {
  const isPlain =
    accessToken !== null &&
    unreadable === null &&
    row.status === "connected" &&
    row.issuedAt !== null &&
    row.grant !== "token_exchange" &&
    row.lastErrorCode === null;
  if (!isPlain || row.issuedAt === null) return -Infinity;
  if (row.expiresAt === null) return Infinity;
  const expiresAtMs = row.expiresAt.getTime();
  const lifeMs = expiresAtMs - row.issuedAt.getTime();
  return expiresAtMs - Math.max(callerTimes.minTtlSeconds * 1000, (rules?.aheadFraction ?? 0) * lifeMs);
}

/** True while the provider would still accept the token. */
export function isLive({ expiresAtMs }: Lifetime, nowMs: number): boolean {
  return expiresAtMs === null || expiresAtMs > nowMs;
}

/** Judges the newest token. At most half of the token's lifetime is honoured as `minTtlSeconds`: more would refresh the token with every call. */
export function judge(
  lifetime: Lifetime,
  wish: Wish,
  { timing, nowMs }: { timing: RefreshTiming; nowMs: number },
): Verdict {
  const { issuedAtMs, expiresAtMs } = lifetime;
  const lifeMs = expiresAtMs === null ? Infinity : expiresAtMs - issuedAtMs;
  const remainingMs = expiresAtMs === null ? Infinity : expiresAtMs - nowMs;
  const ageMs = nowMs - issuedAtMs;
  if (wish.rejected) return judgeRejected({ ageMs, lifeMs, remainingMs });
  if (remainingMs <= 0) return { kind: "stale", usable: false, warnings: [] };
  const wishedMs = wish.minTtlSeconds * 1000;
  const warnings: FreshnessWarning[] = remainingMs < wishedMs ? ["min_ttl_exceeds_lifetime"] : [];
  if (ageMs < timing.minAgeSeconds * 1000) return { kind: "fresh", warnings };
  if (remainingMs < Math.min(wishedMs, lifeMs / 2)) return { kind: "stale", usable: true, warnings };
  const isDue = expiresAtMs !== null && remainingMs <= timing.aheadFraction * lifeMs;
  return { kind: isDue ? "due" : "fresh", warnings };
}

/** A token this young was most likely refreshed between the caller's failed request and its report, so it is handed out once more. */
function judgeRejected({
  ageMs,
  lifeMs,
  remainingMs,
}: {
  ageMs: number;
  lifeMs: number;
  remainingMs: number;
}): Verdict {
  const young = ageMs < Math.min(refreshTimes.recentlyRefreshedMs, lifeMs / 4);
  if (young && remainingMs > 0) return { kind: "fresh", warnings: ["recently_refreshed"] };
  return { kind: "stale", usable: false, warnings: [] };
}

export const warningCodes = [
  "min_ttl_exceeds_lifetime",
  "recently_refreshed",
  "refresh_failing",
  "no_refresh_token",
  "lifetime_unreadable",
] as const;
export type WarningCode = FreshnessWarning | "refresh_failing";
type Warning = { code: (typeof warningCodes)[number]; detail: string };

/** What a caller gets. The only type that leaves the token core with a secret: the access token. */
export type IssuedToken = {
  connection: string;
  /** Which further token of the connection it is; null: its own. */
  token: string | null;
  accessToken: string;
  tokenType: string;
  /** Null: it does not expire. */
  expiresAt: Date | null;
  /** Whole seconds left, by Postgres's clock. */
  expiresInSeconds: number | null;
  scopes: string[];
  /** Asked for and not granted. */
  missingScopes: string[];
  version: number;
  warnings: Warning[];
};

const details: Record<WarningCode, string> = {
  min_ttl_exceeds_lifetime: "The provider's tokens do not live as long as min_ttl asks for; this is the newest one.",
  recently_refreshed: "The rejected version is only seconds old; the same token is returned once more.",
  refresh_failing: "The token is still valid, but its refresh is failing; see the connection's last_error.",
};

/** The newest token with its warnings; null if there is none or it has expired. An expired token is never handed out. */
export function issueToken(
  { row, accessToken }: Pick<KnownConnection, "row" | "accessToken">,
  codes: readonly WarningCode[],
  nowMs: number,
): IssuedToken | null {
  const remainingMs = row.expiresAt === null ? Infinity : row.expiresAt.getTime() - nowMs;
  if (accessToken === null || remainingMs <= 0) return null;
  const failing: WarningCode[] = row.lastErrorCode === null ? [] : ["refresh_failing"];
  return {
    connection: publicName(row.name),
    token: row.chain,
    accessToken,
    tokenType: row.tokenType ?? "Bearer",
    expiresAt: row.expiresAt,
    expiresInSeconds: row.expiresAt === null ? null : Math.floor(remainingMs / 1000),
    scopes: row.grantedScopes,
    missingScopes: missingOf(row),
    version: row.version,
    warnings: [
      ...[...new Set([...codes, ...failing])].map((code) => ({ code, detail: details[code] })),
      ...(mayEndWithItsToken(row) ? [noRefreshToken(row)] : []),
      ...(row.unreadableLifetime ? [unreadableLifetime] : []),
    ],
  };
}

const unreadableLifetime: Warning = {
  code: "lifetime_unreadable",
  detail:
    "The provider's answer states how long a token lives in a way that cannot be read. The definition's fallback counts, else an hour; correct `response.expires` or `response.refresh_expires` of the definition.",
};

/** The scopes of a further token were not asked for one by one, so none can be missing. */
function missingOf({ chain, scopes, grantedScopes, refreshToken, grant }: KnownConnection["row"]): string[] {
  return chain === null
    ? missingScopes(scopes, { granted: grantedScopes, hasRefreshToken: refreshToken !== null, grant })
    : [];
}

/** The warning that this connection ends with this token. */
function noRefreshToken(row: KnownConnection["row"]): Warning {
  return {
    code: "no_refresh_token",
    detail: explainNoRefreshToken({ ...row, hasRefreshToken: row.refreshToken !== null }),
  };
}

/** The refreshes that replicas have announced as running. Only a hint, since messages may be lost. */
export type PeerRefreshes = { isRunning(connectionId: string, generation: number): boolean };

/** Connections that were found to carry a caller's labels: these need no query of their own. Anything may be forgotten. */
function createCarriers() {
  const found = new LRUCache<string, true>({ maxSize: maxCarriers, sizeCalculation: () => 1 });
  const keyOf = (name: string, labels: Labels) => `${name} ${textOf(labels)}`;
  const texts = new WeakMap<Labels, string>();
  const textOf = (labels: Labels): string => {
    const known = texts.get(labels);
    if (known !== undefined) return known;
    const text = JSON.stringify(labels);
    texts.set(labels, text);
    return text;
  };
  return {
    has: (name: string, labels: Labels): boolean => found.get(keyOf(name, labels)) === true,
    add: (name: string, labels: Labels): void => void found.set(keyOf(name, labels), true),
    delete: (name: string, labels: Labels): void => void found.delete(keyOf(name, labels)),
  };
}

const maxCarriers = 100_000;
const maxRemembered = 10_000;

/** @param onEnd called when a refresh of a generation has ended, also if it failed: cached rows of it may be old */
export function watchPeerRefreshes(
  { leases, clock }: { leases: Leases; clock: Clock },
  onEnd: (connectionId: string, generation: number) => void,
): PeerRefreshes {
  const runningUntilMs = new LRUCache<string, number>({ maxSize: maxRemembered, sizeCalculation: () => 1 });
  leases.listen(({ connection, generation, outcome }) => {
    const key = `${connection}:${generation}`;
    if (outcome === "started") {
      // An announced refresh counts as running only as long as its permit, in case the message of its end is lost.
      runningUntilMs.set(key, clock.monotonicMs() + refreshTimes.leaseSeconds * 1000);
    } else {
      runningUntilMs.delete(key);
      onEnd(connection, generation);
    }
  });
  return {
    isRunning: (connectionId, generation) =>
      (runningUntilMs.get(`${connectionId}:${generation}`) ?? 0) > clock.monotonicMs(),
  };
}

/**
 * Records which tokens are in use, so that they are refreshed before somebody needs them. A read itself writes nothing. This does not record
 * callers; only http/routes/tokens.ts knows them.
 */
export type Reads = {
  note(row: Pick<TokenRow, "id" | "generation" | "inUse">): void;
  /** The tokens that were read for the first time since the last call. */
  take(): { id: string; generation: number }[];
  /** They could not be noted in the store, so the next call returns them again. */
  giveBack(read: readonly { id: string; generation: number }[]): void;
};

/** A row tells some seconds later that it is in use. One that is forgotten before is noted twice. */
const maxNoted = 10_000;

export function createReads(): Reads {
  const noted = new LRUCache<string, number>({ maxSize: maxNoted, sizeCalculation: () => 1 });
  const fresh = new Map<string, number>();
  return {
    note({ id, generation, inUse }) {
      if (inUse || noted.get(id) === generation) return;
      noted.set(id, generation);
      fresh.set(id, generation);
    },
    take() {
      const all = [...fresh].map(([id, generation]) => ({ id, generation }));
      fresh.clear();
      return all;
    },
    giveBack(read) {
      for (const { id, generation } of read) if (!fresh.has(id)) fresh.set(id, generation);
    },
  };
}
