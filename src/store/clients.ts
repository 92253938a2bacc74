import { publicName } from "../text.ts";
import { Prisma as Sql } from "../generated/prisma/client.ts";
import { grantsOfClient } from "../grant-types.ts";
import type { RowProofs } from "../proven-rows.ts";
import { type Columns, selectList, takeJoined } from "./columns.ts";
import type { PageRequest } from "./connections.ts";
import type { Database } from "./database.ts";
import { hasOrAwaitsSecrets, json, liesWithin } from "./row-sql.ts";

/** A client's row. Its secrets are sealed: the newer one for `secretRevision`, the older for the revision before. */
export type ClientRow = {
  id: string;
  name: string;
  provider: string;
  clientId: string;
  secretRevision: number;
  secret: Uint8Array | null;
  previousSecret: Uint8Array | null;
  /** Since when there are two; null: there are not. */
  secretRotatingSince: Date | null;
  /** Since when the newer one is refused while the older one works; null: not known. */
  oldSecretSince: Date | null;
  scopes: string[];
  /** Names of connections that keys without `admin` may use it for, `*` standing for any characters. */
  patterns: string[];
  inputs: Record<string, string>;
  /** Whether the provider sends browsers back to an address of this client alone. */
  ownRedirectUri: boolean;
  createdAt: Date;
  updatedAt: Date;
  /** The MAC over the columns that people set; see proven-rows.ts. */
  mac: string | null;
};

export type NewClient = Omit<
  ClientRow,
  "secret" | "previousSecret" | "secretRotatingSince" | "oldSecretSince" | "createdAt" | "updatedAt" | "mac"
> & {
  secret: Uint8Array<ArrayBuffer> | null;
};

export type ClientChanges = {
  clientId?: string;
  scopes?: string[];
  patterns?: string[];
  /** All of them. They decide to which hosts the secrets of the client's connections are sent. */
  inputs?: Record<string, string>;
  /** Sealed for the revision after the one that was read. */
  secret?: Uint8Array<ArrayBuffer>;
  /** The secret that stays beside it, instead of the newest so far, sealed for the revision that was read. */
  keptSecret?: Uint8Array<ArrayBuffer>;
  ownRedirectUri?: boolean;
};

export type Clients = ReturnType<typeof createClients>;

/** Raw SQL: if somebody has put odd values into a list by hand, Prisma's query builder can read neither that row nor the others. */
const columns: Columns<ClientRow> = {
  id: "k.id::text",
  name: "k.name",
  provider: "k.provider",
  clientId: "k.client_id",
  secretRevision: "k.secret_revision",
  secret: "k.secret_sealed",
  previousSecret: "k.previous_secret_sealed",
  secretRotatingSince: "k.secret_rotating_since",
  oldSecretSince: "k.old_secret_since",
  scopes: "k.scopes",
  patterns: "k.connections",
  inputs: "k.inputs",
  ownRedirectUri: "k.own_redirect_uri",
  createdAt: "k.created_at",
  updatedAt: "k.updated_at",
  mac: "k.mac",
};

export const clientColumns = selectList(columns);

/** The columns of `clients k` beside those of another table, for `splitClient`. */
export const joinedClientColumns = selectList(columns, "client.");

/** A row that was read with `joinedClientColumns`, as two; no client where the join found none. */
export function splitClient<Row extends object>(joined: Row): { row: Row; client: ClientRow | null } {
  const [client, row] = takeJoined(columns, "client.", joined);
  return { row, client: (client.id as string | null) === null ? null : client };
}

/** For every token request one, so that it is made from the client as it is then. */
const byId = {
  name: "clients by id",
  text: Sql.sql`SELECT ${clientColumns} FROM clients k WHERE k.id = $1::uuid`.text,
};

