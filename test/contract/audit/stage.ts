import { randomBytes, randomUUID } from "node:crypto";
import { createAudit } from "../../../src/audit/audit.ts";
import type { Actor, Audit, AuditAction, AuditRow, Head, NewEntry } from "../../../src/audit/entries.ts";
import { systemClock } from "../../../src/clock.ts";
import { type AuditStore, createAuditStore } from "../../../src/store/audit.ts";
import { auditTimes, retentionTimes } from "../../../src/time.ts";
import { createKeyring, keyIdOfProof, type Keyring } from "../../../src/vault/keyring.ts";
import { hangMs, until } from "../../support/patience.ts";
import { temporaryFolder } from "../../support/services/guardian.ts";
import type { Database } from "../../../src/store/database.ts";

export type Process = {
  id: string;
  audit: Audit;
  heads: Head[];
  troubles: unknown[];
  rejected: { file: string; lines: number }[];
  folder: string;
  /** The wall clock of this process. */
  wall: { ms: number };
  replica: string;
};

type Options = {
  keyring?: Keyring;
  folder?: string;
  wallMs?: number;
  /** What stands between the process and the database. */
  over?: (store: AuditStore) => AuditStore;
};

export const keyOf = (id: string) => ({ id, key: randomBytes(32) });
export const caller: Actor = { kind: "key", id: "key-1", name: "caller" };

/** On a slow machine they would come too early. */
const deadlines = new Set([auditTimes.directMs, auditTimes.stopMs]);

/** Processes of a broker as far as the audit goes, on one database. */
export class AuditStage {
  readonly database: Database;
  /** Runs SQL as the owner of the database. Returns how many rows it was about. */
  readonly sql: (text: string, ...values: unknown[]) => Promise<number>;
  readonly store: AuditStore;
  readonly key = keyOf("k1");
  readonly keyring = createKeyring([this.key]);
  readonly #running = new Set<Process>();

  /** Whether the broker's role is another one than the owner. */
  readonly hasRoles: boolean;

  constructor(database: Database, { sql, hasRoles }: Pick<AuditStage, "sql" | "hasRoles">) {
    this.database = database;
    this.hasRoles = hasRoles;
    this.sql = sql;
    this.store = createAuditStore(database);
  }

  /** A process that has begun. Its wall clock stands still; what it does every few seconds it does every few milliseconds. */
  async start({
    keyring = this.keyring,
    folder,
    wallMs = Date.now(),
    over = (store) => store,
  }: Options = {}): Promise<Process> {
    const wall = { ms: wallMs };
    const path = folder ?? (await temporaryFolder("audit")).path;
    const id = randomUUID();
    const process: Omit<Process, "audit"> = {
      id,
      heads: [],
      troubles: [],
      rejected: [],
      folder: path,
      wall,
      replica: randomUUID(),
    };
    const audit = createAudit({
      store: over(this.store),
      folder: path,
      keyring,
      keyIdOf: keyIdOfProof,
      self: { replica: process.replica, name: "test", version: "1.0.0" },
      process: id,
      retentionDays: retentionTimes.auditDays,
      clock: {
        wallMs: () => wall.ms,
        monotonicMs: () => systemClock.monotonicMs() * 400,
        sleep: async (ms, signal) => await systemClock.sleep(deadlines.has(ms) ? hangMs : 10, signal),
      },
      onHead: (head) => void process.heads.push(head),
      onTrouble: (error) => void process.troubles.push(error),
      onWell() {},
      onDiskTrouble: (error) => void process.troubles.push(error),
      onDiskWell() {},
      onRejected: (rejected) => void process.rejected.push(rejected),
    });
    await audit.start();
    const started = { ...process, audit };
    this.#running.add(started);
    await until("the first row is there", async () => (await this.rows(started)).length > 0);
    return started;
  }

  /** Ends it in order. */
  async stop(process: Process): Promise<void> {
    this.#running.delete(process);
    await process.audit.stop();
  }

  async stopAll(): Promise<void> {
    await Promise.all([...this.#running].map((process) => this.stop(process)));
  }

  /** Forgets everything. */
  async empty(): Promise<void> {
    await this.stopAll();
    await this.sql("TRUNCATE audit.entries, audit.open_reads, audit.anchors");
  }

  /** An entry, begun and ended. Resolves when it is in the database. */
  async write(
    { audit, id }: Process,
    action: AuditAction,
    rest: Partial<NewEntry> & { result?: string } = {},
  ): Promise<void> {
    const { result = "ok", ...entry } = rest;
    const mark = randomUUID();
    const begun = await audit.begin({ actor: caller, target: null, address: "192.0.2.1", action, ...entry });
    await audit.end(begun, { result, detail: { mark } });
    await until("the entry is written", async () =>
      (await this.rows({ id })).some(({ detail }) => detail["mark"] === mark),
    );
  }

  /** The rows of a chain, by number. */
  async rows({ id }: Pick<Process, "id">): Promise<(AuditRow & { seq: number })[]> {
    const rows = await this.store.chain(id, { from: 0, limit: 100_000 });
    return rows.map((row) => ({
      id: `${id}:${row.seq}`,
      seq: row.seq,
      at: row.at,
      actor: { kind: row.actorKind, id: row.actorId, name: row.actorName },
      action: row.action,
      target: row.targetKind === null ? null : { kind: row.targetKind, name: row.targetName },
      address: row.address,
      result: row.result,
      detail: JSON.parse(row.detail ?? "{}") as Record<string, unknown>,
    }));
  }

  async actions(process: Pick<Process, "id">): Promise<string[]> {
    return (await this.rows(process)).map(({ action }) => action);
  }

  async query<Row>(sql: string): Promise<Row[]> {
    return await this.database.prisma.$queryRawUnsafe<Row[]>(sql);
  }
}
