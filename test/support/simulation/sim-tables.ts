import type { Candidate, Tombstone } from "../../../src/store/token-sets.ts";
import type { PermitKey } from "../../../src/store/row-sql.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { SimLimit } from "./sim-limits.ts";
import { type SimRow, viewOf } from "./sim-row.ts";

type Buried = Tombstone & { connectionId: string; version: number; authorization: number; deletedMs: number };

/** Told of every change of a row, at the moment of its commit; null: there is none. */
export type RowWatcher = (before: SimRow | null, after: SimRow | null) => void;

/** What Postgres holds, by its own clock. Each method of a statement is one transaction. */
export class SimTables {
  readonly rows = new Map<string, SimRow>();
  readonly candidates = new Map<string, Candidate & { order: number }>();
  readonly tombstones = new Map<string, Buried>();
  readonly limits = new Map<string, SimLimit>();
  /** The attempts whose answers a connection's history names. */
  readonly storedAttempts = new Map<string, Set<string>>();
  readonly watchers: RowWatcher[] = [];
  readonly candidateWatchers: ((candidate: Candidate) => void)[] = [];
  readonly nowMs: () => number;
  readonly #changes = new Map<string, number>();

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  get now(): Date {
    return new Date(this.nowMs());
  }

  /** How often a row was written. */
  changesOf(id: string): number {
    return this.#changes.get(id) ?? 0;
  }

  put(before: SimRow | null, row: SimRow): TokenRow {
    this.rows.set(row.id, row);
    this.#changes.set(row.id, this.changesOf(row.id) + 1);
    for (const watch of this.watchers) watch(before, row);
    return viewOf(row, this.nowMs());
  }

  remove(row: SimRow): void {
    this.rows.delete(row.id);
    this.storedAttempts.delete(row.id);
    for (const { attemptId, connectionId } of this.candidates.values()) {
      if (connectionId === row.id) this.candidates.delete(attemptId);
    }
    for (const watch of this.watchers) watch(row, null);
  }

  /** UPDATE … SET … WHERE … RETURNING of one row; null: it is not as the condition says. */
  update(id: string, where: (row: SimRow) => boolean, set: (row: SimRow) => Partial<SimRow>): TokenRow | null {
    const row = this.rows.get(id);
    return row === undefined || !where(row) ? null : this.put(row, { ...row, ...set(row) });
  }

  /** The history names the attempt whose answer was stored. */
  note(connectionId: string, attemptId: unknown): void {
    if (typeof attemptId !== "string") return;
    const noted = this.storedAttempts.get(connectionId) ?? new Set();
    this.storedAttempts.set(connectionId, noted.add(attemptId));
  }

  byName(name: string): SimRow | undefined {
    return [...this.rows.values()].find((row) => row.name === name);
  }
}

export function isOwned({ generation, attemptId }: PermitKey): (row: SimRow) => boolean {
  return (row) => row.generation === generation && row.attemptId === attemptId;
}

/** The attempt that an event's detail names. */
export function attemptOf(detail: unknown): unknown {
  return (detail as { attempt?: unknown }).attempt;
}