/** Queries on OAuth clients. */
export function createClients({ prisma, direct }: Database, { clients: proofs }: Pick<RowProofs, "clients">) {
  const find = async (condition: Sql.Sql): Promise<ClientRow | null> => {
    const rows = await prisma.$queryRaw<ClientRow[]>`SELECT ${clientColumns} FROM clients k WHERE ${condition}`;
    return rows[0] ?? null;
  };

  /** A row that this broker has not written is not believed. @throws UnreadableSecretError */
  const proven = (client: ClientRow | null): ClientRow | null => {
    if (client !== null) proofs.check(client);
    return client;
  };

  return {
    findById: async (id: string): Promise<ClientRow | null> => proven((await direct<ClientRow>(byId, [id]))[0] ?? null),
    findByName: async (name: string): Promise<ClientRow | null> => proven(await find(Sql.sql`k.name = ${name}`)),

    /** Unchecked, to show or delete it. */
    asItStands: async (name: string): Promise<ClientRow | null> => await find(Sql.sql`k.name = ${name}`),

    /**
     * The client of this name, if it is open to a connection. Otherwise the row is not read, so that neither the result nor the time shows that
     * it exists.
     */
    async findServing(name: string, connection: string): Promise<ClientRow | null> {
      const rows = await prisma.$queryRaw<{ id: string }[]>`
        SELECT k.id::text AS id FROM clients k
        WHERE k.name = ${name} AND EXISTS (SELECT 1 FROM unnest(k.connections) each WHERE ${connection} LIKE
          replace(replace(replace(replace(each, ${"\\"}, ${"\\\\"}), '%', ${"\\%"}), '_', ${"\\_"}), '*', '%'))`;
      return rows[0] === undefined ? null : await this.findById(rows[0].id);
    },

    /** Newest first. Their proofs are not checked: that happens when a client is used. */
    async list({ limit, after }: PageRequest, filter: { provider?: string } = {}): Promise<ClientRow[]> {
      const older = after
        ? Sql.sql`(k.created_at, k.id) < (${after.createdAt}::timestamptz, ${after.id}::uuid)`
        : Sql.sql`true`;
      const wanted = filter.provider === undefined ? Sql.sql`true` : Sql.sql`k.provider = ${filter.provider}`;
      return await prisma.$queryRaw`SELECT ${clientColumns} FROM clients k WHERE ${wanted} AND ${older}
        ORDER BY k.created_at DESC, k.id DESC LIMIT ${limit}`;
    },

    /** @throws a unique violation when the name is taken */
    async insert(client: NewClient): Promise<ClientRow> {
      return (await prisma.client.create({ data: { ...client, mac: proofs.sign(client) } })) as ClientRow;
    },

    /**
     * Changes the given fields. With a new secret, the one before stays as a second choice. With other inputs, which means other hosts, no
     * older secret stays, and no connection may have anything that was meant for the old hosts. Null: the client is not as it was read, or a
     * connection has something, or something of the client is beyond `patterns` (of LIKE).
     */
    async change(client: ClientRow, changes: ClientChanges, patterns: string[]): Promise<ClientRow | null> {
      const { secret, keptSecret, ...withoutSecret } = changes;
      const { clientId, scopes, inputs } = changes;
      const sets = [Sql.sql`updated_at = clock_timestamp()`];
      if (clientId !== undefined) sets.push(Sql.sql`client_id = ${clientId}`);
      if (scopes !== undefined) sets.push(Sql.sql`scopes = ${scopes}::text[]`);
      if (changes.patterns !== undefined) sets.push(Sql.sql`connections = ${changes.patterns}::text[]`);
      if (changes.ownRedirectUri !== undefined) sets.push(Sql.sql`own_redirect_uri = ${changes.ownRedirectUri}`);
      if (inputs !== undefined) sets.push(Sql.sql`inputs = ${json(inputs)}, ${oneSecret}`);
      else if (keptSecret !== undefined) {
        sets.push(Sql.sql`previous_secret_sealed = ${keptSecret}, old_secret_since = NULL`);
      } else if (secret !== undefined) {
        sets.push(Sql.sql`previous_secret_sealed = secret_sealed, old_secret_since = NULL,
          secret_rotating_since = CASE WHEN secret_sealed IS NOT NULL THEN clock_timestamp() END`);
      }
      if (secret !== undefined) sets.push(Sql.sql`secret_sealed = ${secret}, secret_revision = secret_revision + 1`);
      const next = {
        ...client,
        ...withoutSecret,
        secretRevision: client.secretRevision + (secret === undefined ? 0 : 1),
      };
      sets.push(Sql.sql`mac = ${proofs.sign(next)}`);
      const isFree = inputs === undefined ? Sql.empty : Sql.sql`AND NOT EXISTS (${holders(client.id)})`;
      // Each lock is a statement of its own, so that the last one sees what the transactions have committed that it waited for.
      const lockClient = prisma.$executeRaw`SELECT 1 FROM clients WHERE id = ${client.id}::uuid FOR UPDATE`;
      const lockConnections = prisma.$executeRaw`SELECT 1 FROM connections WHERE ${inputs !== undefined}
        AND client_ref = ${client.id}::uuid ORDER BY id FOR UPDATE`;
      // Deletes what a late answer of a deleted connection would be revoked with, so that it is not sent to the new host.
      const update = prisma.$queryRaw<{ id: string }[]>`
        WITH k AS (UPDATE clients k SET ${Sql.join(sets)} WHERE k.id = ${client.id}::uuid
            AND k.mac = ${client.mac} AND ${isWithin(patterns)} ${isFree} RETURNING k.id),
        forgotten AS (UPDATE tombstones t SET client_ref = NULL FROM k
          WHERE ${inputs !== undefined} AND t.client_ref = k.id)
        SELECT k.id::text FROM k`;
      const [, , changed] = await prisma.$transaction([lockClient, lockConnections, update]);
      return changed.length === 0 ? null : await this.findById(client.id);
    },

    /** The name of a connection of the client that has tokens or credentials, or is about to get some; null: none. */
    async holder(id: string): Promise<string | null> {
      const rows = await prisma.$queryRaw<{ name: string }[]>`${holders(id)} ORDER BY c.name LIMIT 1`;
      return rows[0] === undefined ? null : publicName(rows[0].name);
    },

    /** Whether the client's patterns, and all of its connections, lie within `patterns` (of LIKE); null: it is gone. */
    async isWithin(id: string, patterns: string[]): Promise<boolean | null> {
      const rows = await prisma.$queryRaw<{ within: boolean }[]>`
        SELECT (${isWithin(patterns)}) AS within FROM clients k WHERE k.id = ${id}::uuid`;
      return rows[0]?.within ?? null;
    },

    /** The newest secret has worked: the one before is deleted. */
    async forgetPreviousSecret(id: string, revision: number): Promise<void> {
      await prisma.$executeRaw`
        UPDATE clients SET ${oneSecret} WHERE id = ${id}::uuid AND secret_revision = ${revision}`;
    },

    /** Notes that the newest secret was refused and the one before has worked for this connection, whose history tells it. False: it is noted already. */
    async noteOldSecret(
      { id, secretRevision }: Pick<ClientRow, "id" | "secretRevision">,
      connectionId: string,
    ): Promise<boolean> {
      const noted = await prisma.$queryRaw<unknown[]>`
        WITH k AS (UPDATE clients SET old_secret_since = clock_timestamp() WHERE id = ${id}::uuid
            AND secret_revision = ${secretRevision} AND previous_secret_sealed IS NOT NULL AND old_secret_since IS NULL
          RETURNING name),
        event AS (INSERT INTO connection_events (connection_id, type, detail)
          SELECT c.id, 'old_secret_used', jsonb_build_object('client', k.name) FROM k, connections c
          WHERE c.id = ${connectionId}::uuid)
        SELECT name FROM k`;
      return noted.length > 0;
    },

    /** The client was corrected: its connections that failed because of it may be tried again at once. */
    async retryConnections(id: string): Promise<void> {
      await prisma.$executeRaw`
        UPDATE connections SET backoff_until = NULL,
          status = CASE WHEN status = 'needs_reauthorization' AND grant_type = ANY(${grantsOfClient}::text[]) THEN 'pending'
            ELSE status END,
          enabled_status = CASE WHEN enabled_status = 'needs_reauthorization' AND grant_type = ANY(${grantsOfClient}::text[])
            THEN 'pending' ELSE enabled_status END
        WHERE client_ref = ${id}::uuid AND (last_error_code = 'invalid_client' OR grant_type = ANY(${grantsOfClient}::text[]))`;
    },

    /** Several clients, for code that needs no secret. Rows that this broker has not written are left out. */
    async findMany(ids: string[]): Promise<ClientRow[]> {
      const rows = await prisma.$queryRaw<
        ClientRow[]
      >`SELECT ${clientColumns} FROM clients k WHERE k.id = ANY(${ids}::uuid[])`;
      return rows.filter((client) => proofs.isOurs(client));
    },

    async countConnections(id: string): Promise<number> {
      return await prisma.connection.count({ where: { clientRef: id } });
    },

    /** False: it is gone, or something of it is beyond `patterns` (of LIKE). @throws while a connection uses it */
    async delete(id: string, patterns: string[]): Promise<boolean> {
      const count = await prisma.$executeRaw`DELETE FROM clients k WHERE k.id = ${id}::uuid AND ${isWithin(patterns)}`;
      return count > 0;
    },
  };
}

const oneSecret = Sql.sql`previous_secret_sealed = NULL, secret_rotating_since = NULL, old_secret_since = NULL`;

const holders = (id: string) =>
  Sql.sql`SELECT c.name FROM connections c WHERE c.client_ref = ${id}::uuid AND ${hasOrAwaitsSecrets}`;

function isWithin(patterns: string[]): Sql.Sql {
  if (patterns.includes("%")) return Sql.sql`true`; // without a look at each of its connections
  return Sql.sql`${liesWithin(Sql.sql`k.connections`, patterns)} AND NOT EXISTS (SELECT 1 FROM connections o
      WHERE o.client_ref = k.id AND o.parent_id IS NULL AND NOT o.name LIKE ANY(${patterns}::text[]))`;
}
