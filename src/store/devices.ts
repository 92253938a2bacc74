import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { ClientRow } from "./clients.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database } from "./database.ts";
import { json, seconds } from "./row-sql.ts";

/** A person on the way to confirm a user code (RFC 8628, section 3.2). */
export type DeviceRow = {
  connectionId: string;
  id: string;
  deviceCode: Uint8Array<ArrayBuffer>;
  /** The consent link by which the person came; null: without one. */
  linkId: string | null;
  userCode: string;
  verificationUri: string;
  verificationUriComplete: string | null;
  intervalSeconds: number;
  expiresAt: Date;
  expired: boolean;
};

const columns: Columns<DeviceRow> = {
  connectionId: "d.connection_id::text",
  id: "d.id::text",
  deviceCode: "d.device_code_sealed",
  linkId: "d.link_id",
  userCode: "d.user_code",
  verificationUri: "d.verification_uri",
  verificationUriComplete: "d.verification_uri_complete",
  intervalSeconds: "d.interval_s",
  expiresAt: "d.expires_at",
  expired: "d.expires_at <= clock_timestamp()",
};
const deviceColumns = selectList(columns);

type NewDevice = Omit<DeviceRow, "expiresAt" | "expired"> & { expiresInSeconds: number };

export type DeviceAuthorizations = ReturnType<typeof createDeviceAuthorizations>;

/** User codes that wait for a person; one for a connection. */
export function createDeviceAuthorizations({ prisma }: Pick<Database, "prisma">) {
  return {
    /**
     * A new code replaces the one before. `asked`: the scopes and inputs with which it was requested. Null: they have changed since, or the
     * connection is gone.
     */
    async put(
      device: NewDevice,
      asked: { inputs: Record<string, string>; scopes: string[]; client: Pick<ClientRow, "id" | "inputs"> | null },
    ): Promise<{ expiresAt: Date } | null> {
      const { client } = asked;
      const sameClient =
        client === null
          ? Sql.sql`SELECT 1`
          : Sql.sql`SELECT 1 FROM clients WHERE id = ${client.id}::uuid AND inputs = ${json(client.inputs)} FOR SHARE`;
      const rows = await prisma.$queryRaw<{ expiresAt: Date }[]>`
        WITH k AS (${sameClient}), c AS (SELECT c.id FROM k, connections c
          WHERE c.id = ${device.connectionId}::uuid AND c.inputs = ${json(asked.inputs)}
            AND c.scopes = ${asked.scopes}::text[] FOR SHARE OF c)
        INSERT INTO device_authorizations (connection_id, id, device_code_sealed, link_id, user_code, verification_uri,
          verification_uri_complete, interval_s, next_poll_at, expires_at)
        SELECT c.id, ${device.id}::uuid, ${device.deviceCode}, ${device.linkId}, ${device.userCode},
          ${device.verificationUri}, ${device.verificationUriComplete}, ${device.intervalSeconds}::int,
          clock_timestamp() + ${seconds(device.intervalSeconds)}, clock_timestamp() + ${seconds(device.expiresInSeconds)}
        FROM c
        ON CONFLICT (connection_id) DO UPDATE SET id = excluded.id, device_code_sealed = excluded.device_code_sealed, link_id = excluded.link_id,
          user_code = excluded.user_code, verification_uri = excluded.verification_uri,
          verification_uri_complete = excluded.verification_uri_complete, interval_s = excluded.interval_s,
          next_poll_at = excluded.next_poll_at, expires_at = excluded.expires_at, created_at = clock_timestamp()
        RETURNING expires_at AS "expiresAt"`;
      return rows[0] ?? null;
    },

    async find(connectionId: string): Promise<DeviceRow | null> {
      const rows = await prisma.$queryRaw<DeviceRow[]>`
        SELECT ${deviceColumns}
        FROM device_authorizations d WHERE d.connection_id = ${connectionId}::uuid`;
      return rows[0] ?? null;
    },

    /** Claims the codes that are due. No other replica polls them for `leaseSeconds`. */
    async claimDue(given: { limit: number; leaseSeconds: number }): Promise<DeviceRow[]> {
      return await prisma.$queryRaw`
        UPDATE device_authorizations d SET next_poll_at = clock_timestamp() + ${seconds(given.leaseSeconds)}
        WHERE d.connection_id IN (SELECT o.connection_id FROM device_authorizations o
          WHERE o.next_poll_at <= statement_timestamp() ORDER BY o.next_poll_at LIMIT ${given.limit} FOR UPDATE SKIP LOCKED)
        RETURNING ${deviceColumns}`;
    },

    /** Seconds until the next one is due; null: there is none. */
    async nextDueSeconds(): Promise<number | null> {
      const rows = await prisma.$queryRaw<{ wait: number | null }[]>`
        SELECT EXTRACT(EPOCH FROM MIN(next_poll_at) - clock_timestamp())::double precision AS wait
        FROM device_authorizations`;
      return rows[0]?.wait ?? null;
    },

    /** Schedules the next poll after its interval, which grows if the provider asked for that. */
    async postpone(device: Pick<DeviceRow, "connectionId" | "id">, intervalSeconds: number): Promise<void> {
      await prisma.$executeRaw`UPDATE device_authorizations
        SET interval_s = ${intervalSeconds}::int, next_poll_at = clock_timestamp() + ${seconds(intervalSeconds)}
        WHERE connection_id = ${device.connectionId}::uuid AND id = ${device.id}::uuid`;
    },

    async drop(device: Pick<DeviceRow, "connectionId" | "id">): Promise<void> {
      await prisma.$executeRaw`DELETE FROM device_authorizations
        WHERE connection_id = ${device.connectionId}::uuid AND id = ${device.id}::uuid`;
    },
  };
}
