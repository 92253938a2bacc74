import { eachAlone } from "../each-alone.ts";
import { DatabaseBusyError, isStorageUnavailable } from "../errors.ts";
import type { Marks } from "../marks/marks.ts";
import type { AccountRows } from "../store/account-rows.ts";
import type { GenerationMark } from "../store/due-rows.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenRows } from "../store/token-rows.ts";
import type { Tombstone, Tombstones } from "../store/tombstones.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { UnreadableSecretError } from "../unreadable.ts";
import type { Absence, KeyList } from "../vault/key-list.ts";
import { openRecord, openTokens, type AnswerRecord } from "./answer-record.ts";
import { mayBeSentTo } from "./destination.ts";
import { isRevocable, type Keeper } from "./keeping.ts";
import { placeAnswer, type Fate } from "./late-answers.ts";
import type { Alarms, RefreshObserver } from "./observer.ts";
import type { Sender } from "./sending.ts";
import type { FoundEntry, Spools } from "./spools.ts";

export type Recovery = {
  /**
   * At the start and whenever Postgres or Redis has come back: drains the spools, then looks for rows gone back in time.
   * False: a place did not answer, or a row was locked, and all must be looked at again.
   */
  run(): Promise<boolean>;
  /**
   * Whether an attempt may be taken over as far as spools tell. `drained`: its answer was there, and the row has it now;
   * `silent`: a place that may hold it does not answer, or it holds one that only another replica can open.
   */
  clear(row: Pick<TokenRow, "id" | "generation" | "attemptId">): Promise<"clear" | "drained" | "silent">;
};

type Parts = {
  rows: TokenRows;
  accounts: Pick<AccountRows, "holdGrant">;
  vault: TokenVault;
  keys: KeyList;
  tombstones: Tombstones;
  spools: Spools;
  marks: Marks;
  keeper: Pick<Keeper, "holds">;
  sender: Pick<Sender, "prepare" | "prepareRemains" | "revokeGrant">;
  observer: RefreshObserver;
  alarms: Alarms;
  learn: (row: TokenRow) => void;
  /** Told of records that cannot be placed, which stay where they are. */
  onError: (error: unknown) => void;
};

const markBatch = 1000;
/** Connections whose answers are stored at once, so that one whose row is locked does not hold up the others. */
const drainedAtOnce = 4;

export function createRecovery(parts: Parts): Recovery {
  const { rows, vault, keys, spools, marks, keeper, observer, alarms, learn, onError } = parts;
  const alone = { onError, isForAll: isStorageUnavailable, atOnce: drainedAtOnce };

  /** `absent`: nobody of ours wrote it, or nobody can open it. It stays where it is, and holds up nothing. */
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

  /** @throws while Postgres is gone: the record stays where it is */
  const drainOne = async (entry: FoundEntry): Promise<"drained" | Absence> => {
    // What this process still holds is stored by its holder.
    if (keeper.holds(entry.connectionId, entry.generation)) return "drained";
    const record = await open(entry);
    if (record === "absent" || record === "silent") return record;
    const fate = await placeAnswer(parts, record);
    await spools.remove(entry);
    if (fate.kind === "unwanted") await revokeLate(parts, record, fate).catch(onError);
    if (fate.kind === "duplicate") observer.cameLate(fate.row, fate.kind);
    if (fate.row === null || fate.kind === "duplicate") return "drained";
    marks.raise(fate.row.id, fate.row);
    learn(fate.row);
    observer.drained(fate.row);
    return "drained";
  };

  /** Two places may hold copies of an answer: the first that opens counts. */
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
    for (const row of await rows.holdGoneBack(behind)) {
      learn(row);
      observer.heldAfterRestore(row);
    }
  };

  /** Rows behind their marks are held; marks that are missing are noted. False: the marks do not answer. */
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
    // One of them is locked: the others are held without it.
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
      if (keeper.holds(connectionId, generation)) return "drained";
      const { entries, isComplete } = await spools.find({ connectionId, generation, attemptId });
      const ends = new Set<"drained" | Absence>();
      const drain = drainer();
      for (const entry of entries) ends.add(await drain(entry));
      if (ends.has("drained")) return "drained";
      return ends.has("silent") || !isComplete ? "silent" : "clear";
    },
  };
}

/** A late answer whose connection is gone, or whose grant a person has replaced. Best effort, and within a day of a deletion. */
async function revokeLate(parts: Parts, record: AnswerRecord, fate: Fate): Promise<void> {
  const { vault, sender, tombstones } = parts;
  const tombstone = fate.row === null ? await tombstones.find(record.connectionId) : null;
  const preparing = fate.row ? sender.prepare(fate.row) : tombstone && prepareRemains(parts, record, tombstone);
  const sendable = await Promise.resolve(preparing).catch(() => null);
  if (sendable === null || !mayBeSentTo(record, sendable.owner, sendable.definition)) return;
  const { accessToken, refreshToken } = openTokens(vault, record);
  const tokens = { ...(refreshToken !== null && { refreshToken }), ...(accessToken !== null && { accessToken }) };
  if (!isRevocable(vault, sendable, { fate, tokens })) return;
  await sender.revokeGrant(sendable, tokens);
}

/** Nothing vouches for a tombstone: whose hosts are asked, be it only for metadata, is the record's own word. */
function prepareRemains({ sender }: Parts, { destination, grant }: AnswerRecord, tombstone: Tombstone) {
  const { name, provider, client, inputs } = destination;
  const isIts = tombstone.name === name && tombstone.provider === provider && tombstone.clientRef === client;
  const own = { inputs: { ...tombstone.inputs, ...inputs }, captured: grant.captured };
  return isIts ? sender.prepareRemains({ ...tombstone, ...own }) : null;
}
