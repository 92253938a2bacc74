import { type Clock, withDeadline } from "../clock.ts";
import { BrokerError } from "../errors.ts";
import type { AuditStore, ChainedEntry, EntryQuery } from "../store/audit.ts";
import { auditTimes, storeTimes } from "../time.ts";
import type { Keyring } from "../vault/keyring.ts";
import {
  type Actor,
  type Audit,
  type AuditFilter,
  type Begun,
  contentOf,
  type Draft,
  draftOf,
  type Head,
  type NewEntry,
  type Outcome,
  rowOf,
} from "./entries.ts";
import { createJournal } from "./journal.ts";
import { createCounters } from "./reads.ts";
import { createVerifier } from "./verify.ts";
import { createWriter, type Waiting } from "./writer.ts";

type Options = {
  store: AuditStore;
  /** The folder of the journal. */
  folder: string;
  keyring: Pick<Keyring, "ids" | "current" | "readableKeyId" | "sign" | "verify" | "seal" | "open">;
  /** The id of the key that made a MAC. */
  keyIdOf: (mac: string) => string;
  /** This replica, and the version that it runs. */
  self: { replica: string; name: string; version: string };
  /** The id of this process's chain, new at each start. */
  process: string;
  retentionDays: number;
  clock: Clock;
  onHead: (head: Head) => void;
  /** The database does not take what is written. Called at each try; `onWell` when it does. */
  onTrouble: (error: unknown) => void;
  onWell: () => void;
  /** DATA_DIR does not take what is written, or cannot be read. */
  onDiskTrouble: (error: unknown) => void;
  onDiskWell: () => void;
  onRejected: (rejected: { file: string; lines: number }) => void;
  /** Entries that may wait for the database. With more, changes are refused. */
  mostWaiting?: number;
};

/** An entry under way. `kept`: where its begin is. */
type Open =
  | { id: string; draft: Draft; kept: "journal" | "memory" }
  | { id: string; draft: Draft; kept: "database"; seq: number };

const exportBatch = 1000;

