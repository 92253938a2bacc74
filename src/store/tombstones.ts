import type { Database } from "./database.ts";

/** What is left of a deleted connection: enough to revoke what its provider still grants. */
export type Tombstone = {
  name: string;
  provider: string;
  clientRef: string | null;
  inputs: Record<string, string>;
  captured: Record<string, string>;
};

export type Tombstones = ReturnType<typeof createTombstones>;

export function createTombstones({ prisma }: Pick<Database, "prisma">) {
  return {
    /** Null: it was never deleted, or more than a day ago. */
    async find(connectionId: string): Promise<Tombstone | null> {
      const rows = await prisma.$queryRaw<Tombstone[]>`
        SELECT name, provider, client_ref::text AS "clientRef", inputs, captured FROM tombstones
        WHERE connection_id = ${connectionId}::uuid AND deleted_at > clock_timestamp() - interval '24 hours'`;
      return rows[0] ?? null;
    },
  };
}
