import { Prisma as Sql } from "../generated/prisma/client.ts";
import { type UnconfirmedGrant, unconfirmedColumns } from "./accounts.ts";
import { type ApiKeyRow, keyColumns } from "./api-keys.ts";
import { clientColumns, type ClientRow } from "./clients.ts";
import { type Columns, selectList } from "./columns.ts";
import { type ConsentLinkRow, linkColumns } from "./consents.ts";
import type { Database } from "./database.ts";
import { tokenColumns, type TokenRow } from "./token-row.ts";
import { workloadColumns, type WorkloadRow } from "./workloads.ts";

/** An answer that is not in its row yet. */
type KeptAnswer = { connectionId: string; generation: number; answer: Uint8Array };
const unreadColumns: Columns<KeptAnswer> = {
  connectionId: "t.connection_id::text",
  generation: "t.generation",
  answer: "t.answer_sealed",
};
const candidateColumns: Columns<KeptAnswer> = {
  connectionId: "t.connection_id::text",
  generation: "t.base_generation",
  answer: "t.record_sealed",
};
/** A user code, with the connection whose scopes and inputs it was asked for. */
export type SealedDeviceCode = TokenRow & { requestId: string; deviceCode: Uint8Array };
type SealedRequest = { requestId: string; request: Uint8Array };

/** A table with values that are sealed or signed. `T`: its row, as it is needed to open and sign them. */
type SealedTable<T> = {
  readonly name: string;
  /** Its primary key. */
  readonly id: Sql.Sql;
  readonly idType: Sql.Sql;
  /** The columns of a row; in them `t` stands for the table. */
  readonly columns: Sql.Sql;
  /** What else the columns need, beside the table. */
  readonly join?: Sql.Sql;
  readonly alias: Sql.Sql;
  readonly seals: readonly { column: string; of: (row: T) => Uint8Array | null }[];
  readonly mac: ((row: T) => string | null) | null;
  /** There may be seals within its seals, which no statement sees: every row is read. */
  readonly isNested?: true;
};

const table = <T>(
  name: string,
  given: Omit<SealedTable<T>, "name" | "id" | "idType" | "alias"> & Partial<SealedTable<T>>,
) => ({
  name,
  id: Sql.raw("id"),
  idType: Sql.raw("uuid"),
  alias: Sql.raw("t"),
  ...given,
});

/** Every table with sealed or signed columns, in the order of a pass. */
const sealedTables = {
  connections: table<TokenRow>("connections", {
    alias: Sql.raw("c"),
    columns: tokenColumns,
    seals: [
      { column: "access_token_sealed", of: ({ accessToken }) => accessToken },
      { column: "refresh_token_sealed", of: ({ refreshToken }) => refreshToken },
      { column: "credentials_sealed", of: ({ credentials }) => credentials },
    ],
    mac: ({ mac }) => mac,
  }),
  clients: table<ClientRow>("clients", {
    alias: Sql.raw("k"),
    columns: clientColumns,
    seals: [
      { column: "secret_sealed", of: ({ secret }) => secret },
      { column: "previous_secret_sealed", of: ({ previousSecret }) => previousSecret },
    ],
    mac: ({ mac }) => mac,
  }),
  api_keys: table<ApiKeyRow>("api_keys", {
    alias: Sql.raw("k"),
    idType: Sql.raw("text"),
    columns: keyColumns,
    seals: [],
    mac: ({ mac }) => mac,
  }),
  workloads: table<WorkloadRow>("workloads", {
    alias: Sql.raw("w"),
    columns: workloadColumns,
    seals: [],
    mac: ({ mac }) => mac,
  }),
  consent_links: table<ConsentLinkRow>("consent_links", {
    idType: Sql.raw("text"),
    columns: linkColumns,
    seals: [],
    mac: ({ mac }) => mac,
  }),
  held_grants: table<UnconfirmedGrant>("held_grants", {
    id: Sql.raw("attempt_id"),
    alias: Sql.raw("h"),
    columns: unconfirmedColumns,
    seals: [{ column: "record_sealed", of: ({ record }) => record }],
    mac: ({ mac }) => mac,
    isNested: true,
  }),
  candidates: table<KeptAnswer>("candidates", {
    id: Sql.raw("attempt_id"),
    columns: selectList(candidateColumns),
    seals: [{ column: "record_sealed", of: ({ answer }) => answer }],
    mac: null,
    isNested: true,
  }),
  unread_answers: table<KeptAnswer>("unread_answers", {
    columns: selectList(unreadColumns),
    seals: [{ column: "answer_sealed", of: ({ answer }) => answer }],
    mac: null,
  }),
  device_authorizations: table<SealedDeviceCode>("device_authorizations", {
    id: Sql.raw("connection_id"),
    columns: Sql.sql`${tokenColumns}, t.id::text AS "requestId", t.device_code_sealed AS "deviceCode"`,
    join: Sql.raw("JOIN connections c ON c.id = t.connection_id"),
    seals: [{ column: "device_code_sealed", of: ({ deviceCode }) => deviceCode }],
    mac: null,
  }),
  authorization_requests: table<SealedRequest>("authorization_requests", {
    columns: selectList({ requestId: "t.id::text", request: "t.request_sealed" }),
    seals: [{ column: "request_sealed", of: ({ request }) => request }],
    mac: null,
  }),
};

