import { eachAlone } from "../concurrency.ts";
import type { Marks } from "../coordination/marks.ts";
import type { SpoolEntry, SpoolKey, SpoolPlace, WantedSpool } from "../coordination/spool.ts";
import { DatabaseBusyError, isStorageUnavailable, UnreadableSecretError } from "../errors.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { GenerationMark } from "../store/due.ts";
import type { Tombstone, Tombstones } from "../store/token-sets.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import type { Absence, KeyList } from "../vault/keyring.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { Alarms, RefreshObserver } from "./core.ts";
import { type Placement, isRevocable, type AnswerStore, placeAnswer } from "./persist.ts";
import type { Sender } from "./request.ts";
import { type AnswerRecord, mayBeSentTo, openRecord, openTokens } from "./seal.ts";

export type Recovery = {
  /**
   * Call it at the start and whenever Postgres or Redis has come back. It drains the spools, then compares the rows with their marks.
   * False: a place did not answer, or a row was locked, so it must run again.
   */
  run(): Promise<boolean>;
  /**
   * Looks for the answer of an attempt in the spools, before a takeover. `clear`: there is none. `drained`: there was one, and the row has it
   * now. `silent`: a place does not answer, or has one that only another replica can open.
   */
  clear(row: Pick<TokenRow, "id" | "generation" | "attemptId">): Promise<"clear" | "drained" | "silent">;
};

type Parts = {
  rows: TokenStatements;
  accounts: Pick<AccountRows, "addUnconfirmed">;
  vault: TokenVault;
  keys: KeyList;
  tombstones: Tombstones;
  spools: Spools;
  marks: Marks;
  answerStore: Pick<AnswerStore, "hasUnstored">;
  sender: Pick<Sender, "prepare" | "prepareRemains" | "revokeGrant">;
  observer: RefreshObserver;
  alarms: Alarms;
  learn: (row: TokenRow) => void;
  /** Called for records that cannot be placed. They stay where they are. */
  onError: (error: unknown) => void;
};

const markBatch = 1000;
/** How many connections' answers are stored at a time, so that a locked row does not delay the others. */
const drainedAtOnce = 4;

export function createRecovery(parts: Parts): Recovery {
  const { rows, vault, keys, spools, marks, answerStore, observer, alarms, learn, onError } = parts;
  const alone = { onError, isForAll: isStorageUnavailable, atOnce: drainedAtOnce };

  /** `absent`: this broker did not write it, or no replica can open it. It stays where it is, and stops nothing. */
  const open = async (entry: FoundEntry): Promise<AnswerRecord | Absence> => {
    try {
      return openRecord(vault, entry.record, entry);
    } catch (error) {
      if (error instanceof UnreadableSecretError && (await keys.isSilent(error))) return "silent";
      if (entry.place === "redis") alarms.rejected("spool", entry.connectionId);
      else if (error instanceof UnreadableSecretError) alarms.unreadable(error);
      return "absent";
    }
  };

  /** @throws while Postgres is away; the record stays where it is */
  const drainOne = async (entry: FoundEntry): Promise<"drained" | Absence> => {
    // This process still has the answer in memory and is storing it.
    if (answerStore.hasUnstored(entry.connectionId, entry.generation)) return "drained";
    const record = await open(entry);
    if (record === "absent" || record === "silent") return record;
    const placement = await placeAnswer(parts, record);
    await spools.remove(entry);
    if (placement.kind === "unwanted") await revokeLate(parts, record, placement).catch(onError);
    if (placement.kind === "duplicate") observer.cameLate(placement.row, placement.kind);
    if (placement.row === null || placement.kind === "duplicate") return "drained";
    marks.raise(placement.row.id, placement.row);
    learn(placement.row);
    observer.drained(placement.row);
    return "drained";
  };

  /** Two places may have copies of an answer. The first copy that opens counts. */
  const drainer = () => {
    const done = new Set<string>();
    return async (entry: FoundEntry): Promise<"drained" | Absence> => {
      if (done.has(entry.attemptId)) return "drained";
      const end = await drainOne(entry);
      if (end === "drained") done.add(entry.attemptId);
      return end;
    };
  };

  const hold = async (behind: readonly GenerationMark[]): Promise<void> => {
    for (const row of await rows.suspendRestored(behind)) {
      learn(row);
      observer.suspendedAfterRestore(row);
    }
  };

  /** Suspends rows that are behind their marks, and notes missing marks. False: the marks do not answer. */
  const compare = async (batch: readonly GenerationMark[]): Promise<boolean> => {
    const higher = await marks.compare(new Map(batch.map((row) => [row.connectionId, row])));
    if (higher === null) return false;
    if (higher.size === 0) return true;
    const behind = [...higher].map(([connectionId, { generation, version }]) => ({
      connectionId,
      generation,
      version,
    }));
    try {
      await hold(behind);
      return true;
    } catch (error) {
      if (!(error instanceof DatabaseBusyError)) throw error;
    }
    // One of the rows is locked, so they are suspended one by one.
    await eachAlone(behind, async (mark) => await hold([mark]), alone);
    return false;
  };

  const compareAll = async (): Promise<boolean> => {
    let isComplete = true;
    let last: string | null = null;
    for (;;) {
      const batch: GenerationMark[] = await rows.generationsAfter(last, markBatch);
      if (batch.length > 0) isComplete = (await compare(batch)) && isComplete;
      last = batch.at(-1)?.connectionId ?? null;
      if (batch.length < markBatch) return isComplete;
    }
  };

  return {
    async run() {
      const { entries, isComplete } = await spools.list();
      const drain = drainer();
      let busyRows = 0;
      const tell = (error: unknown) => {
        if (error instanceof DatabaseBusyError) busyRows += 1;
        onError(error);
      };
      const drainAll = async (ofConnection: FoundEntry[]) =>
        await eachAlone(ofConnection, drain, { onError: tell, isForAll: isStorageUnavailable });
      await eachAlone([...Map.groupBy(entries, ({ connectionId }) => connectionId).values()], drainAll, alone);
      return (await compareAll()) && isComplete && busyRows === 0;
    },
    async clear({ id: connectionId, generation, attemptId }) {
      if (answerStore.hasUnstored(connectionId, generation)) return "drained";
      const { entries, isComplete } = await spools.find({ connectionId, generation, attemptId });
      const ends = new Set<"drained" | Absence>();
      const drain = drainer();
      for (const entry of entries) ends.add(await drain(entry));
      if (ends.has("drained")) return "drained";
      return ends.has("silent") || !isComplete ? "silent" : "clear";
    },
  };
}

