/**
 * What text from outside may hold unseen: control, format and bidi characters, zero-width ones, tags, fillers, halves of surrogate pairs,
 * blank braille, and code points that mean nothing (Unicode: General_Category C, Default_Ignorable_Code_Point). For a character class, with the flag `u`.
 */
export const invisible = String.raw`\p{C}\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}\u2800`;

const runs = new RegExp(`[${invisible}]+`, "gu");
/** No script needs more combining marks on one letter. More of them cover the lines around it. */
const mostMarks = 6;
const stacks = new RegExp(`(\\p{M}{${mostMarks}})\\p{M}+`, "gu");

/** Text from outside, made safe to show to people: each character that is invisible, or changes how the rest reads, becomes a space. */
export function readable(text: string): string {
  return text.replaceAll(runs, " ").replaceAll(stacks, "$1");
}

/** The same for a name that may be missing; null: it has no visible character. */
export function readableName(name: string | null): string | null {
  return name === null ? null : readable(name).trim() || null;
}

/** The pattern of one line that people read, with the flag `u`: at least one letter or digit, nothing that is not seen, no tower of marks. */
export function readableLine(longest: number): string {
  return `^(?=.*[\\p{L}\\p{N}])(?!.*\\p{M}{${mostMarks + 1}})[^${invisible}]{1,${longest}}$`;
}

/** Text for a terminal: its control characters, which a terminal would obey, are written out. */
export function withoutControls(text: string): string {
  return text.replaceAll(
    /\p{Cc}/gu,
    (character) => String.raw`\u` + character.charCodeAt(0).toString(16).padStart(4, "0"),
  );
}

/** A wrong setting in quotes. Any of them may be a URL by mistake, so what may be a user and a password before an @ is left out. */
export function quotedSetting(text: string): string {
  return JSON.stringify(text.replace(/(^|:\/\/).*@/s, "$1…@"));
}

/** The candidate that somebody may have meant; undefined: none is similar. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const [near] = known
    .map((candidate) => ({ candidate, distance: editDistance(name.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ candidate, distance }) => distance <= Math.max(1, Math.floor(candidate.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  return near?.candidate;
}

/** The same as a sentence for the end of an error, ` Did you mean "sandbox"?`; empty: none is similar. */
export function didYouMean(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  return near === undefined ? "" : ` Did you mean "${near}"?`;
}

/** The edit distance: how many letters to add, drop, change, or swap with the next one. */
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

/** The name of the row that a further token of a connection has. No connection's own name may contain `#`. */
export function furtherTokenName(connection: string, furtherToken: string): string {
  return `${connection}#${furtherToken}`;
}

/** A name that no row has, for a caller who is to get the answer, and the time, of a connection that does not exist. */
export function nobodysName(connection: string): string {
  return furtherTokenName(connection, "");
}

/** The name that people know a row by: its connection's. */
export function publicName(name: string): string {
  return name.split("#", 1)[0] ?? name;
}
