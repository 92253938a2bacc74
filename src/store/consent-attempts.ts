import type { Prisma } from "./database.ts";

/** A state or a copied code that has come back, at the link that it is for. */
export type Attempt = {
  attemptHash: Uint8Array<ArrayBuffer>;
  browserHash: Uint8Array<ArrayBuffer>;
  linkId: string;
};

/** The same with how it ended, sealed; null: it has not ended. `isOverdue`: nor will it, whoever began it is gone. */
export type NotedAttempt = Attempt & { ticket: string | null; isOverdue: boolean };

/**
 * No attempt takes longer: two requests to the token endpoint (25 s each, the second with the secret from before), one for metadata
 * and one that revokes what may not be kept (25 s each), 3 s for storing, 10 s for the account's name; the rest for statements.
 */
export const longestAttemptSeconds = 150;

export type ConsentAttempts = ReturnType<typeof createConsentAttempts>;

/**
 * Forgets attempts whose time is over. One that never ended, since its broker was killed, gets its line of the history then, unless
 * the connection has been connected since it began. Nothing depends on it: it never rejects.
 */
export async function forgetAttempts(prisma: Prisma): Promise<void> {
  const forgotten = prisma.$executeRaw`
    WITH gone AS (DELETE FROM consent_attempts WHERE attempt_hash IN (SELECT attempt_hash FROM consent_attempts
      WHERE expires_at <= clock_timestamp() FOR UPDATE SKIP LOCKED) RETURNING link_id, ticket, expires_at)
    INSERT INTO connection_events (connection_id, type, detail)
    SELECT c.id, 'consent_failed', '{"error": "interrupted"}'::jsonb
    FROM gone g JOIN consent_links l ON l.id = g.link_id JOIN connections c ON c.id = l.connection_id
    WHERE g.ticket IS NULL AND NOT COALESCE(c.authorized_at >= g.expires_at - interval '10 minutes', false)`;
  await forgotten.catch(() => undefined);
}

/** The statements by which whoever comes back twice learns what came of the first time: docs/consent.md, "An attempt". */
export function createConsentAttempts(prisma: Prisma) {
  return {
    /** Notes that an attempt begins. False: it has begun before. States are noted by the statement that consumes them. */
    async begin({ attemptHash, browserHash, linkId }: Attempt): Promise<boolean> {
      await forgetAttempts(prisma);
      const count = await prisma.$executeRaw`
        INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, expires_at)
        VALUES (${attemptHash}, ${browserHash}, ${linkId}, clock_timestamp() + interval '10 minutes')
        ON CONFLICT (attempt_hash) DO NOTHING`;
      return count === 1;
    },

    /** The same for a code that a key hands in, which no link and no browser belong to; one that nobody ends is forgotten soon. */
    async beginHanded(attemptHash: Uint8Array<ArrayBuffer>): Promise<boolean> {
      await forgetAttempts(prisma);
      const count = await prisma.$executeRaw`INSERT INTO consent_attempts (attempt_hash, expires_at)
        VALUES (${attemptHash}, clock_timestamp() + make_interval(secs => ${longestAttemptSeconds}::double precision))
        ON CONFLICT (attempt_hash) DO NOTHING`;
      return count === 1;
    },

    /** How it ended, sealed; null: it has not ended. */
    async findHanded(attemptHash: Uint8Array<ArrayBuffer>): Promise<string | null> {
      const [row] = await prisma.$queryRaw<{ ticket: string | null }[]>`
        SELECT ticket FROM consent_attempts WHERE attempt_hash = ${attemptHash}`;
      return row?.ticket ?? null;
    },

    async endHanded(attemptHash: Uint8Array<ArrayBuffer>, ticket: string): Promise<void> {
      await prisma.$executeRaw`UPDATE consent_attempts SET ticket = ${ticket},
        expires_at = clock_timestamp() + interval '10 minutes' WHERE attempt_hash = ${attemptHash}`;
    },

    /** Begins one anew that ended with this ticket. True for one of those who try. */
    async beginAgain(attemptHash: Uint8Array<ArrayBuffer>, ticket: string): Promise<boolean> {
      const count = await prisma.$executeRaw`UPDATE consent_attempts SET ticket = NULL,
        expires_at = clock_timestamp() + interval '10 minutes' WHERE attempt_hash = ${attemptHash} AND ticket = ${ticket}`;
      return count === 1;
    },

    async find(attemptHash: Uint8Array<ArrayBuffer>): Promise<NotedAttempt | null> {
      const rows = await prisma.$queryRaw<NotedAttempt[]>`
        SELECT attempt_hash AS "attemptHash", browser_hash AS "browserHash", link_id AS "linkId", ticket,
          ticket IS NULL AND expires_at <= clock_timestamp()
            + make_interval(mins => 10, secs => -${longestAttemptSeconds}::double precision) AS "isOverdue"
        FROM consent_attempts WHERE attempt_hash = ${attemptHash} AND expires_at > clock_timestamp()`;
      return rows[0] ?? null;
    },

    /** Notes how an attempt ended, or how it ended after all. Nothing is noted of a link that is gone. */
    async end({ attemptHash, browserHash, linkId }: Attempt, ticket: string): Promise<void> {
      await prisma.$executeRaw`
        INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, ticket, expires_at)
        SELECT ${attemptHash}, ${browserHash}, l.id, ${ticket}, clock_timestamp() + interval '10 minutes'
        FROM consent_links l WHERE l.id = ${linkId}
        ON CONFLICT (attempt_hash) DO UPDATE SET ticket = excluded.ticket, expires_at = excluded.expires_at`;
    },
  };
}
