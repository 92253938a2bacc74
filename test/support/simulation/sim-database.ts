import type { Tombstone } from "../../../src/store/token-sets.ts";
import type { RequestLimits } from "../../../src/store/request-limits.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import { dueStatements, readStatements } from "./sim-due.ts";
import { tokenSetStatements } from "./sim-token-sets.ts";
import { limitStatements } from "./sim-limits.ts";
import { permitStatements } from "./sim-permits.ts";
import { after, highestVersion, newRow, type SimRow, viewOf } from "./sim-row.ts";
import { SimTables } from "./sim-tables.ts";
import type { Sync } from "./sync.ts";

const firstTrySeconds = 60;
const keepDeletedMs = 24 * 3_600_000;

/** Postgres as the core sees it: statements with the semantics of src/store, done at once. */
export class SimDatabase {
  readonly tables: SimTables;
  readonly statements: Sync<TokenStatements>;
  readonly limits: Sync<RequestLimits>;

  constructor(nowMs: () => number) {
    this.tables = new SimTables(nowMs);
    this.limits = limitStatements(this.tables);
    this.statements = {
      ...readStatements(this.tables),
      ...permitStatements(this.tables),
      ...tokenSetStatements(this.tables),
      ...dueStatements(this.tables),
    };
  }

  /** A name that has been used before goes on from the version it had. */
  insert(
    given: Pick<SimRow, "id" | "name" | "provider" | "clientRef" | "grant"> &
      Partial<Pick<SimRow, "account" | "labels">>,
  ): TokenRow {
    const version = this.tables.tombstones.get(given.name)?.version ?? 0;
    const nextRefreshAt = given.grant === "client_credentials" ? after(this.tables.nowMs(), firstTrySeconds) : null;
    return this.tables.put(null, { ...newRow({ ...given, version }), nextRefreshAt });
  }

  /** Leaves a tombstone. */
  delete(id: string): TokenRow | null {
    const row = this.tables.rows.get(id);
    if (row === undefined) return null;
    const { name, authorization, provider, clientRef, inputs, captured } = row;
    const version = highestVersion(row) + (row.attemptId === null ? 0 : 1 + row.attemptReplays);
    this.tables.tombstones.set(name, {
      name,
      connectionId: id,
      version,
      authorization,
      provider,
      clientRef,
      inputs,
      captured,
      deletedMs: this.tables.nowMs(),
    });
    this.tables.remove(row);
    return viewOf(row, this.tables.nowMs());
  }

  disable(id: string, disabled: boolean): TokenRow | null {
    const set = (row: SimRow) => ({ status: disabled ? "disabled" : row.enabledStatus }) as const;
    return this.tables.update(id, () => true, set);
  }

  findTombstone(connectionId: string): Tombstone | null {
    const buried = [...this.tables.tombstones.values()].find((one) => one.connectionId === connectionId);
    if (buried === undefined || buried.deletedMs <= this.tables.nowMs() - keepDeletedMs) return null;
    const { name, provider, clientRef, inputs, captured } = buried;
    return { name, provider, clientRef, inputs, captured };
  }
}
