import type { AuditStore, AuditTransaction, EntryContent, ReadCounts } from "../store/audit.ts";
import { auditTimes } from "../time.ts";
import type { Keyring } from "../vault/keyring.ts";
import { type ChainEnd, chainTo, emptyChain } from "./chain.ts";
import { contentOf, type Head } from "./entries.ts";
import type { Journal, Leftover } from "./journal.ts";
import { createReadCounts, isCount, summed } from "./reads.ts";

/** An entry that has come to its end and waits for the database. `id`: of its lines in the journal. */
export type Waiting = { id: string; content: EntryContent; onWritten: (seq: number) => void };

type Options = {
  process: string;
  store: Pick<AuditStore, "write" | "newestSeq" | "openCounts" | "maintain">;
  journal: Journal;
  keyring: Pick<Keyring, "sign">;
  /** The first row and the last one. */
  firstRow: (chains: Head[]) => EntryContent;
  lastRow: () => EntryContent;
  onHead: (head: Head) => void;
  wallMs: () => number;
  monotonicMs: () => number;
};

/** In one statement. What is sent for it stays below the size from which V8 moves texts among the old ones, though they are gone at once. */
const mostRows = 100;
const mostCounts = 2000;
/** About so many are added up in one. */
const mostSummed = 20_000;
/** The first row names the newest rows of so many chains: those that were written to last. */
const mostHeads = 200;

/**
 * What one process writes to the database: the rows of its chain, and counts. `turn` does all that is due, one statement at a time. If it
 * fails, call it again later: it does first what it has not finished, and writes nothing twice.
 */
