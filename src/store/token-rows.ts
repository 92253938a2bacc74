import type { Database } from "./database.ts";
import { createDueRows } from "./due.ts";
import { createGrantRows } from "./grants.ts";
import { createPermitRows } from "./permits.ts";
import { tokenColumns, type TokenRow } from "./token-row.ts";

/** The statements of the refresh protocol: each moves a row along one arrow of tokens/README.md, with its history row. */
export type TokenRows = ReturnType<typeof createTokenRows>;

export function createTokenRows(database: Pick<Database, "prisma" | "commits">) {
  const { prisma } = database;
  return {
    /** Rows of these names; names without a connection are left out. */
    async readByName(names: readonly string[]): Promise<TokenRow[]> {
      return await prisma.$queryRaw`SELECT ${tokenColumns} FROM connections c WHERE c.name = ANY(${names}::text[])`;
    },

    /** Those of these ids that there are. */
    async readByIds(ids: readonly string[]): Promise<TokenRow[]> {
      return await prisma.$queryRaw`SELECT ${tokenColumns} FROM connections c WHERE c.id = ANY(${ids}::uuid[])`;
    },

    async readById(connectionId: string): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        SELECT ${tokenColumns} FROM connections c WHERE c.id = ${connectionId}::uuid`;
      return rows[0] ?? null;
    },

    ...createPermitRows(database),
    ...createGrantRows(database),
    ...createDueRows(database),
  };
}
