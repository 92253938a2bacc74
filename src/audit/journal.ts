import { type FileHandle, mkdir, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, withDeadline } from "../clock.ts";
import { openedOrNull } from "../errors.ts";
import { auditTimes } from "../time.ts";
import type { Keyring, Place } from "../vault/keyring.ts";
import type { Draft, Outcome } from "./entries.ts";

/**
 * The entries that the database does not have yet, as lines of files in DATA_DIR. A line is sealed: nobody who can write the folder adds an
 * entry, and nobody reads there what somebody has sent by mistake, such as a key in place of a name, before `end` takes it away.
 */
export type Journal = {
  /**
   * Resolves when the line would outlive this machine. Lines of the same moment share one fsync. @throws when the disk does not take it, or not
   * within 2 s: then whoever wanted it written calls `done` for the entry once it is elsewhere, or was given up
   */
  append(line: JournalLine): Promise<void>;
  /** These entries are in the database. A file that holds lines of no others is removed. */
  done(ids: readonly string[]): void;
  /** What ended processes have left. Their files are removed when all of their entries are done. Never rejects; a disk that hangs holds it up. */
  takeOver(): Promise<Leftover[]>;
  /** The keys under which files in its folder hold lines; all of the ring if that cannot be read, or not within 2 s. Never rejects. */
  keyIds(): Promise<readonly string[]>;
  /** Never rejects. A disk that hangs holds it up for 2 s. */
  close(): Promise<void>;
};

type JournalLine =
  | { kind: "begun"; id: string; draft: Draft }
  | { kind: "ended"; id: string; outcome: Outcome }
  /** They are about to be written to the database, with numbers from `seq` on. Whether they were, the newest number of the chain tells. */
  | { kind: "writing"; ids: readonly string[]; process: string; seq: number };

/** `outcome` null: its process ended first. `writings`: the places in chains where it may be already. */
export type Leftover = {
  id: string;
  draft: Draft;
  outcome: Outcome | null;
  writings: { process: string; seq: number }[];
};

type Options = {
  folder: string;
  process: string;
  keyring: Pick<Keyring, "ids" | "current" | "seal" | "open" | "readableKeyId">;
  clock: Pick<Clock, "sleep">;
  /** Lines of a file do not prove that this broker has written them. They were put aside. */
  onRejected: (rejected: { file: string; lines: number }) => void;
  /** What cannot be read or removed. It is tried again at the next start. */
  onError: (error: unknown) => void;
};

/**
 * `ids`: entries that have lines in it and are not done. `begun`: those that begin in it, done or not; `followed`: those of which it tells the end, or
 * where they were written. `keyIds`: of the keys of all its lines.
 */
type Segment = {
  path: string;
  ids: Set<string>;
  begun: Set<string>;
  followed: Set<string>;
  keyIds: Set<string>;
  bytes: number;
  file: FileHandle | null;
};

const place: Place = { table: "audit journal", row: "", column: "line", revision: 0 };
const ending = ".journal";
/** A file that has grown to this is followed by the next one, so that it can be removed. */
const fullBytes = 256 * 1024;

