import { Prisma as Sql } from "../generated/prisma/client.ts";
import { binds, type Labels } from "../labels.ts";
import { type ClientRow, joinedClientColumns, splitClient } from "./clients.ts";
import type { Database } from "./database.ts";
import { createDueStatements } from "./due.ts";
import { createGrantEndStatements } from "./grant-ends.ts";
import { createPermitStatements } from "./permits.ts";
import { carriesAll } from "./row-sql.ts";
import { tokenColumns, type TokenRow } from "./token-row.ts";
import { createTokenSetStatements } from "./token-sets.ts";

/** The statements of the refresh protocol: each moves a row along one arrow of docs/refresh-protocol.md, "States of a row", with its history. */
export type TokenStatements = ReturnType<typeof createTokenStatements>;

/** A connection and its client, read in one statement. Null: it has no client. */
export type RowWithClient = { row: TokenRow; client: ClientRow | null };

/** A row and its version: a text that changes whenever anything changes that the row was read from. */
export type RowAsOf = { row: TokenRow; asOf: string };

/**
 * The transactions that wrote the row, its client's and its connection's: `tokenColumns` reads all three. Postgres gives each transaction another
 * number until four billion have passed, and keeps it with the row when it freezes it.
 */
const asOf = Sql.sql`concat_ws(' ', c.xmin, (SELECT k.xmin FROM clients k WHERE k.id = c.client_ref),
  (SELECT p.xmin FROM connections p WHERE p.id = c.parent_id))`;

const byName = {
  name: "connections by name",
  text: Sql.sql`SELECT ${tokenColumns}, ${asOf} AS "asOf" FROM connections c WHERE c.name = ANY($1::text[])`.text,
};

const changed = {
  name: "connections that have changed",
  text: Sql.sql`SELECT clock_timestamp() AS now, ARRAY(
    SELECT w.id FROM unnest(string_to_array($1, ','), string_to_array($2, ',')) AS w (id, as_of)
    WHERE (SELECT ${asOf} FROM connections c WHERE c.id = w.id::uuid) IS DISTINCT FROM w.as_of) AS ids`.text,
};

/** Statements of their own for one row: for a list, whose length it does not know, Postgres would make a plan each time. */
const byOneName = {
  name: "connection by name",
  text: Sql.sql`SELECT ${tokenColumns}, ${asOf} AS "asOf" FROM connections c WHERE c.name = $1`.text,
};
const byId = {
  name: "connections by id",
  text: Sql.sql`SELECT ${tokenColumns} FROM connections c WHERE c.id = $1::uuid`.text,
};

export function createTokenStatements(database: Database) {
  const { prisma, direct } = database;
  return {
    /** Rows of these names; names without a connection are left out. */
    async readByName(names: readonly string[]): Promise<RowAsOf[]> {
      const [statement, values] = names.length === 1 ? [byOneName, names] : [byName, [names]];
      const rows = await direct<TokenRow & { asOf: string }>(statement, values);
      return rows.map((row) => ({ row, asOf: row.asOf }));
    },

    /** The ids of those of these rows that are gone, or of another version, and Postgres's clock. */
    async changedSince(known: readonly { id: string; asOf: string | null }[]): Promise<{ ids: string[]; now: Date }> {
      // Two long texts cost less on the way than two lists of thousands. Postgres looks up each row by its key: it cannot make a join of this.
      const [ids, versions] = [known.map(({ id }) => id).join(), known.map((each) => each.asOf).join()];
      const [answer] = await direct<{ ids: string[]; now: Date }>(changed, [ids, versions]);
      return answer as NonNullable<typeof answer>;
    },

    /**
     * Whether there is a connection of this name that carries each of these labels, of which there is at least one. Where there is no
     * connection, an empty set of labels is compared all the same, so that the time does not show which of the two it is.
     */
    async hasLabels(name: string, labels: Labels): Promise<boolean> {
      if (!binds(labels)) return false;
      const found = Sql.sql`COALESCE((SELECT c.labels FROM connections c WHERE c.name = ${name}), '{}')`;
      const rows = await prisma.$queryRaw<unknown[]>`
        SELECT 1 AS found FROM (SELECT ${found} AS labels) one WHERE ${carriesAll(Sql.sql`one.labels`, labels)}`;
      return rows.length > 0;
    },

    /** The existing rows of these ids. */
    async readByIds(ids: readonly string[]): Promise<TokenRow[]> {
      if (ids.length === 1) return await direct<TokenRow>(byId, ids);
      return await prisma.$queryRaw`SELECT ${tokenColumns} FROM connections c WHERE c.id = ANY(${ids}::uuid[])`;
    },

    async readById(connectionId: string): Promise<TokenRow | null> {
      return (await direct<TokenRow>(byId, [connectionId]))[0] ?? null;
    },

    /** The same with its client. Their MACs are not checked yet. */
    async readWithClient(connectionId: string): Promise<RowWithClient | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        SELECT ${tokenColumns}, ${joinedClientColumns} FROM connections c LEFT JOIN clients k ON k.id = c.client_ref
        WHERE c.id = ${connectionId}::uuid`;
      return rows[0] === undefined ? null : splitClient(rows[0]);
    },

    ...createPermitStatements(database),
    ...createGrantEndStatements(database),
    ...createTokenSetStatements(database),
    ...createDueStatements(database),
  };
}
