/** What somebody may have meant; undefined: nothing is like it. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const [near] = known
    .map((candidate) => ({ candidate, distance: editDistance(name.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ candidate, distance }) => distance <= Math.max(1, Math.floor(candidate.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  return near?.candidate;
}

/** The same as a sentence to put behind an error, ` Did you mean "sandbox"?`; empty: nothing is like it. */
export function didYouMean(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  return near === undefined ? "" : ` Did you mean "${near}"?`;
}

/** How many letters to add, drop, change, or swap with the next one. */
export function editDistance(from: string, to: string): number {
  const rows = [Array.from({ length: to.length + 1 }, (_, index) => index)];
  for (const [index, letter] of from.split("").entries()) {
    const [above = [], before = []] = [rows[index], rows[index - 1]];
    const row = [index + 1];
    for (const [column, other] of to.split("").entries()) {
      const change = (above[column] ?? 0) + (letter === other ? 0 : 1);
      const isSwap = letter === to[column - 1] && other === from[index - 1];
      const swap = isSwap ? (before[column - 1] ?? 0) + 1 : Infinity;
      row.push(Math.min(change, swap, (above[column + 1] ?? 0) + 1, (row[column] ?? 0) + 1));
    }
    rows.push(row);
  }
  return rows.at(-1)?.at(-1) ?? 0;
}
