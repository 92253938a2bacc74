import type { Prisma } from "./database.ts";

/** A link to be stored. Its secret comes hashed. */
export type NewConsentLink = {
  id: string;
  connectionId: string;
  secretHash: Uint8Array<ArrayBuffer>;
  returnTo: string | null;
  manual: boolean;
  purpose: string | null;
  createdBy: string;
  expiresInSeconds: number;
};

/** A link as it stands, judged by Postgres's clock. */
export type ConsentLinkRow = {
  id: string;
  connectionId: string;
  returnTo: string | null;
  manual: boolean;
  /** What the person is asked for, in the words of whoever made the link. */
  purpose: string | null;
  /** Hash of the cookie of the browser that posted first; null: nobody has. */
  claimedBy: Uint8Array | null;
  used: boolean;
  expired: boolean;
  expiresAt: Date;
};

/** What opens a link: its id, and the hash of its secret. */
export type LinkKey = { id: string; secretHash: Uint8Array<ArrayBuffer> };

export type ConsentLinks = ReturnType<typeof createConsentLinks>;

/** The statements that move a consent link: docs/consent.md, "A link". */
export function createConsentLinks(prisma: Prisma) {
  return {
    /** Stores a link and forgets those of the same connection that ran out 30 days ago. */
    async insert(link: NewConsentLink): Promise<{ expiresAt: Date }> {
      await prisma.$executeRaw`DELETE FROM consent_links WHERE connection_id = ${link.connectionId}::uuid
        AND expires_at < clock_timestamp() - interval '30 days'`;
      const rows = await prisma.$queryRaw<{ expiresAt: Date }[]>`
        INSERT INTO consent_links (id, connection_id, secret_hash, return_to, manual, purpose, created_by, expires_at)
        VALUES (${link.id}, ${link.connectionId}::uuid, ${link.secretHash}, ${link.returnTo}, ${link.manual},
          ${link.purpose}, ${link.createdBy}, clock_timestamp() + make_interval(secs => ${link.expiresInSeconds}::double precision))
        RETURNING expires_at AS "expiresAt"`;
      return only(rows);
    },

    async find({ id, secretHash }: LinkKey): Promise<ConsentLinkRow | null> {
      const rows = await prisma.$queryRaw<ConsentLinkRow[]>`
        SELECT id, connection_id AS "connectionId", return_to AS "returnTo", manual, purpose,
          claimed_by AS "claimedBy",
          used_at IS NOT NULL AS used, expires_at <= clock_timestamp() AS expired, expires_at AS "expiresAt"
        FROM consent_links WHERE id = ${id} AND secret_hash = ${secretHash}`;
      return rows[0] ?? null;
    },

    /** Where the person is led back to, of a link that this process itself has named; null: nowhere. */
    async returnTo(id: string): Promise<string | null> {
      const rows = await prisma.$queryRaw<{ returnTo: string | null }[]>`
        SELECT return_to AS "returnTo" FROM consent_links WHERE id = ${id}`;
      return rows[0]?.returnTo ?? null;
    },

    /** The first browser wins, by this one UPDATE. False: it is not this browser's, or no longer open. */
    async claim({ id, secretHash }: LinkKey, browserHash: Uint8Array<ArrayBuffer>): Promise<boolean> {
      const count = await prisma.$executeRaw`UPDATE consent_links SET claimed_by = ${browserHash}
        WHERE id = ${id} AND secret_hash = ${secretHash} AND used_at IS NULL AND expires_at > clock_timestamp()
          AND (claimed_by IS NULL OR claimed_by = ${browserHash})`;
      return count === 1;
    },

    /** Uses a link up before its code is exchanged. False: it is used already. */
    async reserve(id: string): Promise<boolean> {
      const count = await prisma.$executeRaw`
        UPDATE consent_links SET used_at = clock_timestamp() WHERE id = ${id} AND used_at IS NULL`;
      return count === 1;
    },

    /** Gives a reserved link back. Safe without naming the reservation: only its holder gets here. */
    async release(id: string): Promise<void> {
      await prisma.$executeRaw`UPDATE consent_links SET used_at = NULL WHERE id = ${id}`;
    },
  };
}

function only<Row>(rows: Row[]): Row {
  const [row] = rows;
  if (row === undefined) throw new Error("the database returned no row for an INSERT");
  return row;
}
