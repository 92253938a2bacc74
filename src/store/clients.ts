import type { Database } from "./database.ts";
import type { PageRequest } from "./page.ts";

/** A client's row; secrets sealed, the newer one under `secretRevision`, the older under the revision before. */
export type ClientRow = {
  id: string;
  name: string;
  provider: string;
  clientId: string;
  secretRevision: number;
  secret: Uint8Array | null;
  previousSecret: Uint8Array | null;
  scopes: string[];
  inputs: Record<string, string>;
  createdAt: Date;
  updatedAt: Date;
};

export type NewClient = Omit<ClientRow, "secret" | "previousSecret" | "createdAt" | "updatedAt"> & {
  secret: Uint8Array<ArrayBuffer> | null;
};

export type ClientChanges = { clientId?: string; scopes?: string[]; inputs?: Record<string, string> };

export type Clients = ReturnType<typeof createClients>;

/** Queries on OAuth clients. */
export function createClients({ prisma }: Database) {
  return {
    async findById(id: string): Promise<ClientRow | null> {
      return (await prisma.client.findUnique({ where: { id } })) as ClientRow | null;
    },

    async findByName(name: string): Promise<ClientRow | null> {
      return (await prisma.client.findUnique({ where: { name } })) as ClientRow | null;
    },

    /** Newest first. */
    async list({ limit, after }: PageRequest, filter: { provider?: string } = {}): Promise<ClientRow[]> {
      const rows = await prisma.client.findMany({
        where: { ...filter, ...(after ? { OR: olderThan(after) } : {}) },
        orderBy: [{ createdAt: "desc" }, { id: "desc" }],
        take: limit,
      });
      return rows as ClientRow[];
    },

    /** @throws a unique violation when the name is taken */
    async insert(client: NewClient): Promise<ClientRow> {
      return (await prisma.client.create({ data: client })) as ClientRow;
    },

    async update(id: string, changes: ClientChanges): Promise<ClientRow> {
      return (await prisma.client.update({ where: { id }, data: { ...changes, updatedAt: new Date() } })) as ClientRow;
    },

    /**
     * Puts a new secret in place and keeps the one before as a second choice.
     * Null: the secret has been changed by somebody else since `revision` was read.
     */
    async replaceSecret(
      id: string,
      { revision, secret }: { revision: number; secret: Uint8Array<ArrayBuffer> },
    ): Promise<ClientRow | null> {
      const changed = await prisma.$executeRaw`
        UPDATE clients SET previous_secret_sealed = secret_sealed, secret_sealed = ${secret},
          secret_revision = secret_revision + 1, updated_at = clock_timestamp()
        WHERE id = ${id}::uuid AND secret_revision = ${revision}`;
      return changed === 0 ? null : await this.findById(id);
    },

    /** The newest secret has worked: the one before is of no use any more. */
    async forgetPreviousSecret(id: string, revision: number): Promise<void> {
      await prisma.$executeRaw`
        UPDATE clients SET previous_secret_sealed = NULL WHERE id = ${id}::uuid AND secret_revision = ${revision}`;
    },

    /** The client was mended: its connections that failed for its sake may be tried again at once. */
    async retryConnections(id: string): Promise<void> {
      await prisma.$executeRaw`
        UPDATE connections SET backoff_until = NULL,
          status = CASE WHEN status = 'needs_reauthorization' AND grant_type = 'client_credentials' THEN 'pending'
            ELSE status END,
          enabled_status = CASE WHEN enabled_status = 'needs_reauthorization' AND grant_type = 'client_credentials'
            THEN 'pending' ELSE enabled_status END
        WHERE client_ref = ${id}::uuid AND (last_error_code = 'invalid_client' OR grant_type = 'client_credentials')`;
    },

    /** Inputs and client ids of several clients, for callers that need no secret. */
    async findMany(ids: string[]): Promise<ClientRow[]> {
      return (await prisma.client.findMany({ where: { id: { in: ids } } })) as ClientRow[];
    },

    async countConnections(id: string): Promise<number> {
      return await prisma.connection.count({ where: { clientRef: id } });
    },

    async delete(id: string): Promise<void> {
      await prisma.client.delete({ where: { id } });
    },
  };
}

function olderThan({ createdAt, id }: { createdAt: Date; id: string }) {
  return [{ createdAt: { lt: createdAt } }, { createdAt, id: { lt: id } }];
}