export function createJournal({ folder, process, keyring, clock, onRejected, onError }: Options): Journal {
  type Waiting = { line: JournalLine; isGivenUp: boolean; resolve: () => void; reject: (error: unknown) => void };
  let waiting: Waiting[] = [];
  let writing: Promise<void> | null = null;
  let current: Segment | null = null;
  let count = 0;
  /** A write has not ended in time, and has not ended yet. */
  let hangs = false;
  /** The current file may hold a line that was given up. It must be removed as soon as its entries are done: nobody takes them over then. */
  let mustLeave = false;
  /** Whether all files in the folder are among `segments`. */
  let knowsAll = false;
  /** A look at the folder that has not ended yet. */
  let looking: Promise<readonly string[]> | null = null;
  const segments = new Set<Segment>();
  const removing = new Map<Segment, Promise<void>>();

  const writeWaiting = async (): Promise<void> => {
    while (waiting.length > 0) {
      let batch = waiting;
      waiting = [];
      try {
        if (mustLeave || isUnderOldKey()) await leave();
        const segment = current ?? (await openNext());
        batch = batch.filter(({ isGivenUp }) => !isGivenUp);
        if (batch.length === 0) continue;
        for (const { line } of batch) note(segment, line);
        segment.keyIds.add(keyring.current());
        const text = batch.map(({ line }) => seal(line)).join("");
        segment.bytes += text.length;
        await (segment.file as FileHandle).appendFile(text);
        await (segment.file as FileHandle).datasync();
        for (const { resolve } of batch) resolve();
        if (segment.bytes > fullBytes || mustLeave) await leave();
      } catch (error) {
        // A line that was written in part must stay the last one of its file.
        await leave();
        for (const { reject } of batch) reject(error);
      } finally {
        hangs = false;
      }
    }
  };

  const openNext = async (): Promise<Segment> => {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    count += 1;
    const path = join(folder, `${process}.${count}${ending}`);
    const segment = newSegment(path, await open(path, "ax", 0o600));
    segments.add(segment);
    // At once: it has no lines yet, and `done` removes whatever has none and is not the current one.
    current = segment;
    await syncFolder(folder);
    return segment;
  };

  const isWriting = (): boolean => writing !== null;
  const isUnderOldKey = (): boolean => [...(current?.keyIds ?? [])].some((id) => id !== keyring.current());

  /** The next line goes into another file. */
  const leave = async (): Promise<void> => {
    const left = current;
    current = null;
    mustLeave = false;
    if (left === null) return;
    await left.file?.close().catch(onError);
    left.file = null;
    removeIfDone(left);
  };

  const finish = async (): Promise<void> => {
    await writing;
    await leave();
    while (removing.size > 0) await Promise.all(removing.values());
  };

  const removeIfDone = (segment: Segment): void => {
    if (segment.ids.size > 0 || segment === current || removing.has(segment) || isMissed(segment)) return;
    const removal = rm(segment.path, { force: true })
      .catch(onError)
      .finally(() => {
        segments.delete(segment);
        removing.delete(segment);
        for (const each of segments) removeIfDone(each);
      });
    removing.set(segment, removal);
  };

  /** Whether an entry begins in another file that is still there. Without this one the next process would take it for one that was never written. */
  const isMissed = (segment: Segment): boolean =>
    [...segments].some((other) => other !== segment && [...segment.followed].some((id) => other.begun.has(id)));

  const seal = (line: JournalLine): string =>
    `${Buffer.from(keyring.seal(JSON.stringify(line), place)).toString("base64")}\n`;

  /** Null: this broker has not written it. */
  const unseal = (text: string): JournalLine | null => {
    const json = openedOrNull(() => keyring.open(Buffer.from(text, "base64"), place));
    return json === null ? null : (JSON.parse(json) as JournalLine);
  };

  /** The valid lines of a file that an ended process has left, and the keys of these. */
  const readLines = async (name: string): Promise<{ lines: JournalLine[]; keyIds: Set<string> }> => {
    const path = join(folder, name);
    const texts = (await readFile(path, "utf8")).split("\n");
    texts.pop(); // nothing, or a line that was never finished, and so never counted as durable
    const lines: JournalLine[] = [];
    const keyIds = new Set<string>();
    const rejected: string[] = [];
    for (const text of texts) {
      const line = unseal(text);
      if (line === null) {
        rejected.push(text);
        continue;
      }
      lines.push(line);
      keyIds.add(keyring.readableKeyId(Buffer.from(text, "base64")) as string);
    }
    if (rejected.length > 0) {
      await writeFile(`${path}.rejected`, rejected.map((text) => `${text}\n`).join(""), { mode: 0o600 });
      onRejected({ file: `${path}.rejected`, lines: rejected.length });
    }
    return { lines, keyIds };
  };

  /** While one look hangs, further ones are not tried. */
  const keyIdsInFolder = async (): Promise<readonly string[]> => {
    if (looking !== null) return keyring.ids;
    looking = keyIdsInJournals(folder, keyring)
      .catch(() => keyring.ids)
      .finally(() => (looking = null));
    return (await withDeadline(looking, auditTimes.diskMs, clock)) ?? keyring.ids;
  };

  return {
    async append(line) {
      if (hangs) throw tooSlow();
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const entry = { line, isGivenUp: false, resolve, reject };
      waiting.push(entry);
      writing ??= writeWaiting().finally(() => (writing = null));
      const isWritten = await withDeadline(
        promise.then(() => true),
        auditTimes.diskMs,
        clock,
      );
      if (isWritten !== null) return;
      entry.isGivenUp = true;
      mustLeave = true;
      hangs = isWriting();
      throw tooSlow();
    },
    done(ids) {
      for (const segment of segments) {
        for (const id of ids) segment.ids.delete(id);
        removeIfDone(segment);
      }
    },
    async takeOver() {
      const found = new Map<string, Leftover>();
      const outcomes = new Map<string, Outcome>();
      const writings = new Map<string, Leftover["writings"]>();
      const taken: Segment[] = [];
      let isWhole = true;
      const unread = (error: unknown): void => {
        isWhole = false;
        onError(error);
      };
      const names = await namesIn(folder).catch((error: unknown): string[] => {
        unread(error);
        return [];
      });
      for (const name of names.filter((each) => !each.startsWith(`${process}.`))) {
        try {
          const { lines, keyIds } = await readLines(name);
          const segment = { ...newSegment(join(folder, name), null), keyIds };
          taken.push(segment);
          for (const line of lines) {
            note(segment, line);
            if (line.kind === "begun") found.set(line.id, { ...line, outcome: null, writings: [] });
            else if (line.kind === "ended") outcomes.set(line.id, line.outcome);
            else {
              for (const [index, id] of line.ids.entries()) {
                writings.set(id, [...(writings.get(id) ?? []), { process: line.process, seq: line.seq + index }]);
              }
            }
          }
        } catch (error) {
          unread(error);
        }
      }
      const leftovers = [...found.values()].map(({ id, draft }) => ({
        id,
        draft,
        outcome: outcomes.get(id) ?? null,
        writings: writings.get(id) ?? [],
      }));
      for (const segment of taken) segments.add(segment);
      for (const segment of taken) {
        // Ends and writings of entries whose begin was in a file that is gone: those are done.
        for (const id of segment.ids) if (!found.has(id)) segment.ids.delete(id);
        removeIfDone(segment);
      }
      knowsAll = isWhole;
      return leftovers.sort((one, other) => one.draft.atMs - other.draft.atMs);
    },
    async keyIds() {
      // Where nothing is written, no line moves it on to another file.
      if (!isWriting() && isUnderOldKey()) void leave();
      if (!knowsAll) return await keyIdsInFolder();
      const ids = new Set<string>();
      const staying = [...segments].filter((segment) => !removing.has(segment));
      for (const { keyIds } of staying) for (const id of keyIds) ids.add(id);
      return [...ids];
    },
    async close() {
      await withDeadline(finish(), auditTimes.diskMs, clock);
    },
  };
}