export type SealedTableName = keyof typeof sealedTables;
export const sealedTableNames = Object.keys(sealedTables) as SealedTableName[];
/** The row of each table. */
export type SealedRow<Name extends SealedTableName> =
  (typeof sealedTables)[Name] extends SealedTable<infer T> ? T : never;

/** A row's values before and after, in the order of the table's `seals`. */
export type RowChange = {
  id: string;
  seals: readonly { before: Uint8Array | null; after: Uint8Array | null }[];
  mac: { before: string | null; after: string | null } | null;
};

/** What of one table is under one key. `keyId` null: what is there is no record, and no MAC. */
export type KeyCount = { keyId: string | null; seals: number; macs: number };

/** How many rows one statement looks at, and how many it changes: none holds rows for long. */
const pageSize = 200;
const changedAtOnce = 50;
const countedAtOnce = 20_000;

const beyond = ({ id, idType }: Pick<SealedTable<never>, "id" | "idType">, alias: Sql.Sql, after: string | null) =>
  after === null ? Sql.sql`true` : Sql.sql`${alias}.${id} > ${after}::${idType}`;

export type SealedRows = ReturnType<typeof createSealedRows>;

/** Statements of a rotation of encryption keys, on all tables with sealed or signed columns. */
export function createSealedRows({ prisma }: Pick<Database, "prisma">) {
  return {
    /** The next rows after this id: how many there are, and the last one's id; null: there is none. */
    async page(
      name: SealedTableName,
      after: string | null,
      size = pageSize,
    ): Promise<{ count: number; last: string } | null> {
      const of = sealedTables[name] as SealedTable<never>;
      const [page] = await prisma.$queryRaw<{ count: number; last: string | null }[]>`
        SELECT count(*)::int AS count, (array_agg(p.id::text ORDER BY p.id DESC))[1] AS last FROM (
          SELECT x.${of.id} AS id FROM ${Sql.raw(name)} x WHERE ${beyond(of, Sql.raw("x"), after)} ORDER BY x.${of.id} LIMIT ${size}) p`;
      return page === undefined || page.last === null ? null : { count: page.count, last: page.last };
    },

    /** The rows of a page that have, or may have, something that is not under this key. */
    async others<Name extends SealedTableName>(
      name: Name,
      { after, last, keyId }: { after: string | null; last: string; keyId: string },
    ): Promise<(SealedRow<Name> & { rowId: string })[]> {
      const of = sealedTables[name] as SealedTable<never>;
      const { alias, id, idType, seals, mac, join = Sql.empty } = of;
      const column = (each: string) => Sql.sql`${alias}.${Sql.raw(each)}`;
      const isOther = [
        ...seals.map(
          ({ column: each }) =>
            Sql.sql`${column(each)} IS NOT NULL AND ${keyIdOfSeal(column(each))} IS DISTINCT FROM ${keyId}`,
        ),
        ...(mac === null ? [] : [Sql.sql`${column("mac")} IS NOT NULL AND ${keyIdOfMac(column("mac"))} <> ${keyId}`]),
      ];
      const wanted = of.isNested ? Sql.sql`true` : Sql.join(isOther, " OR ");
      return await prisma.$queryRaw`SELECT ${of.columns}, ${alias}.${id}::text AS "rowId" FROM ${Sql.raw(name)} ${alias} ${join}
        WHERE ${beyond(of, alias, after)} AND ${alias}.${id} <= ${last}::${idType} AND (${wanted}) ORDER BY ${alias}.${id}`;
    },

    /**
     * Changes rows that still have the bytes that were read, and nothing else of them. A row that has changed, or that somebody has locked, is
     * left. Returns how many were changed.
     */
    async replace(name: SealedTableName, changes: readonly RowChange[]): Promise<number> {
      const of = sealedTables[name] as SealedTable<never>;
      let count = 0;
      for (let at = 0; at < changes.length; at += changedAtOnce) {
        count += await prisma.$executeRaw(replacing(of, changes.slice(at, at + changedAtOnce)));
      }
      return count;
    },

    /** How much of a table is under which key, read in parts. */
    async count(name: SealedTableName): Promise<KeyCount[]> {
      const of = sealedTables[name] as SealedTable<never>;
      const counted = new Map<string | null, KeyCount>();
      let after: string | null = null;
      for (;;) {
        const page = await this.page(name, after, countedAtOnce);
        if (page === null) return [...counted.values()];
        const kinds = [
          ...of.seals.map(({ column }) => ({ column, isSeal: true })),
          ...(of.mac === null ? [] : [{ column: "mac", isSeal: false }]),
        ];
        const each = kinds.map(({ column, isSeal }) => {
          const value = Sql.sql`x.${Sql.raw(column)}`;
          const keyId = isSeal ? keyIdOfSeal(value) : keyIdOfMac(value);
          return Sql.sql`SELECT ${isSeal} AS "isSeal", ${keyId} AS "keyId" FROM ${Sql.raw(name)} x
            WHERE ${value} IS NOT NULL AND ${beyond(of, Sql.raw("x"), after)} AND x.${of.id} <= ${page.last}::${of.idType}`;
        });
        const rows = await prisma.$queryRaw<{ isSeal: boolean; keyId: string | null; count: number }[]>`
          SELECT e."isSeal", e."keyId", count(*)::int AS count FROM (${Sql.join(each, " UNION ALL ")}) e GROUP BY 1, 2`;
        for (const { isSeal, keyId, count } of rows) {
          const known = counted.get(keyId) ?? { keyId, seals: 0, macs: 0 };
          known[isSeal ? "seals" : "macs"] += count;
          counted.set(keyId, known);
        }
        after = page.last;
      }
    },
  };
}

