import { isStorageUnavailable } from "../errors.ts";
import type { Marks } from "../marks/marks.ts";
import type { SpoolEntry } from "../spool/spool.ts";
import type { AccountRows } from "../store/account-rows.ts";
import type { GenerationMark } from "../store/due-rows.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenRows } from "../store/token-rows.ts";
import type { Tombstones } from "../store/tombstones.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { openRecord, openTokens, type AnswerRecord } from "./answer-record.ts";
import { isRevocable, type Keeper } from "./keeping.ts";
import { placeAnswer, type Fate } from "./late-answers.ts";
import type { RefreshObserver } from "./observer.ts";
import type { Sender } from "./sending.ts";
import type { Spools } from "./spools.ts";

export type Recovery = {
  /**
   * At the start and whenever Postgres or Redis has come back: drains the spools, then looks for rows gone back in time.
   * False: a place did not answer, and must be looked at again.
   */
  run(): Promise<boolean>;
  /**
   * Whether an attempt may be taken over as far as spools tell. `drained`: its answer was there, and the row has it now;
   * `silent`: a place that may hold it does not answer.
   */
  clear(connectionId: string, generation: number): Promise<"clear" | "drained" | "silent">;
};

type Parts = {
  rows: TokenRows;
  accounts: Pick<AccountRows, "holdGrant">;
  vault: TokenVault;
  tombstones: Tombstones;
  spools: Spools;
  marks: Marks;
  keeper: Pick<Keeper, "holds">;
  sender: Pick<Sender, "prepare" | "revokeGrant">;
  observer: RefreshObserver;
  learn: (row: TokenRow) => void;
  /** Told of records that cannot be opened, which stay where they are. */
  onError: (error: unknown) => void;
};

const markBatch = 1000;

export function createRecovery(parts: Parts): Recovery {
  const { rows, vault, spools, marks, keeper, observer, learn, onError } = parts;

  const open = (entry: SpoolEntry): AnswerRecord | null => {
    try {
      return openRecord(vault, entry.record, entry);
    } catch (error) {
      onError(error);
      return null;
    }
  };

  /** @throws while Postgres is gone: the record stays where it is */
  const drain = async (entry: SpoolEntry): Promise<void> => {
    // What this process still holds is stored by its holder.
    const record = keeper.holds(entry.connectionId, entry.generation) ? null : open(entry);
    if (record === null) return;
    const fate = await placeAnswer(parts, record);
    await spools.remove(entry);
    if (fate.kind === "unwanted") await revokeLate(parts, record, fate);
    if (fate.row === null) return;
    marks.raise(fate.row.id, fate.row);
    learn(fate.row);
    observer.drained(fate.row);
  };

  /** One record that cannot be placed keeps no other from it. */
  const reportFault = (error: unknown): void => {
    if (isStorageUnavailable(error)) throw error;
    onError(error);
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
    for (const row of await rows.holdGoneBack(behind)) {
      learn(row);
      observer.heldAfterRestore(row);
    }
    return true;
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
      for (const entry of entries) await drain(entry).catch(reportFault);
      return (await compareAll()) && isComplete;
    },
    async clear(connectionId, generation) {
      if (keeper.holds(connectionId, generation)) return "drained";
      const found = await spools.find(connectionId, generation);
      if (found === "silent") return "silent";
      for (const entry of found) await drain(entry);
      return found.length === 0 ? "clear" : "drained";
    },
  };
}

/** A late answer whose connection is gone, or whose grant a person has replaced. Best effort, and within a day of a deletion. */
async function revokeLate(parts: Parts, record: AnswerRecord, fate: Fate): Promise<void> {
  const { vault, sender, tombstones } = parts;
  const remains = fate.row ?? (await tombstones.find(record.connectionId));
  const sendable = remains === null ? null : await sender.prepare(remains).catch(() => null);
  const { accessToken, refreshToken } = openTokens(vault, record);
  const tokens = { ...(refreshToken !== null && { refreshToken }), ...(accessToken !== null && { accessToken }) };
  if (sendable === null || !isRevocable(vault, sendable, { fate, tokens })) return;
  await sender.revokeGrant(sendable, tokens);
}
