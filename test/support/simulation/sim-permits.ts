import type { createPermitRows, PermitRequest } from "../../../src/store/permit-rows.ts";
import {
  after,
  failureColumns,
  freePermit,
  greatest,
  nextDue,
  orphanDue,
  statusColumns,
  type SimRow,
} from "./sim-row.ts";
import { isOwned, type SimTables } from "./sim-tables.ts";
import type { Sync } from "./sync.ts";

/** store/permit-rows.ts, in memory. */
export function permitStatements(tables: SimTables): Sync<ReturnType<typeof createPermitRows>> {
  return {
    noteUnprepared() {},

    takePermit(request) {
      const { attemptId, leaseSeconds, orphan } = request;
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
          nextRefreshAt: orphanDue(row, leaseUntil, orphan),
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
        ...failureColumns(row, failure),
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

    leaveUnknown(key, failure, { backoffSeconds, endLease, orphan }) {
      const until = after(tables.nowMs(), backoffSeconds);
      return tables.update(key.connectionId, isOwned(key), (row) => {
        const leaseUntil = endLease ? tables.now : row.leaseUntil;
        const due = orphanDue(row, leaseUntil, orphan);
        return {
          attemptOutcome: "unknown",
          ...failureColumns(row, failure),
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
          ...failureColumns(row, failure),
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
        ...failureColumns(row, failure),
        nextRefreshAt: null,
        ...statusColumns(row, "needs_reauthorization"),
      }));
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
