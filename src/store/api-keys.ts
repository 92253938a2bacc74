import { encryptionKeyMissing } from "../errors.ts";
import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { ProvenKey, Read, RowProofs } from "../proven-rows.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Labels } from "../labels.ts";
import type { PageRequest } from "./connections.ts";
import type { Database } from "./database.ts";
import { type FindGiver, type Giver, insertGiven } from "./giving.ts";
import { type Bounds, carriesAll, json, liesWithin } from "./row-sql.ts";

export const abilities = ["tokens", "connections", "admin"] as const;
export type Ability = (typeof abilities)[number];

/** A caller's key. Only the hash of its secret is stored. */
export type ApiKeyRow = Read<ProvenKey> & { abilities: Ability[]; connections: string[]; labels: Labels };

/** `isSilent`: its MAC was made with a key that this replica lacks, so it cannot be checked here. */
export type FoundApiKey = ApiKeyRow & { isSilent?: true };

/** `lastUsedAt`: to the minute; null: never. */
export type ListedApiKey = ApiKeyRow & { lastUsedAt: Date | null };

export type NewApiKey = Omit<ApiKeyRow, "secretHash" | "revokedAt" | "createdAt" | "mac"> & {
  secretHash: Uint8Array<ArrayBuffer>;
};

const columns: Columns<ApiKeyRow> = {
  id: "k.id",
  name: "k.name",
  secretHash: "k.secret_hash",
  abilities: "k.abilities",
  connections: "k.connections",
  labels: "k.labels",
  expiresAt: "k.expires_at",
  revokedAt: "k.revoked_at",
  createdAt: "k.created_at",
  mac: "k.mac",
};

export const keyColumns = selectList(columns);

export type ApiKeys = ReturnType<typeof createApiKeys>;

