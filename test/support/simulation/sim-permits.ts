import type { createGrantEndStatements } from "../../../src/store/grant-ends.ts";
import type { createPermitStatements, PermitRequest } from "../../../src/store/permits.ts";
import {
  after,
  failureColumns,
  freePermit,
  greatest,
  nextDue,
  abandonedDue,
  type SimRow,
  statusColumns,
} from "./sim-row.ts";
import { isOwned, type SimTables } from "./sim-tables.ts";
import type { Sync } from "./sync.ts";

/** store/permits.ts and store/grant-ends.ts, in memory. */
export function permitStatements(
  tables: SimTables,
): Sync<ReturnType<typeof createPermitStatements> & ReturnType<typeof createGrantEndStatements>> {
  return {
    noteUnprepared() {},

    takePermit(request) {
      const { attemptId, leaseSeconds, ifAbandoned } = request;
      const leaseUntil = after(tables.nowMs(), leaseSeconds);
      const sharing = request.exclusive ? sharingWith(tables, request.connectionId) : [];
      if (sharing.some(({ attemptId: busy }) => busy !== null)) {
        const isAsked = (row: SimRow) => row.generation === request.generation && row.attemptId === null;
        tables.update(request.connectionId, isAsked, (row) => parted(row, tables.now));
        return null;
      }
      const permitted = tables.update(
        request.connectionId,
        (row) => mayTake(row, request, tables.now),
        (row) => ({
          attemptId,
          attemptOutcome: null,
          attemptStartedAt: row.attemptId === null ? tables.now : row.attemptStartedAt,
          attemptReplays: row.attemptId === null ? 0 : row.attemptReplays + 1,
          leaseUntil,
          nextRefreshAt: abandonedDue(row, leaseUntil, ifAbandoned),
        }),
      );
      for (const { id } of permitted === null ? [] : sharing) {
        tables.update(
          id,
          () => true,
          (row) => parted(row, tables.now),
        );
      }
      return permitted;
    },

    swapPermit(key, { attemptId, leaseSeconds }) {
      const leaseUntil = after(tables.nowMs(), leaseSeconds);
      return tables.update(key.connectionId, isOwned(key), () => ({ attemptId, leaseUntil, attemptOutcome: null }));
    },

    returnPermit(key, failure, backoffSeconds) {
      const until = after(tables.nowMs(), backoffSeconds);
      return tables.update(key.connectionId, isOwned(key), (row) => ({
        ...freePermit(row),
        ...failureColumns(row, failure, tables.now),
        backoffUntil: until,
        nextRefreshAt: nextDue(row, until),
      }));
    },

    dropPermit(key) {
      tables.update(key.connectionId, isOwned(key), (row) => ({
        ...freePermit(row),
        nextRefreshAt: nextDue(row, tables.now),
      }));
    },

    leaveUnknown(key, failure, { backoffSeconds, endLease, ifAbandoned }) {
      const until = after(tables.nowMs(), backoffSeconds);
      return tables.update(key.connectionId, isOwned(key), (row) => {
        const leaseUntil = endLease ? tables.now : row.leaseUntil;
        const due = abandonedDue(row, leaseUntil, ifAbandoned);
        return {
          attemptOutcome: "unknown",
          ...failureColumns(row, failure, tables.now),
          leaseUntil,
          backoffUntil: until,
          nextRefreshAt: due === null ? null : greatest(due, until),
        };
      });
    },

    endGrant(key, failure) {
      const { credentialsRevision: revision } = key;
      const isTried = (row: SimRow) => revision === undefined || row.credentialsRevision === revision;
      return tables.update(
        key.connectionId,
        (row) => isOwned(key)(row) && isTried(row),
        (row) => ({
          ...freePermit(row),
          ...failureColumns(row, failure, tables.now),
          backoffUntil: null,
          nextRefreshAt: null,
          ...statusColumns(row, "needs_reauthorization"),
        }),
      );
    },

    endUnrefreshable({ id, generation }, failure) {
      const isSame = (row: SimRow) =>
        row.generation === generation && row.attemptId === null && row.status === "connected";
      return tables.update(id, isSame, (row) => ({
        ...failureColumns(row, failure, tables.now),
        nextRefreshAt: null,
        ...statusColumns(row, "needs_reauthorization"),
      }));
    },

    judgeRefusals({ connectionId, generation }, least) {
      const isOver = (row: SimRow) =>
        row.generation === generation &&
        row.status === "connected" &&
        row.probablyDeadSince === null &&
        row.refusals >= least.equal &&
        row.expiresAt !== null &&
        row.expiresAt <= tables.now &&
        row.refusedSince !== null &&
        row.refusedSince <= after(tables.nowMs(), -least.seconds);
      return tables.update(connectionId, isOver, () => ({ probablyDeadSince: tables.now }));
    },

    endProbablyDead({ id, generation }, { quietSeconds }) {
      const isDead = (row: SimRow) =>
        row.generation === generation &&
        row.status === "connected" &&
        row.probablyDeadSince !== null &&
        (row.attemptId === null || isPast(row.leaseUntil, quietSeconds, tables));
      return tables.update(id, isDead, (row) => ({
        ...freePermit(row),
        backoffUntil: null,
        nextRefreshAt: null,
        ...statusColumns(row, "needs_reauthorization"),
      }));
    },

    takeRetryPermit({ connectionId, generation, attemptId, leaseSeconds, pauseSeconds, exclusive }) {
      const isShared = exclusive && sharingWith(tables, connectionId).length > 0;
      const mayRetry = (row: SimRow) =>
        row.generation === generation &&
        row.status === "needs_reauthorization" &&
        row.refreshToken !== null &&
        row.goneBackFrom === null &&
        row.attemptId === null &&
        (row.retriedAt === null || isPast(row.retriedAt, pauseSeconds, tables)) &&
        !isShared;
      return tables.update(connectionId, mayRetry, () => ({
        attemptId,
        attemptOutcome: null,
        attemptStartedAt: tables.now,
        attemptReplays: 0,
        retriedAt: tables.now,
        leaseUntil: after(tables.nowMs(), leaseSeconds),
      }));
    },

    returnRetryPermit: (key) => tables.update(key.connectionId, isOwned(key), freePermit),

    leaveRetryUnknown: (key) => tables.update(key.connectionId, isOwned(key), () => ({ attemptOutcome: "unknown" })),

    lapseRetries(quietSeconds) {
      const isOver = (row: SimRow) =>
        row.attemptId !== null &&
        row.enabledStatus === "needs_reauthorization" &&
        isPast(row.leaseUntil, quietSeconds, tables);
      return [...tables.rows.keys()].flatMap((id) => tables.update(id, isOver, freePermit) ?? []);
    },

    permitAges() {
      const started = [...tables.rows.values()].flatMap(({ attemptStartedAt }) => attemptStartedAt ?? []);
      const oldest = Math.min(...started.map((time) => time.getTime()));
      return { count: started.length, oldestSeconds: started.length === 0 ? 0 : (tables.nowMs() - oldest) / 1000 };
    },
  };
}

