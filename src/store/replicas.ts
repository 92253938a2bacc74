import { Prisma as Sql } from "../generated/prisma/client.ts";
import { replicaTimes } from "../time.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database } from "./database.ts";
import { migrationLock } from "./migrate.ts";
import { seconds } from "./row-sql.ts";

/** A key or a connection that the caches of other replicas may still have. */
export type EndedId = { kind: "key" | "workload" | "connection"; id: string };

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

/** What a process says of its encryption keys. */
export type ToldKeys = {
  /** The ids of its ring, in its order. */
  ids: readonly string[];
  /** The key with which it seals. */
  current: string;
  /** Every key with which something is sealed that only this process has: in its spool folder, in its journal, or in memory. */
  held: readonly string[];
};

/** A process that serves, or has served within the last 30 days, and what it last said of its keys. */
export type Instance = {
  id: string;
  name: string;
  keyIds: string[];
  /** Null: it has not begun to seal. */
  currentKey: string | null;
  /** Null: it has not said, as versions before this one. */
  heldKeyIds: string[] | null;
  seenAt: Date;
  leftAt: Date | null;
  /** It was seen within the last minute, and has not stopped in order. */
  isPresent: boolean;
  /** It was seen within the last minute: one that has stopped may just be starting again, with the same keys. */
  isRecent: boolean;
};

const isRecent = Sql.sql`seen_at > clock_timestamp() - ${seconds(replicaTimes.presentSeconds)}`;
/** A process that runs, or was seen so lately that it may. */
const isPresent = Sql.sql`left_at IS NULL AND ${isRecent}`;

/** A version that does not say which keys it has has every key that the database names. */
const keysOfReplica = Sql.sql`COALESCE(NULLIF(key_ids, '{}'), (SELECT array_agg(e.id) FROM encryption_keys e))`;

const instanceColumns: Columns<Omit<Instance, "isPresent" | "isRecent">> = {
  id: "id::text",
  name: "name",
  keyIds: "key_ids",
  currentKey: "current_key",
  heldKeyIds: "held_key_ids",
  seenAt: "seen_at",
  leftAt: "left_at",
};

export type Replicas = ReturnType<typeof createReplicas>;

/**
 * Statements on replicas: which processes serve tokens from memory, up to when each knows of ends, and which encryption keys it has. All
 * times are Postgres's.
 */