/** Queries on API keys. */
export function createApiKeys({ prisma }: Database, { keys: proofs }: Pick<RowProofs, "keys">) {
  /** By Postgres's clock, as the row will have it. */
  const now = async (): Promise<Date> => {
    const [time] = await prisma.$queryRaw<{ now: Date }[]>`SELECT clock_timestamp()::timestamptz(3) AS now`;
    return time?.now ?? new Date();
  };

  /** Without rows that this broker has not written: they count as unknown. */
  const judged = async (rows: ApiKeyRow[]): Promise<FoundApiKey[]> => {
    const standings = await Promise.all(rows.map((row) => proofs.standing(row)));
    return rows.flatMap((row, at): FoundApiKey[] => {
      if (standings[at] === "foreign") return [];
      return standings[at] === "silent" ? [{ ...row, isSilent: true }] : [row];
    });
  };

  const findMany = async (ids: string[]): Promise<FoundApiKey[]> =>
    await judged(
      await prisma.$queryRaw<ApiKeyRow[]>`SELECT ${keyColumns} FROM api_keys k WHERE k.id = ANY(${ids}::text[])`,
    );

  return {
    /** The ids of all keys that have not been revoked. */
    async ids(): Promise<Set<string>> {
      const rows = await prisma.$queryRaw<{ id: string }[]>`SELECT id FROM api_keys WHERE revoked_at IS NULL`;
      return new Set(rows.map(({ id }) => id));
    },

    findMany,

    /** Keys within these bounds, newest first, also revoked ones. Unchecked: a key is checked when it is used. */
    async list({ limit, after }: PageRequest, bounds: Bounds): Promise<ListedApiKey[]> {
      const older = after
        ? Sql.sql`AND (k.created_at, k.id) < (${after.createdAt}::timestamptz, ${after.id})`
        : Sql.empty;
      return await prisma.$queryRaw`SELECT ${keyColumns}, u.last_used_at AS "lastUsedAt"
        FROM api_keys k LEFT JOIN key_uses u ON u.key_id = k.id WHERE ${isWithin(bounds)} ${older}
        ORDER BY k.created_at DESC, k.id DESC LIMIT ${limit}`;
    },

    /** Keys that work at `nowMs`, here or at replicas with another encryption key, within these bounds, oldest first; at most 10,000. */
    async working(nowMs: number, bounds: Bounds): Promise<FoundApiKey[]> {
      const rows = await prisma.$queryRaw<ApiKeyRow[]>`SELECT ${keyColumns} FROM api_keys k
        WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > ${new Date(nowMs)}::timestamptz) AND ${isWithin(bounds)}
        ORDER BY k.created_at, k.id LIMIT 10000`;
      return await judged(rows);
    },

    /** Whether a working key has the ability `admin`, and is bound to no labels. */
    async hasAdmin(nowMs: number): Promise<boolean> {
      const rows = await prisma.$queryRaw<ApiKeyRow[]>`SELECT ${keyColumns} FROM api_keys k
        WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > ${new Date(nowMs)}::timestamptz)
          AND 'admin' = ANY(k.abilities) AND k.labels = '{}' ORDER BY k.created_at DESC LIMIT 1000`;
      return (await judged(rows)).length > 0;
    },

    /** The row of a key that gives rights; null: there is none. */
    async giver(id: string): Promise<Giver | null> {
      const [row] = await findMany([id]);
      if (row?.isSilent) throw encryptionKeyMissing("this API key");
      if (row === undefined || row.revokedAt !== null) return null;
      return {
        mac: row.mac,
        standing: Sql.sql`SELECT 1 FROM api_keys WHERE id = ${id} AND mac = ${row.mac} AND revoked_at IS NULL
          AND (expires_at IS NULL OR expires_at > clock_timestamp()) FOR SHARE`,
      };
    },

    /** Null: the giver has ended meanwhile. */
    async insert(key: NewApiKey, giver: FindGiver | null): Promise<ApiKeyRow | null> {
      const { id, name, secretHash, abilities: may, connections, labels, expiresAt } = key;
      const createdAt = await now();
      const mac = proofs.sign({ ...key, createdAt, revokedAt: null });
      return await insertGiven(
        giver,
        async (isGiven) =>
          await prisma.$queryRaw<ApiKeyRow[]>`
          INSERT INTO api_keys AS k (id, name, secret_hash, abilities, connections, labels, expires_at, created_at, mac)
          SELECT ${id}, ${name}, ${secretHash}, ${may}::text[], ${connections}::text[], ${json(labels)},
            ${expiresAt}::timestamptz,
            ${createdAt}::timestamptz, ${mac}
          WHERE ${isGiven} RETURNING ${keyColumns}`,
      );
    },

    /** Notes when keys were used last, all in one statement. A time never goes back. */
    async noteUses(uses: ReadonlyMap<string, Date>): Promise<void> {
      // In the same order everywhere, so that two replicas never wait for each other.
      const ids = [...uses.keys()].sort();
      const times = ids.map((id) => uses.get(id));
      await prisma.$executeRaw`INSERT INTO key_uses (key_id, last_used_at)
        SELECT * FROM unnest(${ids}::text[], ${times}::timestamptz[])
        ON CONFLICT (key_id) DO UPDATE SET last_used_at = GREATEST(key_uses.last_used_at, excluded.last_used_at)`;
    },

    /**
     * False: there is no such key within these bounds. Revoking twice changes nothing. A row that this broker has not
     * written counts as none anyway; it is marked as revoked all the same.
     */
    async revoke(id: string, bounds: Bounds): Promise<boolean> {
      const at = await now();
      for (;;) {
        const [row] = await prisma.$queryRaw<ApiKeyRow[]>`
          SELECT ${keyColumns} FROM api_keys k WHERE k.id = ${id} AND ${isWithin(bounds)}`;
        if (row === undefined) return false;
        const ours = proofs.isOurs(row);
        if (row.revokedAt !== null && ours) return true;
        const mac = ours ? proofs.sign({ ...row, revokedAt: at }) : row.mac;
        // By compare-and-swap, so that no change in between is undone, and no other change undoes this one.
        const count = await prisma.$executeRaw`UPDATE api_keys k SET revoked_at = ${at}::timestamptz, mac = ${mac}
          WHERE k.id = ${id} AND k.mac IS NOT DISTINCT FROM ${row.mac}`;
        if (count === 1) return true;
      }
    },
  };
}

/**
 * Whether a key reaches no further than these bounds. A star of a key's pattern is a character that no name has, so only a percent sign
 * matches it.
 */
const isWithin = ({ patterns, labels }: Bounds) =>
  Sql.sql`${liesWithin(Sql.sql`k.connections`, patterns)} AND ${carriesAll(Sql.sql`k.labels`, labels)}`;
