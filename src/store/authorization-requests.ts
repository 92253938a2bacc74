import type { Prisma } from "./database.ts";

/** A browser about to leave for the provider. State and cookie come hashed, the verifier sealed. */
export type NewAuthorizationRequest = {
  id: string;
  stateHash: Uint8Array<ArrayBuffer>;
  connectionId: string;
  linkId: string;
  browserHash: Uint8Array<ArrayBuffer>;
  verifier: Uint8Array<ArrayBuffer> | null;
  redirectUri: string;
  expiresInSeconds: number;
  /** So many of the same link may be open. */
  mostOpen: number;
};

/** A request that came back, gone from the table. */
export type ConsumedRequest = {
  id: string;
  connectionId: string;
  linkId: string;
  verifier: Uint8Array | null;
  redirectUri: string | null;
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
      await prisma.$executeRaw`DELETE FROM authorization_requests WHERE expires_at <= clock_timestamp()`;
      await prisma.$executeRaw`DELETE FROM consent_attempts WHERE expires_at <= clock_timestamp()`;
      // One at a time for a link: a statement that begins after the lock sees what its last holder has committed.
      const lock = prisma.$queryRaw`SELECT id FROM consent_links WHERE id = ${request.linkId} FOR UPDATE`;
      const insert = prisma.$executeRaw`
        INSERT INTO authorization_requests
          (id, state_hash, connection_id, link_id, browser_hash, verifier_sealed, redirect_uri, expires_at)
        SELECT ${request.id}::uuid, ${request.stateHash}, ${request.connectionId}::uuid, ${request.linkId},
          ${request.browserHash}, ${request.verifier}, ${request.redirectUri},
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

    /**
     * Takes a request out, once: a row lock makes the second DELETE of the same row find nothing. The same statement notes the
     * attempt (consent-attempts.ts), so that whoever finds nothing here finds that.
     */
    async consume(given: {
      stateHash: Uint8Array<ArrayBuffer>;
      browserHash: Uint8Array<ArrayBuffer>;
      provider: string;
    }): Promise<ConsumedRequest | null> {
      const rows = await prisma.$queryRaw<ConsumedRequest[]>`
        WITH consumed AS (
          DELETE FROM authorization_requests r USING connections c
          WHERE c.id = r.connection_id AND c.provider = ${given.provider}
            AND r.state_hash = ${given.stateHash} AND r.browser_hash = ${given.browserHash}
            AND r.expires_at > clock_timestamp()
          RETURNING r.*
        ), noted AS (
          INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, expires_at)
          SELECT state_hash, browser_hash, link_id, clock_timestamp() + interval '10 minutes' FROM consumed
        )
        SELECT id::text, connection_id::text AS "connectionId", link_id AS "linkId", verifier_sealed AS verifier,
          redirect_uri AS "redirectUri" FROM consumed`;
      return rows[0] ?? null;
    },

    /** Whether a state is waiting for another browser. */
    async waitsElsewhere(stateHash: Uint8Array<ArrayBuffer>, browserHash: Uint8Array<ArrayBuffer>): Promise<boolean> {
      const rows = await prisma.$queryRaw<unknown[]>`SELECT 1 AS found FROM authorization_requests
        WHERE state_hash = ${stateHash} AND browser_hash <> ${browserHash} AND expires_at > clock_timestamp()`;
      return rows.length > 0;
    },
  };
}