export function createReplicas({ prisma }: Pick<Database, "prisma">) {
  return {
    /** Postgres's time, later than every commit so far. */
    async now(): Promise<Date> {
      const [row] = await prisma.$queryRaw<{ now: Date }[]>`SELECT clock_timestamp() AS now`;
      return row?.now ?? new Date(NaN);
    },

    /**
     * Registers this process, and that it knows of every end up to `heardAt`; null: it has nothing in memory yet. A query after this
     * statement sees everything that was committed before `now`. `keyLists`: the key ids of each other replica that was seen in the last minute. `isNamed`:
     * the database names the current key.
     */
    async beat(self: {
      id: string;
      name: string;
      heardAt: Date | null;
      keys: ToldKeys;
    }): Promise<{ now: Date; others: number; keyLists: string[][]; isNamed: boolean }> {
      const { id, name, heardAt } = self;
      const { ids, current, held } = self.keys;
      const [row] = await prisma.$queryRaw<{ now: Date; others: number; keyLists: string[][]; isNamed: boolean }[]>`
        WITH forgotten AS (DELETE FROM replicas WHERE seen_at < clock_timestamp() - make_interval(hours => ${replicaTimes.forgetHours}::int)),
        self AS (INSERT INTO replicas (id, name, heard_at, seen_at, key_ids, current_key, held_key_ids)
          VALUES (${id}::uuid, ${name}, COALESCE(${heardAt}::timestamptz, clock_timestamp()), clock_timestamp(),
            ${ids}::text[], ${current}, ${held}::text[])
          ON CONFLICT (id) DO UPDATE SET name = excluded.name, heard_at = excluded.heard_at, seen_at = excluded.seen_at,
            key_ids = excluded.key_ids, current_key = excluded.current_key, held_key_ids = excluded.held_key_ids, left_at = NULL)
        SELECT clock_timestamp() AS now, EXISTS (SELECT 1 FROM encryption_keys WHERE id = ${current}) AS "isNamed",
          (SELECT COALESCE(json_agg(${keysOfReplica}), '[]') FROM replicas WHERE id <> ${id}::uuid AND ${isRecent}) AS "keyLists",
          (SELECT count(*)::int FROM replicas WHERE id <> ${id}::uuid AND ${isPresent}) AS others`;
      return row ?? { now: new Date(NaN), others: 0, keyLists: [], isNamed: true };
    },

    /** The ends since then. The last ones may come twice. */
    async endedSince(since: Date): Promise<EndedId[]> {
      const from = new Date(since.getTime() - replicaTimes.commitSeconds * 1000);
      return await prisma.$queryRaw<EndedId[]>`
        SELECT 'connection' AS kind, connection_id::text AS id FROM tombstones WHERE deleted_at > ${from}::timestamptz
        UNION ALL SELECT 'key' AS kind, id FROM api_keys WHERE revoked_at > ${from}::timestamptz
        UNION ALL SELECT 'workload' AS kind, id::text AS id FROM workloads WHERE deleted_at > ${from}::timestamptz`;
    },

    /** Replicas that were seen within so many seconds and have not stopped in order. */
    async others(id: string, withinSeconds: number): Promise<OtherReplica[]> {
      return await prisma.$queryRaw<OtherReplica[]>`
        SELECT ${selectList(replicaColumns)}
        FROM replicas WHERE id <> ${id}::uuid AND left_at IS NULL
          AND seen_at > clock_timestamp() - make_interval(secs => ${withinSeconds}::double precision)
        ORDER BY name, id`;
    },

    /** This process stops in order: it serves nothing any more. Its row stays, for what its spool folder may hold. */
    async leave(id: string, held: readonly string[]): Promise<void> {
      await prisma.$executeRaw`UPDATE replicas SET left_at = clock_timestamp(), held_key_ids = ${held}::text[]
        WHERE id = ${id}::uuid`;
    },

    /** All processes of the last 30 days, those that are present first. */
    async instances(): Promise<Instance[]> {
      return await prisma.$queryRaw<Instance[]>`
        SELECT ${selectList(instanceColumns)}, ${isPresent} AS "isPresent", ${isRecent} AS "isRecent" FROM replicas ORDER BY "isPresent" DESC, name, id`;
    },

    /** Forgets an instance that is not present, by its id or name: what waits in its spool folder is given up. Returns the names. */
    async abandon(instance: string): Promise<string[]> {
      const rows = await prisma.$queryRaw<{ name: string }[]>`
        DELETE FROM replicas WHERE (id::text = ${instance} OR name = ${instance}) AND NOT (${isPresent}) RETURNING name`;
      return rows.map(({ name }) => name);
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

/** A key that may have sealed something in this database, with a sealed constant by which it is recognised. */
export type KnownKey = { id: string; check: Uint8Array };

export type EncryptionKeys = ReturnType<typeof createEncryptionKeys>;

/** Statements on the encryption keys with which this database's values are sealed. */
export function createEncryptionKeys({ prisma }: Pick<Database, "prisma">) {
  /** As migrations and starts do: nobody begins to seal with a key, registers with its keys, or forgets keys at the same moment. */
  const lock = () => prisma.$executeRaw`SELECT pg_advisory_xact_lock(${migrationLock}::bigint)`;
  return {
    async list(): Promise<KnownKey[]> {
      return await prisma.encryptionKey.findMany({ select: { id: true, check: true } });
    },

    /**
     * Names a key before anything is sealed with it, and notes that this replica seals with it. Returns its check record; null: a replica that
     * was seen in the last minute lacks the key, so it must not be used.
     */
    async adopt(replicaId: string, key: { id: string; check: Uint8Array<ArrayBuffer> }): Promise<Uint8Array | null> {
      const isFree = Sql.sql`NOT EXISTS (SELECT 1 FROM replicas WHERE id <> ${replicaId}::uuid AND ${isRecent}
        AND NOT (${keysOfReplica} @> ARRAY[${key.id}]::text[]))`;
      const insert = prisma.$executeRaw`INSERT INTO encryption_keys (id, check_sealed)
        SELECT ${key.id}, ${key.check} WHERE ${isFree} ON CONFLICT (id) DO NOTHING`;
      const note = prisma.$executeRaw`UPDATE replicas SET current_key = ${key.id} WHERE id = ${replicaId}::uuid AND ${isFree}`;
      const read = prisma.$queryRaw<KnownKey[]>`
        SELECT id, check_sealed AS check FROM encryption_keys WHERE id = ${key.id} AND ${isFree}`;
      const [, , , [known]] = await prisma.$transaction([lock(), insert, note, read]);
      return known?.check ?? null;
    },

    /**
     * Forgets all keys but these, and but those that an instance still seals with or holds something under. Returns the ids. The caller
     * must have seen that nothing else is under them.
     */
    async forget(kept: readonly string[]): Promise<string[]> {
      const forget = prisma.$queryRaw<
        { id: string }[]
      >`DELETE FROM encryption_keys k WHERE NOT (k.id = ANY(${kept}::text[]))
        AND NOT EXISTS (SELECT 1 FROM replicas r WHERE k.id = ANY(COALESCE(r.held_key_ids, r.key_ids))
          OR r.left_at IS NULL AND r.current_key = k.id) RETURNING k.id`;
      const [, rows] = await prisma.$transaction([lock(), forget]);
      return rows.map(({ id }) => id);
    },
  };
}