function mayTake(row: SimRow, { generation, statuses, takeover }: PermitRequest, now: Date): boolean {
  if (row.generation !== generation || !statuses.includes(row.status) || row.goneBackFrom !== null) return false;
  if (row.backoffUntil !== null && row.backoffUntil > now) return false;
  return row.attemptId === null || (takeover !== null && isAbandoned(row, takeover, now));
}

function isAbandoned(row: SimRow, takeover: NonNullable<PermitRequest["takeover"]>, now: Date): boolean {
  const { attemptStartedAt, leaseUntil } = row;
  if (row.attemptId !== takeover.seenAttemptId || attemptStartedAt === null || leaseUntil === null) return false;
  const inGrace = after(now.getTime(), 30) < after(attemptStartedAt.getTime(), takeover.graceSeconds);
  const quietSeconds = inGrace ? takeover.graceQuietSeconds : takeover.quietSeconds;
  if (after(leaseUntil.getTime(), quietSeconds) > now) return false;
  return takeover.promptly || inGrace || (row.expiresAt !== null && row.expiresAt <= now);
}

function isPast(time: Date | null, seconds: number, tables: SimTables): boolean {
  return time !== null && after(time.getTime(), seconds) <= tables.now;
}

/** The other rows with the same refresh token. */
function sharingWith(tables: SimTables, id: string): SimRow[] {
  const token = tables.rows.get(id)?.refreshFingerprint ?? null;
  if (token === null) return [];
  return [...tables.rows.values()].filter(
    (row) => row.id !== id && row.refreshFingerprint !== null && Buffer.compare(row.refreshFingerprint, token) === 0,
  );
}

/** What is left of a row whose refresh token another one sends. */
function parted({ grant }: SimRow, now: Date): Partial<SimRow> {
  const goesOn = ["client_credentials", "password", "token_exchange"].includes(grant);
  return {
    refreshToken: null,
    refreshFingerprint: null,
    refreshTokenExpiresAt: null,
    refreshDueAt: null,
    keepAliveAt: null,
    nextRefreshAt: null,
    noRefreshTokenSince: goesOn ? null : now,
  };
}