export function createWriter({ process, store, journal, keyring, firstRow, lastRow, onHead, ...clock }: Options) {
  const counts = createReadCounts();
  let end: ChainEnd = emptyChain(process);
  /** What an INSERT whose end is unknown would have made the end of the chain. */
  let attempted: { end: ChainEnd; job: object } | null = null;
  let waiting: Waiting[] = [];
  /** Rows that have their numbers: they are written with these or not at all. */
  let batch: readonly Waiting[] | null = null;
  const leftovers: Leftover[] = [];
  /** Counts that are being written under this number. */
  let flush: { number: number; counts: ReturnType<typeof counts.take> } | null = null;
  let flushes = 0;
  let loggedSeq = 0;
  const startJob = {};
  const dueMs = { counts: 0, head: clock.monotonicMs() + auditTimes.headMs, maintenance: 0 };
  let summedMinute = 0;

  const turn = async (): Promise<void> => {
    // First of all, since rows may fail for want of a partition.
    if (isDue("maintenance", auditTimes.maintainMs)) await maintain();
    if (end.seq === 0) await writeFirst();
    await takeLeftovers();
    await writeEntries();
    const minute = Math.floor(clock.wallMs() / auditTimes.minuteMs);
    const isOver = minute !== summedMinute;
    if (isDue("counts", auditTimes.countsMs) || isOver) await writeCounts();
    if (isOver) {
      await addUp(new Date(minute * auditTimes.minuteMs));
      summedMinute = minute;
    }
    if (end.seq > loggedSeq && isDue("head", auditTimes.headMs)) logHead();
  };

  /** True once in a while. */
  const isDue = (what: keyof typeof dueMs, everyMs: number): boolean => {
    if (clock.monotonicMs() < dueMs[what]) return false;
    dueMs[what] = clock.monotonicMs() + everyMs;
    return true;
  };

  /**
   * Adds rows to the chain. A transaction before this one whose end is unknown may have been committed: then its rows are there, and if it was
   * this job's own, nothing is left to do.
   */
  const append = async (
    job: object,
    contentsOf: (transaction: AuditTransaction) => Promise<Iterable<EntryContent>>,
  ): Promise<void> => {
    try {
      end = await store.write(process, async (transaction) => {
        if (attempted !== null && (await transaction.has(attempted.end))) {
          end = attempted.end;
          if (attempted.job === job) return end;
        }
        attempted = null;
        const contents = await contentsOf(transaction);
        let last = end;
        // In parts: a minute may have a hundred thousand entries, and requests must not wait until all of them are made and signed.
        for (const part of inParts(contents, mostRows)) {
          const rows = chainTo(last, part, keyring);
          await transaction.insert(rows);
          const { seq, hash, mac } = rows.at(-1) ?? last;
          last = { process, seq, hash, mac };
        }
        // From here on the transaction may be committed.
        if (last !== end) attempted = { end: last, job };
        return last;
      });
      attempted = null;
    } catch (error) {
      dueMs.maintenance = Math.min(dueMs.maintenance, clock.monotonicMs() + auditTimes.repairMs);
      throw error;
    }
  };

  const writeFirst = async (): Promise<void> => {
    await append(startJob, async (transaction) => {
      const newest = await transaction.newest(mostHeads);
      return [firstRow(newest.map(({ process: chain, seq, mac }) => ({ process: chain, seq, mac })))];
    });
  };

  /** Of what ended processes have left, whatever is in the database already is done. */
  const takeLeftovers = async (): Promise<void> => {
    for (let [leftover] = leftovers; leftover !== undefined; [leftover] = leftovers) {
      const { id, draft, outcome, writings } = leftover;
      const isWritten = async () => {
        for (const { process: chain, seq } of writings) {
          if ((await newestSeq(chain)) >= seq) return true;
        }
        return false;
      };
      if (await isWritten()) journal.done([id]);
      else waiting.push({ id, content: contentOf(draft, outcome ?? { result: "unknown" }), onWritten: () => {} });
      leftovers.shift();
    }
    newestSeqs.clear();
  };

  const newestSeqs = new Map<string, number>();
  const newestSeq = async (chain: string): Promise<number> => {
    const known = newestSeqs.get(chain) ?? (await store.newestSeq(chain));
    newestSeqs.set(chain, known);
    return known;
  };

  const writeEntries = async (): Promise<void> => {
    while (waiting.length > 0 || batch !== null) {
      if (batch === null) {
        await settle();
        batch = waiting.splice(0, mostRows);
        // If the disk does not take this, a crash right after the INSERT writes these entries twice.
        const line = { kind: "writing", ids: batch.map(({ id }) => id), process, seq: end.seq + 1 } as const;
        await journal.append(line).catch(() => {});
      }
      const writing = batch;
      await append(writing, async () => writing.map(({ content }) => content));
      batch = null;
      const firstSeq = end.seq - writing.length + 1;
      for (const [index, { onWritten }] of writing.entries()) onWritten(firstSeq + index);
      journal.done(writing.map(({ id }) => id));
    }
  };

  /** Finds out where the chain ends. */
  const settle = async (): Promise<void> => {
    if (attempted !== null) await append({}, async () => []);
  };

  const writeCounts = async (): Promise<void> => {
    while (flush !== null || counts.size() > 0) {
      if (flush === null) {
        flushes += 1;
        flush = { number: flushes, counts: counts.take(mostCounts) };
      }
      const { number, counts: written } = flush;
      await store.write(process, async (transaction) => await transaction.insertCounts({ process, number }, written));
      flush = null;
    }
  };

  /**
   * One entry for each caller, connection and result of each minute that is over, and of those that ended processes have left. A minute may have
   * counts of a million connections: they are taken in shares, and what people do is written between these.
   */
  const addUp = async (own: Date): Promise<void> => {
    const before = { own, others: new Date(clock.wallMs() - auditTimes.strayCountsMs) };
    const of = Math.ceil((await store.openCounts(process, before)) / mostSummed);
    for (let number = 0; number < of; number++) {
      await append({}, async (transaction) => {
        const taken = await transaction.takeCounts(process, before, { number, of });
        // No key protects that table: what is signed here must not look like a change that somebody has made.
        return entriesOf(taken.filter(isCount));
      });
      await writeEntries();
    }
  };

  const maintain = async (): Promise<void> => {
    try {
      // One batch a turn: entries and counts must not wait until all of them are removed.
      if ((await store.maintain()) > 0) dueMs.maintenance = clock.monotonicMs();
    } catch (error) {
      dueMs.maintenance = clock.monotonicMs() + auditTimes.maintainAgainMs;
      throw error;
    }
  };

  const logHead = (): void => {
    loggedSeq = end.seq;
    onHead({ process, seq: end.seq, mac: end.mac });
  };

  return {
    counts,
    turn,
    /** Until counts are due. */
    restMs: () => Math.max(0, dueMs.counts - clock.monotonicMs()),
    add: (entry: Waiting) => void waiting.push(entry),
    /** For an entry that waits for its first try. False: it is being written, or was. */
    takeBack(entry: Waiting): boolean {
      const at = waiting.indexOf(entry);
      if (at >= 0) waiting.splice(at, 1);
      return at >= 0;
    },
    takeOver: (left: readonly Leftover[]) => void leftovers.push(...left),
    /** All that is left, and the last row. */
    async finish(): Promise<void> {
      if (end.seq === 0) await writeFirst();
      await takeLeftovers();
      await writeEntries();
      await writeCounts();
      await addUp(new Date(clock.wallMs() + auditTimes.minuteMs));
      await append({}, async () => [lastRow()]);
      logHead();
    },
    /** Counts that were not written, for the journal, as the drafts of entries. */
    takeCounts: () => [...entriesOf(summed([...(flush?.counts ?? []), ...counts.take(Infinity)]))],
    /** How many entries wait in memory. */
    size: () => waiting.length + (batch?.length ?? 0) + leftovers.length,
  };
}

/** One for each count, made when it is asked for. */
function* entriesOf(counts: Iterable<ReadCounts>): Generator<EntryContent> {
  for (const { minute, connections, counts: numbers, firstMs, lastMs, ...kind } of counts) {
    for (const [index, count] of numbers.entries()) {
      const [first, last] = [firstMs, lastMs].map((times) => new Date(minute.getTime() + (times[index] ?? 0))) as [
        Date,
        Date,
      ];
      yield {
        ...kind,
        at: first,
        targetKind: kind.action === "tokens.read" ? "connection" : null,
        targetName: connections[index] ?? null,
        address: null,
        detail: JSON.stringify({ count, first: first.toISOString(), last: last.toISOString() }),
      };
    }
  }
}

function* inParts<Item>(items: Iterable<Item>, size: number): Generator<Item[]> {
  let part: Item[] = [];
  for (const item of items) {
    part.push(item);
    if (part.length < size) continue;
    yield part;
    part = [];
  }
  if (part.length > 0) yield part;
}
