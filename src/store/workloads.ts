import { encryptionKeyMissing } from "../errors.ts";
import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { ProvenWorkload, Read, RowProofs } from "../proven-rows.ts";
import type { Ability } from "./api-keys.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database } from "./database.ts";
import { type FindGiver, type Giver, insertGiven } from "./giving.ts";
import { json } from "./row-sql.ts";

/** A declared workload. `jwks` and `match` are JSON. */
export type WorkloadRow = Read<ProvenWorkload> & { abilities: Ability[]; connections: string[]; networks: string[] };

/** `isSilent`: its MAC was made with a key that this replica lacks, so it cannot be checked here. */
export type FoundWorkload = WorkloadRow & { isSilent?: true };

export type NewWorkload = Omit<WorkloadRow, "deletedAt" | "createdAt" | "mac">;

const columns: Columns<WorkloadRow> = {
  id: "w.id::text",
  name: "w.name",
  issuer: "w.issuer",
  jwks: "w.jwks",
  jwksUri: "w.jwks_uri",
  ca: "w.ca",
  networks: "w.networks",
  audience: "w.audience",
  algorithms: "w.algorithms",
  match: 'w."match"',
  abilities: "w.abilities",
  connections: "w.connections",
  labels: "w.labels",
  expiresAt: "w.expires_at",
  deletedAt: "w.deleted_at",
  createdAt: "w.created_at",
  mac: "w.mac",
};

export const workloadColumns = selectList(columns);

/** Replicas have all of them in memory. */
const mostWorkloads = 1000;

export type Workloads = ReturnType<typeof createWorkloads>;

/** Queries on declared workloads. */
export function createWorkloads({ prisma }: Database, { workloads: proofs }: Pick<RowProofs, "workloads">) {
  const findByName = async (name: string): Promise<WorkloadRow | null> => {
    const rows = await prisma.$queryRaw<WorkloadRow[]>`
      SELECT ${workloadColumns} FROM workloads w WHERE w.name = ${name} AND w.deleted_at IS NULL`;
    return rows[0] ?? null;
  };

  /** By Postgres's clock, as the row will have it. */
  const now = async (): Promise<Date> => {
    const [time] = await prisma.$queryRaw<{ now: Date }[]>`SELECT clock_timestamp()::timestamptz(3) AS now`;
    return time?.now ?? new Date();
  };

  return {
    /** Newest first, without rows that this broker has not written: they count as unknown. */
    async all(): Promise<FoundWorkload[]> {
      const rows = await prisma.$queryRaw<WorkloadRow[]>`SELECT ${workloadColumns} FROM workloads w
        WHERE w.deleted_at IS NULL ORDER BY w.created_at DESC, w.id LIMIT ${mostWorkloads}`;
      const standings = await Promise.all(rows.map((row) => proofs.standing(row)));
      return rows.flatMap((row, at): FoundWorkload[] => {
        if (standings[at] === "foreign") return [];
        return standings[at] === "silent" ? [{ ...row, isSilent: true }] : [row];
      });
    },

    /** Unchecked, to show or delete it. */
    findByName,

    /** The row of a workload that gives rights, by the id of its declaration; null: it has ended. */
    async giver(id: string): Promise<Giver | null> {
      const [row] = await prisma.$queryRaw<WorkloadRow[]>`SELECT ${workloadColumns} FROM workloads w
        WHERE w.id = ${id}::uuid AND w.deleted_at IS NULL`;
      const standing = row === undefined ? "foreign" : await proofs.standing(row);
      if (standing === "silent") throw encryptionKeyMissing("this workload");
      if (row === undefined || standing === "foreign") return null;
      return {
        mac: row.mac,
        standing: Sql.sql`SELECT 1 FROM workloads WHERE id = ${id}::uuid AND mac = ${row.mac} AND deleted_at IS NULL
          AND (expires_at IS NULL OR expires_at > clock_timestamp()) FOR SHARE`,
      };
    },

    /** Null: the giver has ended, there is one of this name, or there are 1,000. A deleted one of this name makes room. */
    async insert(workload: NewWorkload, giver: FindGiver | null): Promise<WorkloadRow | null> {
      const { id, name, issuer, jwks, jwksUri, ca, networks, audience, algorithms, match } = workload;
      const { abilities, connections, labels, expiresAt } = workload;
      const createdAt = await now();
      const mac = proofs.sign({ ...workload, createdAt, deletedAt: null });
      return await insertGiven(
        giver,
        async (isGiven) =>
          await prisma.$queryRaw<WorkloadRow[]>`
          INSERT INTO workloads AS w (id, name, issuer, jwks, jwks_uri, ca, networks, audience, algorithms, "match",
            abilities, connections, labels, expires_at, deleted_at, created_at, mac)
          SELECT ${id}::uuid, ${name}, ${issuer}, ${jwks}, ${jwksUri}, ${ca}, ${networks}::text[], ${audience},
            ${[...algorithms]}::text[], ${match}, ${abilities}::text[], ${connections}::text[], ${json(labels)},
            ${expiresAt}::timestamptz, NULL::timestamptz, ${createdAt}::timestamptz, ${mac}
          WHERE ${isGiven} AND (SELECT count(*) FROM workloads o WHERE o.deleted_at IS NULL) < ${mostWorkloads}
          ON CONFLICT (name) DO UPDATE SET id = excluded.id, issuer = excluded.issuer, jwks = excluded.jwks,
            jwks_uri = excluded.jwks_uri, ca = excluded.ca, networks = excluded.networks, audience = excluded.audience,
            algorithms = excluded.algorithms, "match" = excluded."match", abilities = excluded.abilities,
            connections = excluded.connections, labels = excluded.labels, expires_at = excluded.expires_at,
            deleted_at = NULL, created_at = excluded.created_at, mac = excluded.mac
          WHERE w.deleted_at IS NOT NULL
          RETURNING ${workloadColumns}`,
      );
    },

    /** False: it is not that row any more. One that this broker has not written counts as none anyway; it is marked as deleted all the same. */
    async delete(row: WorkloadRow): Promise<boolean> {
      const at = await now();
      const mac = proofs.isOurs(row) ? proofs.sign({ ...row, deletedAt: at }) : row.mac;
      const count = await prisma.$executeRaw`UPDATE workloads w SET deleted_at = ${at}::timestamptz, mac = ${mac}
        WHERE w.id = ${row.id}::uuid AND w.deleted_at IS NULL AND w.mac IS NOT DISTINCT FROM ${row.mac}`;
      return count === 1;
    },
  };
}