/** Revokes a late answer whose connection was deleted within the last day, or whose grant a person has replaced. Best effort. */
async function revokeLate(parts: Parts, record: AnswerRecord, placement: Placement): Promise<void> {
  const { vault, sender, tombstones } = parts;
  const tombstone = placement.row === null ? await tombstones.find(record.connectionId) : null;
  const preparing = placement.row
    ? sender.prepare(placement.row)
    : tombstone && prepareRemains(parts, record, tombstone);
  const context = await Promise.resolve(preparing).catch(() => null);
  if (context === null || !mayBeSentTo(record, context.owner, context.definition)) return;
  const { accessToken, refreshToken } = openTokens(vault, record);
  const tokens = { ...(refreshToken !== null && { refreshToken }), ...(accessToken !== null && { accessToken }) };
  if (!isRevocable(vault, context, { placement, tokens })) return;
  await sender.revokeGrant(context, tokens);
}

/** A tombstone has no MAC, so the sealed record itself must say to which hosts anything is sent, even a request for metadata. */
function prepareRemains({ sender }: Parts, { destination, grant }: AnswerRecord, tombstone: Tombstone) {
  const { name, provider, client, inputs } = destination;
  const isIts = tombstone.name === name && tombstone.provider === provider && tombstone.clientRef === client;
  const own = { inputs: { ...tombstone.inputs, ...inputs }, captured: grant.captured };
  return isIts ? sender.prepareRemains({ ...tombstone, ...own }) : null;
}

/** A record and the place where it was found. Two places may have the same answer, and one of them may be a forgery. */
type FoundEntry = SpoolEntry & { place: SpoolPlace["name"] };

/** All places for answers that Postgres cannot take. */
export type Spools = {
  /** Resolves to true with the first durable copy, to false if no place takes it. Writes to all places. Never rejects. */
  put(entry: SpoolEntry): Promise<boolean>;
  /** Removes it from all places, best effort. A copy that stays is recognised as stored when it is drained. */
  remove(key: SpoolKey): Promise<void>;
  /** All records in all places. `isComplete` false: a place does not answer. */
  list(): Promise<{ entries: FoundEntry[]; isComplete: boolean }>;
  /** The same of one generation. */
  find(wanted: WantedSpool): Promise<{ entries: FoundEntry[]; isComplete: boolean }>;
};

type Options = { places: readonly SpoolPlace[]; onError: (place: SpoolPlace["name"], error: unknown) => void };

/** @param options.onError called for every place that fails. A full disk is reported and does not stop the broker */
export function createSpools({ places, onError }: Options): Spools {
  const writing = new Map<string, Promise<unknown>>();
  const report = (place: SpoolPlace) => (error: unknown) => {
    onError(place.name, error);
    throw error;
  };
  const gather = async (ask: (place: SpoolPlace) => Promise<SpoolEntry[]>) => {
    const answers = await Promise.allSettled(
      places.map(async (place) => {
        const found = await ask(place).catch(report(place));
        return found.map((entry) => foundAt(place, entry));
      }),
    );
    const entries = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
    return { entries, isComplete: answers.every(({ status }) => status === "fulfilled") };
  };
  return {
    async put(entry) {
      const puts = places.map((place) => place.put(entry).catch(report(place)));
      const all = Promise.allSettled(puts);
      writing.set(entry.attemptId, all);
      void all.then(() => writing.delete(entry.attemptId));
      return await Promise.any(puts).then(
        () => true,
        () => false,
      );
    },
    async remove(key) {
      await writing.get(key.attemptId); // wait for the write: a copy that is written after its removal would stay
      await Promise.allSettled(places.map((place) => place.remove(key).catch(report(place))));
    },
    list: async () => await gather(async (place) => await place.list()),
    find: async (wanted) => await gather(async (place) => await place.find(wanted)),
  };
}

function foundAt({ name }: SpoolPlace, entry: SpoolEntry): FoundEntry {
  return { ...entry, place: name };
}
