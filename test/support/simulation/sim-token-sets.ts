import { publicName } from "../../../src/text.ts";
import type { createTokenSetStatements } from "../../../src/store/token-sets.ts";
import { nextGeneration } from "../../../src/store/token-row.ts";
import {
  after,
  attemptVersion,
  freePermit,
  freeSchedule,
  grantColumns,
  greatest,
  highestVersion,
  noPermit,
  abandonedDue,
  type SimRow,
  viewOf,
} from "./sim-row.ts";
import { attemptOf, isOwned, type SimTables } from "./sim-tables.ts";
import type { Sync } from "./sync.ts";

/** store/token-sets.ts, in memory. */
export function tokenSetStatements(tables: SimTables): Sync<ReturnType<typeof createTokenSetStatements>> {
  const holders = (id: string, fingerprint: Uint8Array): SimRow[] =>
    [...tables.rows.values()].filter((row) => row.id !== id && isSame(row.refreshFingerprint, fingerprint));
  let candidates = 0;

  return {
    commitRefresh(key, grant, event) {
      const stored = tables.update(key.connectionId, isOwned(key), (row) => ({
        ...grantColumns(row, grant, key.generation + 1),
        ...freeSchedule(row, grant, tables.nowMs()),
        version: attemptVersion(row, grant),
        lastAttemptId: row.attemptId,
      }));
      if (stored !== null) tables.note(stored.id, attemptOf(event));
      return stored;
    },

    replaceGrant(place, grant, { event, exclusive, unlessSent = false, untried = false, clientId = null, oldTokenOf }) {
      const fingerprint = exclusive ? grant.refreshFingerprint : null;
      const isFree = (row: SimRow) =>
        fingerprint === null ||
        (holders(place.id, fingerprint).length === 0 &&
          (!unlessSent || row.attemptId === null || !isSame(row.refreshFingerprint, fingerprint)));
      const isSent = (row: SimRow) =>
        fingerprint === null ? oldTokenOf !== undefined : isSame(row.refreshFingerprint, fingerprint);
      const isLiving = (row: SimRow) =>
        oldTokenOf === undefined ||
        (row.status === "connected" && row.goneBackFrom === null && row.account === oldTokenOf);
      const isMine = (row: SimRow) => row.generation === place.generation && isFree(row) && isLiving(row);
      const stored = tables.update(place.id, isMine, (row) => ({
        ...grantColumns(row, grant, nextGeneration(place)),
        untried: oldTokenOf === undefined ? untried : row.untried,
        ...freePermit(row),
        backoffUntil: isSent(row) ? row.leaseUntil : null,
        authorizedClientId: clientId,
        nextRefreshAt: grant.keepAliveAt,
        version: highestVersion(row) + row.attemptReplays + (row.version === 0 ? 1 : 2),
        authorization: row.authorization + 1,
        authorizedAt: greatest(row.authorizedAt, grant.issuedAt),
        lastAttemptId: place.attemptId,
      }));
      if (stored === null) return null;
      tables.note(stored.id, attemptOf(event.detail));
      for (const { attemptId, connectionId } of tables.candidates.values()) {
        if (connectionId === stored.id) tables.candidates.delete(attemptId);
      }
      return stored;
    },

    readForAnswer({ connectionId, attemptId }) {
      const row = tables.rows.get(connectionId);
      if (row === undefined) return { row: null, wasStored: false };
      const wasStored = row.lastAttemptId === attemptId || tables.storedAttempts.get(row.id)?.has(attemptId) === true;
      return { row: viewOf(row, tables.nowMs()), wasStored };
    },
    holdersElsewhere: (connectionId, fingerprint) =>
      holders(connectionId, fingerprint)
        .map(({ name }) => publicName(name))
        .toSorted(),

    promoteLate(place, grant, { attemptId, generation, event }) {
      const isAsRead = (row: SimRow) =>
        row.generation === place.generation &&
        row.authorization === place.authorization &&
        row.attemptId === place.attemptId;
      const stored = tables.update(place.id, isAsRead, (row) => ({
        ...grantColumns(row, grant, generation),
        ...freeSchedule(row, grant, tables.nowMs()),
        version: attemptVersion(row, grant) + (row.attemptId === null ? 0 : 1),
        lastAttemptId: attemptId,
      }));
      if (stored === null) return null;
      tables.candidates.delete(attemptId);
      tables.note(stored.id, attemptOf(event.detail));
      return stored;
    },

    addCandidate(candidate) {
      const { attemptId, connectionId, authorization } = candidate;
      const row = tables.rows.get(connectionId);
      if (row === undefined || row.authorization !== authorization) return false;
      if (!tables.candidates.has(attemptId)) {
        const { baseGeneration, record } = candidate;
        const order = candidates++;
        tables.candidates.set(attemptId, { attemptId, connectionId, authorization, baseGeneration, record, order });
        for (const watch of tables.candidateWatchers) watch(candidate);
      }
      return true;
    },

    newestCandidate(connectionId, authorization, passedOver = []) {
      const all = [...tables.candidates.values()].filter(
        (one) =>
          one.connectionId === connectionId &&
          one.authorization === authorization &&
          !passedOver.includes(one.attemptId),
      );
      const newest = all.sort((a, b) => b.order - a.order)[0];
      if (newest === undefined) return null;
      const { order: _, ...candidate } = newest;
      return candidate;
    },

    tryCandidate(key, grant, { candidateId, attemptId, leaseSeconds, ifAbandoned }) {
      const leaseUntil = after(tables.nowMs(), leaseSeconds);
      const isReady = (row: SimRow) => isOwned(key)(row) && tables.candidates.has(candidateId);
      const tried = tables.update(key.connectionId, isReady, (row) => ({
        ...grantColumns(row, grant, key.generation + 1),
        version: attemptVersion(row, grant),
        ...noPermit,
        attemptId,
        attemptStartedAt: tables.now,
        leaseUntil,
        backoffUntil: null,
        nextRefreshAt: abandonedDue(row, leaseUntil, ifAbandoned),
      }));
      if (tried === null) return null;
      tables.candidates.delete(candidateId);
      tables.note(tried.id, candidateId);
      return tried;
    },
  };
}

function isSame(one: Uint8Array | null, other: Uint8Array | null): boolean {
  return one !== null && other !== null && Buffer.compare(one, other) === 0;
}
