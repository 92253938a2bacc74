import { forgetAttempts } from "./consent-attempts.ts";
import type { Prisma } from "./database.ts";

/** A browser about to leave for the provider. State and cookie come hashed, what the consent binds sealed. */
export type NewAuthorizationRequest = {
  id: string;
  stateHash: Uint8Array<ArrayBuffer>;
  connectionId: string;
  linkId: string;
  browserHash: Uint8Array<ArrayBuffer>;
  request: Uint8Array<ArrayBuffer>;
  expiresInSeconds: number;
  /** So many of the same link may be open. */
  mostOpen: number;
};

/** A request that is still waited for. */
export type WaitingRequest = {
  id: string;
  connectionId: string;
  linkId: string;
  browserHash: Uint8Array;
  request: Uint8Array;
};

export type AuthorizationRequests = ReturnType<typeof createAuthorizationRequests>;

/** The statements that move a state: docs/consent.md, "A state". */
export function createAuthorizationRequests(prisma: Prisma) {
  return {
    /**
     * Stores a request and removes those, and attempts, that ran out. Null: it is stored; else its link has too many open ones, and so many
     * seconds later the oldest of them is over.
     */
    async insert(request: NewAuthorizationRequest): Promise<number | null> {
      // One that somebody else holds at this moment keeps nobody from beginning.
      await prisma.$executeRaw`DELETE FROM authorization_requests WHERE id IN (SELECT id FROM authorization_requests
        WHERE expires_at <= clock_timestamp() FOR UPDATE SKIP LOCKED)`;
      await forgetAttempts(prisma);
      // One at a time for a link: a statement that begins after the lock sees what its last holder has committed.
      const lock = prisma.$queryRaw`SELECT id FROM consent_links WHERE id = ${request.linkId} FOR UPDATE`;
      const insert = prisma.$executeRaw`
        INSERT INTO authorization_requests
          (id, state_hash, connection_id, link_id, browser_hash, request_sealed, expires_at)
        SELECT ${request.id}::uuid, ${request.stateHash}, ${request.connectionId}::uuid, ${request.linkId},
          ${request.browserHash}, ${request.request},
          clock_timestamp() + make_interval(secs => ${request.expiresInSeconds}::double precision)
        WHERE (SELECT count(*) FROM authorization_requests
          WHERE link_id = ${request.linkId} AND expires_at > clock_timestamp()) < ${request.mostOpen}`;
      const [, stored] = await prisma.$transaction([lock, insert]);
      if (stored === 1) return null;
      const rows = await prisma.$queryRaw<{ seconds: number }[]>`
        SELECT ceil(extract(epoch FROM min(expires_at) - clock_timestamp()))::int AS seconds
        FROM authorization_requests WHERE link_id = ${request.linkId} AND expires_at > clock_timestamp()`;
      return Math.max(1, rows[0]?.seconds ?? 1);
    },

    /** The request of a state. Changes nothing. */
    async find(stateHash: Uint8Array<ArrayBuffer>): Promise<WaitingRequest | null> {
      const rows = await prisma.$queryRaw<WaitingRequest[]>`
        SELECT id::text, connection_id::text AS "connectionId", link_id AS "linkId", browser_hash AS "browserHash",
          request_sealed AS request
        FROM authorization_requests WHERE state_hash = ${stateHash} AND expires_at > clock_timestamp()`;
      return rows[0] ?? null;
    },

    /** Notes that an error has come back that ends nothing. True: the first of this request. */
    async noteError(id: string): Promise<boolean> {
      const count = await prisma.$executeRaw`
        UPDATE authorization_requests SET error_noted = true WHERE id = ${id}::uuid AND NOT error_noted`;
      return count === 1;
    },

    /**
     * Takes a request out, once: a row lock makes the second DELETE of the same row find nothing. The same statement notes the
     * attempt (consent-attempts.ts), so that whoever finds nothing here finds that.
     */
    async consume(id: string): Promise<boolean> {
      const rows = await prisma.$queryRaw<unknown[]>`
        WITH consumed AS (
          DELETE FROM authorization_requests WHERE id = ${id}::uuid AND expires_at > clock_timestamp() RETURNING *
        ), noted AS (
          INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, expires_at)
          SELECT state_hash, browser_hash, link_id, clock_timestamp() + interval '10 minutes' FROM consumed
        )
        SELECT id::text FROM consumed`;
      return rows.length > 0;
    },
  };
}
