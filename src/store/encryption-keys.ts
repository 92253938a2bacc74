import type { Database } from "./database.ts";

/** A key that has sealed something in this database, with a sealed constant to know it by. */
export type KnownKey = { id: string; check: Uint8Array };

/** Queries on the keys that this database's data is sealed with. */
export function createEncryptionKeys({ prisma }: Database) {
  return {
    async list(): Promise<KnownKey[]> {
      return await prisma.encryptionKey.findMany({ select: { id: true, check: true } });
    },
  };
}
