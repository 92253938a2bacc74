import { createHash, randomBytes } from "node:crypto";

/** So many a minute for each of any number of callers. */
export type MinuteLimit = {
  /** Counts one more. Null: it is within the limit; else the seconds after which the caller may come again. */
  take(caller: string): number | null;
  /** Whether the next one would be beyond the limit. */
  isSpent(caller: string): boolean;
};

const windowSeconds = 60;
/** Two bytes of a digest choose a cell of a row. */
const width = 65_536;
const rows = [0, 1] as const;

/**
 * Counts in a table of a fixed size, so that no number of callers makes it grow or pushes out what was counted of others: each
 * caller has a cell in either row, and counts as the lower of both says. A minute begins with a caller's first. Two callers
 * are taken for one where both of their cells are the same, which nobody can bring about: `secret` chooses them.
 */
export function createMinuteLimit(
  perMinute: number,
  clock: { monotonicMs(): number },
  secret: Uint8Array = randomBytes(32),
): MinuteLimit {
  const counts = rows.map(() => new Uint16Array(width));
  /** The second in which the minute of a cell is over. */
  const ends = rows.map(() => new Uint32Array(width));

  const cellsOf = (caller: string) => {
    const digest = createHash("sha256").update(secret).update(caller).digest();
    const now = clock.monotonicMs() / 1000;
    return rows.map((row) => {
      const index = digest.readUInt16LE(row * 2);
      const end = ends[row]?.[index] ?? 0;
      const left = Math.max(0, end - now);
      return { row, index, left, count: left === 0 ? 0 : (counts[row]?.[index] ?? 0), now };
    });
  };
  const countOf = (cells: ReturnType<typeof cellsOf>) => Math.min(...cells.map(({ count }) => count));

  return {
    isSpent: (caller) => countOf(cellsOf(caller)) >= perMinute,
    take(caller) {
      const cells = cellsOf(caller);
      const count = countOf(cells);
      if (count >= perMinute) return Math.max(1, Math.ceil(Math.min(...cells.map(({ left }) => left))));
      for (const { row, index, left, now, count: own } of cells) {
        if (left === 0) ends[row]?.set([Math.ceil(now) + windowSeconds], index);
        counts[row]?.set([Math.max(own, count + 1)], index);
      }
      return null;
    },
  };
}
