import { randomUUID } from "node:crypto";
import { furtherTokenName } from "../text.ts";
import { encryptionKeyMissing } from "../errors.ts";
import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { ProvenUnconfirmedGrant, Read, RowProofs } from "../proven-rows.ts";
import { consentTimes } from "../time.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database } from "./database.ts";
import { json, seconds } from "./row-sql.ts";
import { type EventType, tokenColumns, type TokenRow } from "./token-row.ts";

/** What was found out about the account of a connection. */
export type FoundAccount = { account: string | null; label: string | null; captured: Record<string, string> };

/** An unconfirmed grant: its account is not the connection's, and it changes nothing until a person confirms it. */
export type UnconfirmedGrant = Read<ProvenUnconfirmedGrant> & { record: Uint8Array<ArrayBuffer> };

const forgottenBefore = Sql.sql`statement_timestamp() - ${seconds(consentTimes.unconfirmedGrantSeconds)}`;
const columns: Columns<UnconfirmedGrant> = {
  attemptId: "h.attempt_id::text",
  connectionId: "h.connection_id::text",
  generation: "h.generation",
  record: "h.record_sealed",
  account: "h.account",
  accountLabel: "h.account_label",
  linkId: "h.link_id",
  accepted: "h.accepted",
  mac: "h.mac",
};
export const unconfirmedColumns = selectList(columns);
const isOpen = Sql.sql`h.created_at > ${forgottenBefore} AND NOT EXISTS (SELECT 1 FROM connections c
  WHERE c.id = h.connection_id AND c.authorized_at > h.created_at)`;

export type AccountRows = ReturnType<typeof createAccountRows>;

/** A grant that is about to be revoked. */
export type GrantInUse = {
  /** The connection that had it; null: not known any more. */
  connectionId: string | null;
  provider: string;
  clientRef: string | null;
  refreshFingerprint: Uint8Array<ArrayBuffer> | null;
  /** The account whose grants all end with it; null: not known, or a revocation ends only one token. */
  account: string | null;
  /** All grants of an account end with it, and this grant's account is not known: it may be the account of any connection. */
  mayBeSame: boolean;
};