export function createAudit(options: Options): Audit {
  const { store, keyring, keyIdOf, self, process, clock, retentionDays, mostWaiting = 20_000 } = options;
  const system: Actor = { kind: "system", id: null, name: self.name };
  const startedMs = clock.wallMs();
  const journal = createJournal({ ...options, onError: options.onDiskTrouble });
  const row = (action: "system.start" | "system.stop", atMs: number, detail: Record<string, unknown>) =>
    contentOf(draftOf({ actor: system, action, target: null, address: null, detail }, atMs), { result: "ok" });
  const writer = createWriter({
    ...clock,
    process,
    store,
    journal,
    keyring,
    firstRow: (chains) => row("system.start", startedMs, { ...self, chains }),
    lastRow: () => row("system.stop", clock.wallMs(), self),
    onHead: options.onHead,
  });
  const verifier = createVerifier({ store, keyring, keyIdOf, process, retentionDays, clock });
  const stopping = new AbortController();
  let running: Promise<void> | null = null;
  let woken = new AbortController();
  let begun = 0;

  const run = async (): Promise<void> => {
    let pauseMs = 0;
    while (!stopping.signal.aborted) {
      try {
        await writer.turn();
        options.onWell();
        pauseMs = 0;
        const { signal } = woken;
        // An entry that came during the turn has been written, or has aborted the signal.
        // An entry in between puts off the counts by nothing: a crash loses what is not written yet.
        if (writer.size() === 0) await clock.sleep(writer.restMs(), signal);
        woken = new AbortController();
      } catch (error) {
        options.onTrouble(error);
        pauseMs = Math.min(Math.max(auditTimes.retryFirstMs, pauseMs * 2), auditTimes.retryMaxMs);
        await clock.sleep(pauseMs, stopping.signal);
      }
    }
  };

  const write = (entry: Waiting): void => {
    writer.add(entry);
    woken.abort();
  };

  /** Resolves with the number of the row when it is in the database; null: it is not by then. */
  const writeNow = async (
    entry: Omit<Waiting, "onWritten">,
  ): Promise<{ seq: number | null; takeBack: () => boolean }> => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const waiting = { ...entry, onWritten: resolve };
    write(waiting);
    const seq = await withDeadline(promise, auditTimes.directMs, clock);
    return { seq, takeBack: () => writer.takeBack(waiting) };
  };

  /** @throws BrokerError storage_unavailable */
  const beginInDatabase = async (id: string, draft: Draft): Promise<Open> => {
    const { seq, takeBack } = await writeNow({ id, content: contentOf(draft, { result: "begun" }) });
    if (seq !== null) return { id, draft, kept: "database", seq };
    // It is just being written, so it must be told that nothing was done.
    const content = contentOf(draft, { result: "storage_unavailable" });
    if (takeBack()) journal.done([id]);
    else writer.add({ id, content, onWritten: () => {} });
    throw notRecorded("neither DATA_DIR nor the database takes its entry for the audit");
  };

  const begin = async (entry: NewEntry, mustNotFail: boolean): Promise<Open> => {
    begun += 1;
    const id = `${process}/${begun}`;
    const draft = draftOf(entry, clock.wallMs());
    if (writer.size() >= mostWaiting && !mustNotFail) {
      throw notRecorded(`${mostWaiting} entries of the audit wait for the database`);
    }
    try {
      await journal.append({ kind: "begun", id, draft });
      options.onDiskWell();
      return { id, draft, kept: "journal" };
    } catch (error) {
      options.onDiskTrouble(error);
      return mustNotFail ? { id, draft, kept: "memory" } : await beginInDatabase(id, draft);
    }
  };

  const end = async (open: Open, outcome: Outcome): Promise<void> => {
    const { id, draft } = open;
    const detail = open.kept === "database" ? { ...outcome.detail, begun: `${process}:${open.seq}` } : outcome.detail;
    const entry = { id, content: contentOf(draft, detail === undefined ? outcome : { ...outcome, detail }) };
    if (open.kept === "journal") {
      try {
        await journal.append({ kind: "ended", id, outcome });
        write({ ...entry, onWritten: () => {} });
        return;
      } catch (error) {
        options.onDiskTrouble(error);
      }
    }
    await writeNow(entry);
  };

  const page = async (query: AuditFilter, rest: Pick<EntryQuery, "after" | "oldestFirst" | "limit">) =>
    await store.page({
      since: query.since === undefined ? null : storable(query.since),
      until: query.until === undefined ? null : storable(query.until),
      actor: query.actor ?? null,
      connection: query.connection ?? null,
      action: query.type ?? null,
      within: query.within ?? null,
      ...rest,
    });

  /** What the database has not taken stays in the journal: counts as entries. */
  const leave = async (): Promise<void> => {
    const lines = writer.takeCounts().flatMap((content) => {
      begun += 1;
      const id = `${process}/${begun}`;
      const draft = draftFrom(content);
      const { result } = content;
      return [{ kind: "begun", id, draft } as const, { kind: "ended", id, outcome: { result } } as const];
    });
    await Promise.all(lines.map((line) => journal.append(line))).catch(options.onDiskTrouble);
    await journal.close();
  };

  return {
    begin: async (entry, { mustNotFail = false } = {}) => (await begin(entry, mustNotFail)) as unknown as Begun,
    end: async (given, outcome) => await end(given as unknown as Open, outcome),
    ...createCounters(writer.counts, clock.wallMs),
    async list({ limit, cursor, ...filter }) {
      const after = cursor === null ? null : placeOf(cursor);
      const rows = await page(filter, { after, oldestFirst: false, limit: limit + 1 });
      const items = rows.slice(0, limit);
      const last = items.at(-1);
      return { items: items.map(rowOf), nextCursor: rows.length > limit && last ? cursorOf(last) : null };
    },
    async *export(filter) {
      let after: EntryQuery["after"] = null;
      for (;;) {
        const rows: ChainedEntry[] = await page(filter, { after, oldestFirst: true, limit: exportBatch });
        yield* rows.map(rowOf);
        if (rows.length < exportBatch) return;
        after = rows.at(-1) ?? null;
      }
    },
    verify: async (heads, { onProgress = () => {} } = {}) => (await verifier.verify(heads, onProgress)).report,
    async checkpoint() {
      const { report, proven, keysBehindFaults } = await verifier.verify([], () => {});
      const detail = { chains: proven, faults: report.faults.length };
      const draft = draftOf(
        { actor: system, action: "system.checkpoint", target: null, address: null },
        clock.wallMs(),
      );
      begun += 1;
      const content = { ...contentOf(draft, { result: report.ok ? "ok" : "faulty" }), detail: JSON.stringify(detail) };
      const { seq, takeBack } = await writeNow({ id: `${process}/${begun}`, content });
      if (seq !== null) return { ...report, keysBehindFaults };
      takeBack();
      throw notRecorded("the checkpoint of the audit could not be written in time");
    },
    async prune(before) {
      let removed = 0;
      for (;;) {
        const batch = await store.prune(before);
        if (batch === null) {
          const detail = `before: entries of the last ${retentionDays} days cannot be removed (AUDIT_RETENTION_DAYS).`;
          throw new BrokerError("invalid_request", detail);
        }
        removed += batch;
        if (batch === 0) return removed;
      }
    },
    heldKeyIds: async () => await journal.keyIds(),
    async start() {
      // What a disk that hangs gives later is written then.
      const taken = journal.takeOver().then((left) => writer.takeOver(left));
      await withDeadline(taken, auditTimes.diskMs, clock);
      running = run();
    },
    async stop() {
      stopping.abort();
      woken.abort();
      const finished = (running ?? Promise.resolve()).then(async () => await writer.finish()).catch(options.onTrouble);
      await withDeadline(finished, auditTimes.stopMs, clock);
      await leave();
    },
  };
}

function notRecorded(why: string): BrokerError {
  const { retryAfterSeconds } = storeTimes;
  return new BrokerError("storage_unavailable", `This was not done: ${why}.`, { retryAfterSeconds });
}

/** A finished entry, as the journal has it. */
function draftFrom(content: ReturnType<typeof contentOf>): Draft {
  const row = rowOf({ ...content, process: "", seq: 0, hash: new Uint8Array(), mac: "" });
  return {
    atMs: content.at.getTime(),
    actor: row.actor as Actor,
    action: content.action as Draft["action"],
    target: row.target as Draft["target"],
    address: null,
    detail: row.detail,
  };
}

/** Postgres reads no years before 1 and after 9999 as Prisma writes them. No entry is so old or so new. */
function storable(time: Date): Date {
  return new Date(Math.min(Math.max(time.getTime(), 0), Date.UTC(9999, 0)));
}

function cursorOf({ at, process, seq }: ChainedEntry): string {
  return Buffer.from(JSON.stringify([at.getTime(), process, seq])).toString("base64url");
}

/** @throws BrokerError invalid_request */
function placeOf(cursor: string): NonNullable<EntryQuery["after"]> {
  const [, atMs = "", process = "", seq = ""] =
    /^\[(\d{1,14}),"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",(\d{1,15})\]$/.exec(
      Buffer.from(cursor, "base64url").toString(),
    ) ?? [];
  const problem = "cursor: take next_cursor of the page before, as it is.";
  if (process === "") throw new BrokerError("invalid_request", problem);
  return { at: new Date(Number(atMs)), process, seq: Number(seq) };
}
