import { Prisma as Sql } from "../generated/prisma/client.ts";
import { encryptionTimes } from "../time.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database } from "./database.ts";
import { json, seconds } from "./row-sql.ts";

/** A rotation, and how far it is (docs/internals/key-rotation.md). */
export type RotationRow = {
  id: string;
  targetKey: string;
  begunBy: string;
  begunAt: Date;
  pass: number;
  /** Where this pass is, and the last id there; null: at its beginning. */
  place: string | null;
  afterId: string | null;
  /** Rows looked at, and changed, in all passes; changed in this one. */
  seen: number;
  moved: number;
  passMoved: number;
  /** What it waits for, in words; null: nothing. */
  waitsFor: string | null;
  /** What did not open in this pass. */
  unopened: unknown[];
  /** Faults of the audit keep no key in use. */
  acceptsAuditFaults: boolean;
  /** The ids of keys that were forgotten at its end. */
  forgotten: string[];
  finishedAt: Date | null;
};

const columns: Columns<RotationRow> = {
  id: "r.id::text",
  targetKey: "r.target_key",
  begunBy: "r.begun_by",
  begunAt: "r.begun_at",
  pass: "r.pass",
  place: "r.place",
  afterId: "r.after_id",
  seen: "r.seen",
  moved: "r.moved",
  passMoved: "r.pass_moved",
  waitsFor: "r.waits_for",
  unopened: "r.unopened",
  acceptsAuditFaults: "r.accepts_audit_faults",
  forgotten: "r.forgotten",
  finishedAt: "r.finished_at",
};
const rotationColumns = selectList(columns);
const newest = Sql.sql`r.id = (SELECT n.id FROM rotations n ORDER BY n.begun_at DESC, n.id LIMIT 1)`;
const leaseEnd = Sql.sql`clock_timestamp() + ${seconds(encryptionTimes.rotationLeaseSeconds)}`;

const owned = (id: string, worker: string) =>
  Sql.sql`r.id = ${id}::uuid AND r.worker = ${worker}::uuid AND r.finished_at IS NULL AND ${newest}`;

/** What a worker has done since it last said so. `unopened`: what did not open. */
export type Progress = {
  place: string;
  afterId: string | null;
  seen: number;
  moved: number;
  unopened: readonly unknown[];
};

type NewRotation = { id: string; targetKey: string; by: string; acceptsAuditFaults: boolean };

export type Rotations = ReturnType<typeof createRotations>;

/** Statements on rotations. Only the newest one counts, and whoever has its lease works on it. */
export function createRotations({ prisma }: Pick<Database, "prisma">) {
  const change = async (sets: Sql.Sql, which: Sql.Sql): Promise<RotationRow | null> => {
    const rows = await prisma.$queryRaw<
      RotationRow[]
    >`UPDATE rotations r SET ${sets} WHERE ${which} RETURNING ${rotationColumns}`;
    return rows[0] ?? null;
  };

  return {
    async newest(): Promise<RotationRow | null> {
      const rows = await prisma.$queryRaw<RotationRow[]>`SELECT ${rotationColumns} FROM rotations r WHERE ${newest}`;
      return rows[0] ?? null;
    },

    /** Begins one, unless one for the same key is running; that one may learn that it accepts faults of the audit. */
    async begin({ id, targetKey, by, acceptsAuditFaults }: NewRotation): Promise<void> {
      const running = Sql.sql`${newest} AND r.finished_at IS NULL AND r.target_key = ${targetKey}`;
      await prisma.$executeRaw`INSERT INTO rotations (id, target_key, begun_by, accepts_audit_faults)
        SELECT ${id}::uuid, ${targetKey}, ${by}, ${acceptsAuditFaults}::boolean
        WHERE NOT EXISTS (SELECT 1 FROM rotations r WHERE ${running})`;
      if (acceptsAuditFaults) await change(Sql.sql`accepts_audit_faults = true`, running);
    },

    /** The running rotation for this key, if nobody else works on it: from here on it is this worker's for a lease. */
    take: async (worker: string, targetKey: string): Promise<RotationRow | null> =>
      await change(
        Sql.sql`worker = ${worker}::uuid, lease_until = ${leaseEnd}`,
        Sql.sql`${newest} AND r.finished_at IS NULL AND r.target_key = ${targetKey}
          AND (r.worker IS NULL OR r.worker = ${worker}::uuid OR r.lease_until < clock_timestamp())`,
      ),

    /** Notes progress, and prolongs the lease. Null: it is somebody else's by now, or another one has begun. */
    advance: async (
      id: string,
      worker: string,
      { place, afterId, seen, moved, unopened }: Progress,
    ): Promise<RotationRow | null> =>
      await change(
        Sql.sql`place = ${place}, after_id = ${afterId}, seen = r.seen + ${seen}::int, moved = r.moved + ${moved}::int,
          pass_moved = r.pass_moved + ${moved}::int, unopened = r.unopened || ${json(unopened)}, waits_for = NULL, lease_until = ${leaseEnd}`,
        owned(id, worker),
      ),

    /** The next pass, from the beginning. */
    nextPass: async (id: string, worker: string): Promise<RotationRow | null> =>
      await change(
        Sql.sql`pass = r.pass + 1, place = NULL, after_id = NULL, pass_moved = 0, unopened = '[]', lease_until = ${leaseEnd}`,
        owned(id, worker),
      ),

    /** Says what it waits for, and prolongs the lease. */
    wait: async (id: string, worker: string, waitsFor: string): Promise<RotationRow | null> =>
      await change(Sql.sql`waits_for = ${waitsFor}, lease_until = ${leaseEnd}`, owned(id, worker)),

    finish: async (id: string, worker: string, forgotten: readonly string[]): Promise<RotationRow | null> =>
      await change(
        Sql.sql`forgotten = ${forgotten}::text[], waits_for = NULL, finished_at = clock_timestamp(), lease_until = NULL`,
        owned(id, worker),
      ),

    /** Gives it back, so that another replica goes on at once. */
    async giveBack(worker: string): Promise<void> {
      await prisma.$executeRaw`UPDATE rotations SET worker = NULL, lease_until = NULL
        WHERE worker = ${worker}::uuid AND finished_at IS NULL`;
    },
  };
}
