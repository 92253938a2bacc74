import { replicaTimes } from "../time.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database } from "./database.ts";
import { seconds } from "./row-sql.ts";

/** A key or a connection that the caches of other replicas may still have. */
export type EndedId = { kind: "key" | "connection"; id: string };

/** Another process on this database. */
export type OtherReplica = {
  id: string;
  name: string;
  /** It knows of every end up to this time. */
  heardAt: Date;
  /** Milliseconds since it last had Postgres, by Postgres's clock. */
  silentMs: number;
};

const replicaColumns: Columns<OtherReplica> = {
  id: "id::text",
  name: "name",
  heardAt: "heard_at",
  silentMs: "(extract(epoch FROM clock_timestamp() - seen_at) * 1000)::float8",
};

export type Replicas = ReturnType<typeof createReplicas>;

/** Statements on replicas: which processes serve tokens from memory, and up to when each knows of ends. All times are Postgres's. */
export function createReplicas({ prisma }: Pick<Database, "prisma">) {
  return {
    /** Postgres's time, later than every commit so far. */
    async now(): Promise<Date> {
      const [row] = await prisma.$queryRaw<{ now: Date }[]>`SELECT clock_timestamp() AS now`;
      return row?.now ?? new Date(NaN);
    },

    /**
     * Registers this process, and that it knows of every end up to `heardAt`; null: it has nothing in memory yet. A query after this
     * statement sees everything that was committed before `now`.
     */
    async beat(self: { id: string; name: string; heardAt: Date | null }): Promise<{ now: Date; others: number }> {
      const { id, name, heardAt } = self;
      const [row] = await prisma.$queryRaw<{ now: Date; others: number }[]>`
        WITH forgotten AS (DELETE FROM replicas WHERE seen_at < clock_timestamp() - make_interval(hours => ${replicaTimes.forgetHours}::int)),
        self AS (INSERT INTO replicas (id, name, heard_at, seen_at)
          VALUES (${id}::uuid, ${name}, COALESCE(${heardAt}::timestamptz, clock_timestamp()), clock_timestamp())
          ON CONFLICT (id) DO UPDATE SET name = excluded.name, heard_at = excluded.heard_at, seen_at = excluded.seen_at)
        SELECT clock_timestamp() AS now, (SELECT count(*)::int FROM replicas
          WHERE id <> ${id}::uuid AND seen_at > clock_timestamp() - ${seconds(replicaTimes.presentSeconds)}) AS others`;
      return row ?? { now: new Date(NaN), others: 0 };
    },

    /** The ends since then. The last ones may come twice. */
    async endedSince(since: Date): Promise<EndedId[]> {
      const from = new Date(since.getTime() - replicaTimes.commitSeconds * 1000);
      return await prisma.$queryRaw<EndedId[]>`
        SELECT 'connection' AS kind, connection_id::text AS id FROM tombstones WHERE deleted_at > ${from}::timestamptz
        UNION ALL SELECT 'key' AS kind, id FROM api_keys WHERE revoked_at > ${from}::timestamptz`;
    },

    /** Replicas that were seen within so many seconds and have not unregistered. */
    async others(id: string, withinSeconds: number): Promise<OtherReplica[]> {
      return await prisma.$queryRaw<OtherReplica[]>`
        SELECT ${selectList(replicaColumns)}
        FROM replicas WHERE id <> ${id}::uuid AND seen_at > clock_timestamp() - make_interval(secs => ${withinSeconds}::double precision)
        ORDER BY name, id`;
    },

    /** Unregisters this process: it serves nothing any more. */
    async leave(id: string): Promise<void> {
      await prisma.$executeRaw`DELETE FROM replicas WHERE id = ${id}::uuid`;
    },

    /** The connection that last had this name, and the time of its end: a replica that knows of all ends up to then knows of this one. Null: none. */
    async endedUnder(name: string): Promise<{ id: string; by: Date } | null> {
      const rows = await prisma.$queryRaw<{ id: string; by: Date }[]>`
        SELECT connection_id::text AS id, LEAST(clock_timestamp(), deleted_at + ${seconds(replicaTimes.commitSeconds)}) AS by
        FROM tombstones WHERE name = ${name}`;
      return rows[0] ?? null;
    },
  };
}

/** A key that has sealed something in this database, with a sealed constant by which it is recognised. */
export type KnownKey = { id: string; check: Uint8Array };

/** Statements on the encryption keys with which this database's values are sealed. */
export function createEncryptionKeys({ prisma }: Database) {
  return {
    async list(): Promise<KnownKey[]> {
      return await prisma.encryptionKey.findMany({ select: { id: true, check: true } });
    },
  };
}