/** The keys under which journals in this folder hold lines. Nothing is proven of these. @throws if something there cannot be read */
export async function keyIdsInJournals(
  folder: string,
  { readableKeyId }: Pick<Keyring, "readableKeyId">,
): Promise<string[]> {
  const texts = (await namesIn(folder)).map(async (name) => await readFile(join(folder, name), "utf8"));
  const lines = (await Promise.all(texts)).flatMap((text) => text.split("\n"));
  const ids = lines.map((line) => readableKeyId(Buffer.from(line, "base64")));
  return [...new Set(ids.filter((id) => id !== null))];
}

async function namesIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((error: unknown): string[] => {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  });
  return names.filter((name) => name.endsWith(ending)).sort();
}

function tooSlow(): Error {
  const seconds = auditTimes.diskMs / 1000;
  return Object.assign(new Error(`a write has not ended within ${seconds} s`), { code: "ETIMEDOUT" });
}

function newSegment(path: string, file: FileHandle | null): Segment {
  return { path, ids: new Set(), begun: new Set(), followed: new Set(), keyIds: new Set(), bytes: 0, file };
}

function note({ ids, begun, followed }: Segment, line: JournalLine): void {
  for (const id of idsOf(line)) {
    ids.add(id);
    (line.kind === "begun" ? begun : followed).add(id);
  }
}

function idsOf(line: JournalLine): readonly string[] {
  return line.kind === "writing" ? line.ids : [line.id];
}

/** A new file's name is durable only after its folder has been synced. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
