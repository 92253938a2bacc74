import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { Database } from "./database.ts";
import {
  addEvents,
  failureColumns,
  freePermit,
  owned,
  type PermitKey,
  type RecordedFailure,
  seconds,
  statusColumns,
  eventDetail,
} from "./row-sql.ts";
import { tokenColumns, type TokenRow } from "./token-row.ts";

/** The statements that end a grant, or mark it as probably dead. The access token stays, since it may not have expired. */
export function createGrantEndStatements({ prisma }: Pick<Database, "prisma">) {
  return {
    /**
     * Ends the grant. Null: the row has moved on, or a person has just
     * stored new credentials, and nothing was changed.
     */
    async endGrant(
      key: PermitKey & { credentialsRevision?: number },
      failure: RecordedFailure,
    ): Promise<TokenRow | null> {
      const { credentialsRevision } = key;
      const tried =
        credentialsRevision === undefined ? Sql.empty : Sql.sql`AND c.credentials_revision = ${credentialsRevision}`;
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET ${freePermit}, ${failureColumns(failure)}, backoff_until = NULL,
          next_refresh_at = NULL, ${statusColumns("needs_reauthorization")} WHERE ${owned(key)} ${tried} RETURNING c.*),
        ${addEvents([{ type: "needs_reauthorization", detail: eventDetail(failure) }])}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /** Ends a connection whose access token has expired and that cannot be refreshed. Null: the row is not as it was read. */
    async endUnrefreshable(row: TokenRow, failure: RecordedFailure): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET ${failureColumns(failure)}, next_refresh_at = NULL,
          ${statusColumns("needs_reauthorization")}
          WHERE c.id = ${row.id}::uuid AND c.generation = ${row.generation} AND c.attempt_id IS NULL
            AND c.status = 'connected' RETURNING c.*),
        ${addEvents([{ type: "needs_reauthorization", detail: eventDetail(failure) }])}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /**
     * Marks a grant as probably dead: at least `equal` equal refusals have come over at least `seconds`, and the access token has
     * expired. The status stays. Null: that is not so, or the row is marked already.
     */
    async judgeRefusals(
      { connectionId, generation }: Pick<PermitKey, "connectionId" | "generation">,
      least: { equal: number; seconds: number },
    ): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET probably_dead_since = clock_timestamp()
          WHERE c.id = ${connectionId}::uuid AND c.generation = ${generation} AND c.status = 'connected'
            AND c.probably_dead_since IS NULL AND c.refusals >= ${least.equal}::int AND c.expires_at <= clock_timestamp()
            AND c.refused_since <= clock_timestamp() - ${seconds(least.seconds)} RETURNING c.*),
        event AS (INSERT INTO connection_events (connection_id, type, detail)
          SELECT c.id, 'probably_dead', jsonb_build_object('refusal', c.refusal, 'refusals', c.refusals, 'since', to_char(
            c.refused_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) FROM c)
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },

    /**
     * An operator ends a grant that is probably dead. Null: it is not, or a request with its refresh token may still be on its way, since the
     * lease and `quietSeconds` after it are not over.
     */
    async endProbablyDead(
      { id, generation }: Pick<TokenRow, "id" | "generation">,
      given: { by: string; quietSeconds: number },
    ): Promise<TokenRow | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH c AS (UPDATE connections c SET ${freePermit}, backoff_until = NULL, next_refresh_at = NULL,
          ${statusColumns("needs_reauthorization")}, updated_at = clock_timestamp()
          WHERE c.id = ${id}::uuid AND c.generation = ${generation} AND c.status = 'connected'
            AND c.probably_dead_since IS NOT NULL
            AND (c.attempt_id IS NULL OR c.lease_until + ${seconds(given.quietSeconds)} <= clock_timestamp()) RETURNING c.*),
        ${addEvents([{ type: "needs_reauthorization", detail: { code: "probably_dead", by: given.by } }])}
        SELECT ${tokenColumns} FROM c`;
      return rows[0] ?? null;
    },
  };
}
