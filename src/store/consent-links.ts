import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { ProvenLink, Read, RowProofs } from "../proven-rows.ts";
import { encryptionKeyMissing } from "../unreadable.ts";
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
export type ConsentLinkRow = Read<ProvenLink> & { used: boolean; expired: boolean };

/** What opens a link: its id, and the hash of its secret. */
export type LinkKey = { id: string; secretHash: Uint8Array<ArrayBuffer> };

export type ConsentLinks = ReturnType<typeof createConsentLinks>;

/** The statements that move a consent link: docs/consent.md, "A link". */
export function createConsentLinks(prisma: Prisma, { links: proofs }: Pick<RowProofs, "links">) {
  /** A link that this broker did not write so is as good as unknown. @throws BrokerError encryption_key_missing */
  const only = async ([row]: ConsentLinkRow[]): Promise<ConsentLinkRow | null> => {
    if (row === undefined) return null;
    const standing = await proofs.standing(row);
    if (standing === "silent") throw encryptionKeyMissing("this consent link");
    return standing === "ours" ? row : null;
  };

  return {
    /** Stores a link and forgets those of the same connection that ran out 30 days ago. */
    async insert(link: NewConsentLink): Promise<{ expiresAt: Date }> {
      await prisma.$executeRaw`DELETE FROM consent_links WHERE connection_id = ${link.connectionId}::uuid
        AND expires_at < clock_timestamp() - interval '30 days'`;
      const [time] = await prisma.$queryRaw<{ expiresAt: Date }[]>`
        SELECT (clock_timestamp() + make_interval(secs => ${link.expiresInSeconds}::double precision))::timestamptz(3) AS "expiresAt"`;
      const expiresAt = time?.expiresAt ?? new Date(0);
      const mac = proofs.sign({ ...link, expiresAt, claimedBy: null });
      await prisma.$executeRaw`
        INSERT INTO consent_links (id, connection_id, secret_hash, return_to, manual, purpose, created_by, expires_at, mac)
        VALUES (${link.id}, ${link.connectionId}::uuid, ${link.secretHash}, ${link.returnTo}, ${link.manual},
          ${link.purpose}, ${link.createdBy}, ${expiresAt}::timestamptz, ${mac})`;
      return { expiresAt };
    },

    async find({ id, secretHash }: LinkKey): Promise<ConsentLinkRow | null> {
      const rows = await prisma.$queryRaw<ConsentLinkRow[]>`
        SELECT ${columns} FROM consent_links WHERE id = ${id} AND secret_hash = ${secretHash}`;
      return await only(rows);
    },

    /** Where the person is led back to, of a link that this process itself has named; null: nowhere. */
    async returnTo(id: string): Promise<string | null> {
      const rows = await prisma.$queryRaw<ConsentLinkRow[]>`SELECT ${columns} FROM consent_links WHERE id = ${id}`;
      return (await only(rows))?.returnTo ?? null;
    },

    /** The first browser wins, by this one UPDATE. False: it is not this browser's, or no longer open. */
    async claim({ id, secretHash }: LinkKey, browserHash: Uint8Array<ArrayBuffer>): Promise<boolean> {
      const row = await this.find({ id, secretHash });
      if (row === null) return false;
      const mac = proofs.sign({ ...row, claimedBy: browserHash });
      const count = await prisma.$executeRaw`UPDATE consent_links SET claimed_by = ${browserHash}, mac = ${mac}
        WHERE id = ${id} AND secret_hash = ${secretHash} AND used_at IS NULL AND expires_at > clock_timestamp()
          AND (claimed_by IS NULL OR claimed_by = ${browserHash}) AND mac = ANY(${[row.mac, mac]}::text[])`;
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

const columns = Sql.sql`id, connection_id::text AS "connectionId", secret_hash AS "secretHash", return_to AS "returnTo", manual,
  purpose, created_by AS "createdBy", claimed_by AS "claimedBy", mac, used_at IS NOT NULL AS used,
  expires_at <= clock_timestamp() AS expired, expires_at AS "expiresAt"`;
