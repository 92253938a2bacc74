import type { createDueStatements } from "../../../src/store/due.ts";
import type { createTokenStatements } from "../../../src/store/token-statements.ts";
import { simClientOf } from "./sim-catalog.ts";
import { tidyLimits } from "./sim-limits.ts";
import { binds, carries } from "../../../src/labels.ts";
import { after, freePermit, greatest, highestVersion, least, nextDue, type SimRow, viewOf } from "./sim-row.ts";
import type { SimTables } from "./sim-tables.ts";
import type { Sync } from "./sync.ts";

type Reads = Pick<
  ReturnType<typeof createTokenStatements>,
  "readByName" | "changedSince" | "hasLabels" | "readByIds" | "readById" | "readWithClient"
>;

const abandonedClaimSeconds = 10;
const keepDeletedMs = 24 * 3_600_000;

export function readStatements(tables: SimTables): Sync<Reads> {
  const view = (row: SimRow) => viewOf(row, tables.nowMs());
  const versionOf = ({ id, parentId }: SimRow) => `${tables.changesOf(id)} ${tables.changesOf(parentId ?? "")}`;
  return {
    readByName: (names) =>
      [...tables.rows.values()]
        .filter(({ name }) => names.includes(name))
        .map((row) => ({ row: view(row), asOf: versionOf(row) })),
    changedSince(known) {
      const changed = known.filter(({ id, asOf }) => {
        const row = tables.rows.get(id);
        return row === undefined || versionOf(row) !== asOf;
      });
      return { now: tables.now, ids: changed.map(({ id }) => id) };
    },
    hasLabels: (name, labels) =>
      binds(labels) && [...tables.rows.values()].some((row) => row.name === name && carries(row.labels, labels)),
    readByIds: (ids) => [...tables.rows.values()].filter(({ id }) => ids.includes(id)).map(view),
    readById(connectionId) {
      const row = tables.rows.get(connectionId);
      return row === undefined ? null : view(row);
    },
    readWithClient(connectionId) {
      const row = tables.rows.get(connectionId);
      return row === undefined
        ? null
        : { row: view(row), client: row.clientRef === null ? null : simClientOf(row.clientRef) };
    },
  };
}

/** store/due.ts, in memory. */
export function dueStatements(tables: SimTables): Sync<ReturnType<typeof createDueStatements>> {
  const all = () => [...tables.rows.values()];
  const inOrder = () => all().sort((a, b) => (a.id < b.id ? -1 : 1));

  return {
    claimDue({ limit, claimSeconds, busyProviders }) {
      const { now } = tables;
      const due = all().filter((row) => isDue(row, now) && !busyProviders.includes(row.provider));
      const first = due.sort((a, b) => dueMs(a) - dueMs(b)).slice(0, limit);
      const claimedFor = ({ attemptId }: SimRow) => (attemptId === null ? claimSeconds : abandonedClaimSeconds);
      return first.map((row) => tables.put(row, { ...row, nextRefreshAt: after(tables.nowMs(), claimedFor(row)) }));
    },

    postpone({ id, generation }, afterSeconds) {
      const nextRefreshAt = afterSeconds === null ? null : after(tables.nowMs(), afterSeconds);
      const isAsRead = (row: SimRow) =>
        row.generation === generation && row.nextRefreshAt !== null && row.attemptId === null;
      tables.update(id, isAsRead, () => ({ nextRefreshAt }));
    },

    hasten({ id, generation }) {
      const { now } = tables;
      const mayCome = (row: SimRow) =>
        row.generation === generation &&
        row.attemptId === null &&
        !(row.nextRefreshAt !== null && row.nextRefreshAt <= now);
      tables.update(id, mayCome, () => ({ nextRefreshAt: now }));
    },

    markInUse(read) {
      for (const { id, generation } of read) {
        tables.update(
          id,
          (row) => row.generation === generation && !row.inUse,
          (row) => {
            const { refreshDueAt, keepAliveAt, backoffUntil } = row;
            const stays = row.attemptId !== null || refreshDueAt === null;
            const due = greatest(least(refreshDueAt, keepAliveAt), backoffUntil);
            return { inUse: true, nextRefreshAt: stays ? row.nextRefreshAt : due };
          },
        );
      }
      return [];
    },

    suspendRestored(marks) {
      return marks.flatMap(({ connectionId, generation, version }) => {
        const hold = (row: SimRow) => ({ goneBackFrom: generation, versionFloor: Math.max(row.versionFloor, version) });
        return (
          tables.update(connectionId, (row) => row.generation < generation && row.goneBackFrom !== generation, hold) ??
          []
        );
      });
    },

    generationsAfter(connectionId, limit) {
      const rows = inOrder().filter(({ id }) => connectionId === null || id > connectionId);
      return rows.slice(0, limit).map((row) => ({
        connectionId: row.id,
        generation: row.generation,
        version: highestVersion(row),
      }));
    },

    goneBack: () =>
      all()
        .filter(({ goneBackFrom }) => goneBackFrom !== null)
        .sort((a, b) => (a.name < b.name ? -1 : 1))
        .map((row) => viewOf(row, tables.nowMs())),

    releaseGoneBack({ id, generation, goneBackFrom }, { accessToken, refreshToken }) {
      const isHeld = (row: SimRow) => row.generation === generation && row.goneBackFrom === goneBackFrom;
      return tables.update(id, isHeld, (row) => ({
        generation: goneBackFrom,
        goneBackFrom: null,
        ...freePermit(row),
        accessToken,
        refreshToken,
        backoffUntil: null,
        nextRefreshAt: nextDue(row, tables.now),
      }));
    },

    tidy() {
      for (const buried of tables.tombstones.values()) {
        if (buried.deletedMs >= tables.nowMs() - keepDeletedMs) continue;
        Object.assign(buried, { clientRef: null, inputs: {}, captured: {} });
      }
      tidyLimits(tables);
    },
  };
}

function dueMs({ nextRefreshAt }: SimRow): number {
  return nextRefreshAt?.getTime() ?? Infinity;
}

function isDue(row: SimRow, now: Date): boolean {
  const isAwake = row.status === "connected" || row.status === "pending";
  return isAwake && row.goneBackFrom === null && row.nextRefreshAt !== null && row.nextRefreshAt <= now;
}