/** Statements on accounts, further tokens, and unconfirmed grants. */
export function createAccountRows(
  { prisma, commits }: Pick<Database, "prisma" | "commits">,
  proofs: Pick<RowProofs, "connections" | "unconfirmedGrants">,
) {
  /** A row that this broker has not written counts as none. */
  const isOurs = (unconfirmed: UnconfirmedGrant): boolean => proofs.unconfirmedGrants.isOurs(unconfirmed);

  /**
   * Compare-and-swap on its proof. Null: the grant is gone, or has been changed since it was read. A rotation of encryption keys signs it anew,
   * and changes nothing of it.
   */
  const change = async (
    unconfirmed: UnconfirmedGrant,
    changes: Partial<ProvenUnconfirmedGrant>,
  ): Promise<UnconfirmedGrant | null> => {
    const changed = await changeOnce(unconfirmed, changes);
    if (changed !== null) return changed;
    const [now] = await prisma.$queryRaw<UnconfirmedGrant[]>`SELECT ${unconfirmedColumns} FROM held_grants h
      WHERE h.attempt_id = ${unconfirmed.attemptId}::uuid`;
    if (now === undefined || now.mac === unconfirmed.mac || !isSignedAnew(unconfirmed, now)) return null;
    return await changeOnce(now, changes);
  };

  const changeOnce = async (
    unconfirmed: UnconfirmedGrant,
    changes: Partial<ProvenUnconfirmedGrant>,
  ): Promise<UnconfirmedGrant | null> => {
    const next = { ...unconfirmed, ...changes };
    const rows = await prisma.$queryRaw<UnconfirmedGrant[]>`UPDATE held_grants h SET account = ${next.account},
        account_label = ${next.accountLabel}, link_id = ${next.linkId}, accepted = ${next.accepted},
        mac = ${proofs.unconfirmedGrants.sign(next)}
      WHERE h.attempt_id = ${unconfirmed.attemptId}::uuid AND h.mac = ${unconfirmed.mac} RETURNING ${unconfirmedColumns}`;
    return rows[0] ?? null;
  };

  const isSignedAnew = (unconfirmed: UnconfirmedGrant, { mac }: UnconfirmedGrant): boolean => {
    try {
      proofs.unconfirmedGrants.check({ ...unconfirmed, mac });
      return true;
    } catch {
      return false;
    }
  };

  const findOpen = async (which: Sql.Sql): Promise<UnconfirmedGrant | null> => {
    const rows = await prisma.$queryRaw<UnconfirmedGrant[]>`SELECT ${unconfirmedColumns} FROM held_grants h
      WHERE ${which} AND ${isOpen} ORDER BY h.created_at DESC`;
    for (const row of rows) {
      const standing = await proofs.unconfirmedGrants.standing(row);
      if (standing === "silent") throw encryptionKeyMissing("the grant that waits to be confirmed");
      if (standing === "ours") return row;
    }
    return null;
  };

  return {
    /** Makes the rows of further tokens that do not exist yet. */
    async ensureFurtherTokens(
      row: Pick<TokenRow, "id" | "name" | "provider" | "clientRef" | "grant" | "scopes">,
      furtherTokens: readonly { name: string; exchange: object | null }[],
    ): Promise<void> {
      for (const { name, exchange } of furtherTokens) {
        const grant = exchange === null ? row.grant : "token_exchange";
        const full = furtherTokenName(row.name, name);
        const id = randomUUID();
        const { provider, clientRef, scopes } = row;
        const own = {
          parentId: row.id,
          chain: name,
          inputs: {},
          labels: {},
          status: "pending",
          credentialsRevision: 0,
        };
        const mac = proofs.connections.sign({ id, name: full, provider, clientRef, grant, scopes, ...own });
        await prisma.$executeRaw`
          INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, inputs, labels,
            parent_id, chain, mac, version)
          SELECT ${id}::uuid, ${full}, ${provider}, ${clientRef}::uuid, ${grant}, ${scopes}::text[], '{}', '{}', '{}',
            c.id, ${name}, ${mac}, COALESCE((SELECT t.version FROM tombstones t WHERE t.name = ${full}), 0)
          FROM connections c WHERE c.id = ${row.id}::uuid ON CONFLICT (name) DO NOTHING`;
      }
    },

    async readFurtherTokens(parentId: string): Promise<TokenRow[]> {
      return await prisma.$queryRaw`SELECT ${tokenColumns} FROM connections c WHERE c.parent_id = ${parentId}::uuid`;
    },

    /**
     * Notes whose account it is, unless the tokens have changed since. `tokens`: the same ones, sealed for what was found. The answer
     * to a request under way is sealed for what was known before, so meanwhile nothing is noted that would differ from that.
     */
    async learnAccount(
      row: { id: string; authorization: number; generation: number },
      found: FoundAccount,
      tokens: { accessToken: Uint8Array<ArrayBuffer> | null; refreshToken: Uint8Array<ArrayBuffer> | null },
    ): Promise<TokenRow | null> {
      const detail = { account: found.account, label: found.label };
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections SET account = ${found.account}, account_label = ${found.label},
            account_captured = ${json(found.captured)}, looked_up = authorization_seq, updated_at = clock_timestamp(),
            access_token_sealed = ${tokens.accessToken}, refresh_token_sealed = ${tokens.refreshToken}
          WHERE id = ${row.id}::uuid AND authorization_seq = ${row.authorization} AND generation = ${row.generation}
            AND (attempt_id IS NULL OR account_captured = ${json(found.captured)}) RETURNING *),
        event AS (INSERT INTO connection_events (connection_id, type, detail)
          SELECT c.id, 'account_found', ${json(detail)} FROM c)
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /** Notes that the lookup of the account has failed under the present grant. */
    async noteLookupFailed(row: { id: string; authorization: number }, detail: string): Promise<void> {
      await prisma.$executeRaw`WITH c AS (UPDATE connections SET lookup_failed_at = clock_timestamp(), lookup_failures =
            CASE WHEN lookup_failed_at >= COALESCE(authorized_at, created_at) THEN lookup_failures + 1 ELSE 1 END
          WHERE id = ${row.id}::uuid AND authorization_seq = ${row.authorization} RETURNING id)
        INSERT INTO connection_events (connection_id, type, detail)
          SELECT c.id, 'account_lookup_failed', ${json({ detail })} FROM c`;
    },

    /** Notes when the newest access token expires, where only the provider's introspection tells it. */
    async learnExpiry(
      row: { id: string; generation: number },
      ends: { expiresAt: Date | null; refreshDueAt: Date | null },
    ): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        UPDATE connections c SET expires_at = ${ends.expiresAt}::timestamptz,
          refresh_due_at = ${ends.refreshDueAt}::timestamptz,
          next_refresh_at = CASE WHEN c.in_use AND c.attempt_id IS NULL
            THEN GREATEST(LEAST(${ends.refreshDueAt}::timestamptz, c.keep_alive_at), c.backoff_until)
            ELSE c.next_refresh_at END
        WHERE c.id = ${row.id}::uuid AND c.generation = ${row.generation} RETURNING ${tokenColumns}`;
      return rows[0] ?? null;
    },

    /** Other connections that hold token sets of the same account, newest first. `providers`: the ids that their provider may have. */
    async sharingAccount(
      row: Pick<TokenRow, "id" | "account" | "clientRef">,
      inputs: Readonly<Record<string, string>>,
      by: { account: boolean; client: boolean; providers: readonly string[] },
    ): Promise<{ id: string; name: string }[]> {
      return await prisma.$queryRaw`
        SELECT o.id::text AS id, o.name FROM connections o WHERE o.provider = ANY(${[...by.providers]}::text[]) AND o.id <> ${row.id}::uuid
          AND o.parent_id IS NULL AND o.generation > 0 AND o.enabled_status = 'connected'
          AND ${by.account ? Sql.sql`o.account = ${row.account}` : Sql.sql`true`}
          AND ${by.client ? isOfClient(row.clientRef) : Sql.sql`true`}
          AND ${hasInputs(inputs)} ORDER BY o.authorized_at DESC NULLS LAST, o.name`;
    },

    /**
     * Adds a line to the history of these connections: their token set has most likely ended. Once for each grant; the line does not name the
     * connection that has ended it.
     */
    async noteDroppedSets(ids: string[], detail: { kept: number }): Promise<void> {
      await prisma.$executeRaw`INSERT INTO connection_events (connection_id, type, detail)
        SELECT c.id, 'set_dropped', ${json(detail)} FROM connections c WHERE c.id = ANY(${ids}::uuid[]) AND NOT EXISTS (
          SELECT 1 FROM connection_events e
          WHERE e.connection_id = c.id AND e.type = 'set_dropped' AND e.at >= COALESCE(c.authorized_at, c.created_at))`;
    },

    async addEvent(connectionId: string, type: EventType, detail: Record<string, unknown>): Promise<void> {
      await prisma.$executeRaw`INSERT INTO connection_events (connection_id, type, detail)
        SELECT c.id, ${type}, ${json(detail)} FROM connections c WHERE c.id = ${connectionId}::uuid`;
    },

    /** Stores an unconfirmed grant. False: the connection is gone. May be repeated. */
    async addUnconfirmed(
      unconfirmed: Pick<UnconfirmedGrant, "attemptId" | "connectionId" | "generation" | "record">,
    ): Promise<boolean> {
      const mac = proofs.unconfirmedGrants.sign({
        ...unconfirmed,
        account: null,
        accountLabel: null,
        linkId: null,
        accepted: false,
      });
      const rows = await commits.$queryRaw<unknown[]>`
        WITH c AS (SELECT id FROM connections WHERE id = ${unconfirmed.connectionId}::uuid),
        kept AS (INSERT INTO held_grants (attempt_id, connection_id, generation, record_sealed, mac)
          SELECT ${unconfirmed.attemptId}::uuid, c.id, ${unconfirmed.generation}, ${unconfirmed.record}, ${mac} FROM c ON CONFLICT (attempt_id) DO NOTHING)
        SELECT id::text FROM c`;
      return rows.length > 0;
    },

    /** Notes whose account an unconfirmed grant is of. `linkId`: the consent link whose page asks the person; null: the caller asks. */
    async describeUnconfirmed(
      attemptId: string,
      found: { account: string | null; label: string | null; linkId: string | null },
    ): Promise<void> {
      const unconfirmed = await findOpen(whichUnconfirmed({ attemptId }));
      const { account, label: accountLabel, linkId } = found;
      if (unconfirmed !== null) await change(unconfirmed, { account, accountLabel, linkId });
    },

    /** Only the newest question of a connection counts: older unconfirmed grants become as old as those that nobody has answered. */
    async overtakeUnconfirmed(attemptId: string): Promise<void> {
      await prisma.$executeRaw`UPDATE held_grants o SET created_at = ${forgottenBefore} FROM held_grants h
        WHERE h.attempt_id = ${attemptId}::uuid AND o.connection_id = h.connection_id AND o.created_at < h.created_at
          AND o.created_at > ${forgottenBefore} AND NOT o.accepted`;
    },

    /** The newest unconfirmed grant. Not one that is older than an hour, or than what a person has connected since. */
    async findUnconfirmed(of: UnconfirmedBy): Promise<UnconfirmedGrant | null> {
      return await findOpen(whichUnconfirmed(of));
    },

    /** The person confirms, and no later refusal takes that back. Null: the grant is gone. May be repeated. */
    async acceptUnconfirmed(attemptId: string): Promise<UnconfirmedGrant | null> {
      for (;;) {
        const unconfirmed = await findOpen(whichUnconfirmed({ attemptId }));
        if (unconfirmed === null || unconfirmed.accepted) return unconfirmed;
        const accepted = await change(unconfirmed, { accepted: true });
        if (accepted !== null) return accepted;
      }
    },

    /** The person refuses. True for one of those who do; false once somebody has confirmed. */
    async declineUnconfirmed(attemptId: string): Promise<boolean> {
      const count = await prisma.$executeRaw`DELETE FROM held_grants
        WHERE attempt_id = ${attemptId}::uuid AND NOT accepted`;
      return count > 0;
    },

    /**
     * Whether another connection of the same client that has not ended may be of the same account: its account is the same, or one of
     * the two is not known. A further token has the account of its connection.
     */
    async mayShareAccount({ id, parentId, clientRef }: AccountOf, providers: readonly string[]): Promise<boolean> {
      const own = Sql.sql`${parentId ?? id}::uuid`;
      const account = Sql.sql`(SELECT c.account FROM connections c WHERE c.id = ${own})`;
      const others = Sql.sql`SELECT 1 FROM connections o WHERE o.parent_id IS NULL AND o.id <> ${own}
        AND ${isOfClient(clientRef)} AND o.provider = ANY(${[...providers]}::text[])
        AND EXISTS (SELECT 1 FROM connections e WHERE (e.id = o.id OR e.parent_id = o.id) AND e.enabled_status = 'connected')`;
      // Each part has an index of its own, which one condition for all would not have.
      const rows = await prisma.$queryRaw<unknown[]>`
        SELECT 1 WHERE EXISTS (SELECT 1 FROM connections c WHERE c.id = ${own}) AND (
          EXISTS (${others} AND o.account = ${account}) OR EXISTS (${others} AND o.account IS NULL)
          OR (${account} IS NULL AND EXISTS (${others})))`;
      return rows.length > 0;
    },

    /**
     * Whether a connection still needs a grant that is about to be revoked: it holds this refresh token, or, where `account` is given
     * or `mayBeSame`, it is another connection of the same client for that account.
     */
    async isStillNeeded(grant: GrantInUse): Promise<boolean> {
      const { connectionId, provider, clientRef, refreshFingerprint, account, mayBeSame } = grant;
      const others = Sql.sql`SELECT 1 FROM connections o WHERE ${isOfClient(clientRef)} AND o.provider = ${provider}
        AND o.parent_id IS NULL AND o.id IS DISTINCT FROM ${connectionId}::uuid AND o.enabled_status = 'connected'`;
      const rows = await prisma.$queryRaw<unknown[]>`
        SELECT 1 WHERE EXISTS (SELECT 1 FROM connections o WHERE o.refresh_fingerprint = ${refreshFingerprint})
          OR EXISTS (${others} AND o.account = ${account})
          OR (${mayBeSame} AND EXISTS (${others} AND ${account === null ? Sql.sql`true` : Sql.sql`o.account IS NULL`}))`;
      return rows.length > 0;
    },

    /** After a confirmed grant has become the connection's. */
    async dropUnconfirmed(attemptId: string): Promise<void> {
      await prisma.$executeRaw`DELETE FROM held_grants WHERE attempt_id = ${attemptId}::uuid`;
    },

    /** Deletes and returns all of one connection, so that they can be revoked. */
    async takeUnconfirmed(connectionId: string): Promise<UnconfirmedGrant[]> {
      return await prisma.$queryRaw`DELETE FROM held_grants h WHERE h.connection_id = ${connectionId}::uuid
        RETURNING ${unconfirmedColumns}`;
    },

    /** Deletes and returns those that nobody has answered in time, so that they can be revoked. */
    async takeForgottenUnconfirmed(): Promise<UnconfirmedGrant[]> {
      return await prisma.$queryRaw`DELETE FROM held_grants h
        WHERE h.attempt_id IN (SELECT f.attempt_id FROM held_grants f
          WHERE NOT f.accepted AND f.created_at < ${forgottenBefore} FOR UPDATE SKIP LOCKED) RETURNING ${unconfirmedColumns}`;
    },

    /** Those that somebody confirmed a while ago, and whose process died before they were stored. */
    async acceptedUnconfirmed(): Promise<UnconfirmedGrant[]> {
      const rows = await prisma.$queryRaw<UnconfirmedGrant[]>`SELECT ${unconfirmedColumns} FROM held_grants h
        WHERE h.accepted AND h.created_at < statement_timestamp() - ${seconds(consentTimes.acceptedGrantSeconds)}`;
      return rows.filter(isOurs);
    },
  };
}

/** With those values; none: any. The second condition is that of the index, in which rows without inputs are not. */
const hasInputs = (inputs: Readonly<Record<string, string>>) =>
  Object.keys(inputs).length === 0 ? Sql.sql`true` : Sql.sql`o.inputs @> ${json(inputs)} AND o.inputs <> '{}'`;

const isOfClient = (clientRef: string | null) =>
  clientRef === null ? Sql.sql`o.client_ref IS NULL` : Sql.sql`o.client_ref = ${clientRef}::uuid`;

type AccountOf = Pick<TokenRow, "id" | "parentId" | "clientRef">;

/** By connection: what was granted by way of one consent link. */
type UnconfirmedBy = { connectionId: string; linkId?: string } | { attemptId: string };

function whichUnconfirmed(of: UnconfirmedBy): Sql.Sql {
  if ("attemptId" in of) return Sql.sql`h.attempt_id = ${of.attemptId}::uuid`;
  const ofLink = of.linkId === undefined ? Sql.empty : Sql.sql`AND h.link_id = ${of.linkId}`;
  return Sql.sql`h.connection_id = ${of.connectionId}::uuid ${ofLink}`;
}
