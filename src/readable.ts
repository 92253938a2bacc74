/**
 * What text from outside may hold unseen: control, format and bidi characters, zero-width ones, tags, fillers, halves of surrogate pairs,
 * and code points that mean nothing (Unicode: General_Category C, Default_Ignorable_Code_Point). For a character class, with the flag `u`.
 */
export const invisible = String.raw`\p{C}\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}`;

const runs = new RegExp(`[${invisible}]+`, "gu");

/** Text from outside as people may be shown it: whatever cannot be seen, or would change how the rest is read, becomes a space. */
export function readable(text: string): string {
  return text.replaceAll(runs, " ");
}

/** The same for a name that may be lacking; null: there is nothing to see. */
export function readableName(name: string | null): string | null {
  return name === null ? null : readable(name).trim() || null;
}

/** The pattern of one line that people read, with the flag `u`: at least one letter or digit, and nothing that is not seen. */
export function readableLine(longest: number): string {
  return `^(?=.*[\\p{L}\\p{N}])[^${invisible}]{1,${longest}}$`;
}
