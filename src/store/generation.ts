/** Postgres's largest integer. No row gets there by itself, and one that somebody has put there can store nothing any more. */
export const lastGeneration = 2_147_483_647;

/** The generation after this row's, and after all that were stored before its database went back in time. */
export function nextGeneration(row: { generation: number; goneBackFrom: number | null }): number {
  return Math.max(row.generation, row.goneBackFrom ?? 0) + 1;
}
