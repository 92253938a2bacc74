import type { Database } from "./database.ts";
import type { PageRequest } from "./page.ts";

export const abilities = ["tokens", "connections", "admin"] as const;
export type Ability = (typeof abilities)[number];

/** A caller's key; of its secret only the hash is known. */
export type ApiKeyRow = {
  id: string;
  name: string;
  secretHash: Uint8Array;
  abilities: Ability[];
  connections: string[];
  expiresAt: Date | null;
  revokedAt: Date | null;
  createdAt: Date;
};

export type NewApiKey = Omit<ApiKeyRow, "secretHash" | "revokedAt" | "createdAt"> & {
  secretHash: Uint8Array<ArrayBuffer>;
};

export type ApiKeys = ReturnType<typeof createApiKeys>;

/** Queries on API keys. */
export function createApiKeys({ prisma }: Database) {
  return {
    async findMany(ids: string[]): Promise<ApiKeyRow[]> {
      return (await prisma.apiKey.findMany({ where: { id: { in: ids } } })) as ApiKeyRow[];
    },

    /** Newest first, revoked ones too. */
    async list({ limit, after }: PageRequest): Promise<ApiKeyRow[]> {
      const older = after ? { OR: [{ createdAt: { lt: after.createdAt } }, { ...after, id: { lt: after.id } }] } : {};
      const rows = await prisma.apiKey.findMany({
        where: older,
        orderBy: [{ createdAt: "desc" }, { id: "desc" }],
        take: limit,
      });
      return rows as ApiKeyRow[];
    },

    async insert(key: NewApiKey): Promise<ApiKeyRow> {
      return (await prisma.apiKey.create({ data: key })) as ApiKeyRow;
    },

    /** False: there is no such key. Revoking twice changes nothing. */
    async revoke(id: string): Promise<boolean> {
      const count = await prisma.$executeRaw`
        UPDATE api_keys SET revoked_at = COALESCE(revoked_at, clock_timestamp()) WHERE id = ${id}`;
      return count === 1;
    },
  };
}
