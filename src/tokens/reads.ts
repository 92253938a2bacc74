import type { TokenRow } from "../store/token-row.ts";

/** Which tokens are being read, so that they are refreshed ahead of their readers. A read itself writes nothing. */
export type Reads = {
  note(row: Pick<TokenRow, "id" | "generation" | "inUse">): void;
  /** What was read for the first time since the last call. */
  take(): { id: string; generation: number }[];
  /** They could not be noted in the store: the next call gives them again. */
  giveBack(read: readonly { id: string; generation: number }[]): void;
};

const maxRemembered = 100_000;

export function createReads(): Reads {
  const noted = new Map<string, number>();
  const fresh = new Map<string, number>();
  return {
    note({ id, generation, inUse }) {
      if (inUse || noted.get(id) === generation) return;
      noted.set(id, generation);
      fresh.set(id, generation);
      if (noted.size > maxRemembered) noted.delete(noted.keys().next().value as string);
    },
    take() {
      const all = [...fresh].map(([id, generation]) => ({ id, generation }));
      fresh.clear();
      return all;
    },
    giveBack(read) {
      for (const { id, generation } of read) if (!fresh.has(id)) fresh.set(id, generation);
    },
  };
}