/** The key id in a sealed record (src/vault/keyring.ts); null: it is none. Bytes that are no text are shown as octal numbers. */
const keyIdOfSeal = (value: Sql.Sql) => Sql.sql`(CASE WHEN length(${value}) > 2 AND get_byte(${value}, 0) = 2
  THEN encode(substr(${value}, 3, get_byte(${value}, 1)), 'escape') END)`;

const keyIdOfMac = (value: Sql.Sql) => Sql.sql`regexp_replace(${value}, '[.][^.]*$', '')`;

function replacing({ name, id, idType, seals, mac }: SealedTable<never>, changes: readonly RowChange[]): Sql.Sql {
  const columns = [
    ...seals.map(({ column }) => ({ column, type: Sql.raw("bytea") })),
    ...(mac === null ? [] : [{ column: "mac", type: Sql.raw("text") }]),
  ];
  const names = columns.flatMap((_, at) => [`before${at}`, `after${at}`]);
  const lines = changes.map((change) => {
    const pairs = [...change.seals, ...(change.mac === null ? [] : [change.mac])];
    const values = pairs.flatMap(({ before, after }, at) => {
      const type = columns[at]?.type ?? Sql.empty;
      return [Sql.sql`${before}::${type}`, Sql.sql`${after}::${type}`];
    });
    return Sql.sql`(${change.id}::${idType}, ${Sql.join(values)})`;
  });
  const sets = columns.map(({ column }, at) => Sql.raw(`${column} = v.after${at}`));
  const same = columns.map(({ column }, at) => Sql.raw(`t.${column} IS NOT DISTINCT FROM v.before${at}`));
  const target = Sql.raw(name);
  return Sql.sql`WITH v (id, ${Sql.raw(names.join(", "))}) AS (VALUES ${Sql.join(lines)}),
    free AS (SELECT x.${id} AS id FROM ${target} x WHERE x.${id} IN (SELECT v.id FROM v) FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE ${target} t SET ${Sql.join(sets)} FROM v JOIN free ON free.id = v.id
    WHERE t.${id} = v.id AND ${Sql.join(same, " AND ")}`;
}
