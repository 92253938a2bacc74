import { Prisma as Sql } from "../generated/prisma/client.ts";

/** The row of somebody who gives rights, as it was read. */
export type Giver = {
  mac: string | null;
  /** Selects it while it still stands so. FOR SHARE waits for an end of it that is under way; a later end finds what was given. */
  standing: Sql.Sql;
};

/** Reads the giver's row; null: it has ended. */
export type FindGiver = () => Promise<Giver | null>;

/**
 * Runs an INSERT that takes effect only while the giver's row stands. `find` null: no row says what the giver may (ADMIN_KEY,
 * WORKLOADS_FILE). Null: the giver has ended, or the INSERT found that it may not be.
 */
export async function insertGiven<Row>(
  find: FindGiver | null,
  insert: (isGiven: Sql.Sql) => Promise<Row[]>,
): Promise<Row | null> {
  if (find === null) return (await insert(Sql.sql`true`))[0] ?? null;
  for (let before: Giver | null = null; ;) {
    const giver = await find();
    // Only a rotation of encryption keys, which signs rows anew, is a reason to try again.
    if (giver === null || giver.mac === before?.mac) return null;
    const [row] = await insert(Sql.sql`EXISTS (SELECT 1 FROM (${giver.standing}) giver)`);
    if (row !== undefined) return row;
    before = giver;
  }
}
