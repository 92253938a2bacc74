import { Prisma as Sql } from "../generated/prisma/client.ts";
import { binds } from "../labels.ts";
import { auditTimes } from "../time.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database, Prisma } from "./database.ts";
import type { MigrationSession } from "./migrate.ts";
import { type Bounds, carriesAll } from "./row-sql.ts";

/** A row of audit.entries without what chains it. `detail` is JSON text, kept as it is; times have milliseconds. */
export type EntryContent = {
  at: Date;
  actorKind: string;
  actorId: string | null;
  actorName: string | null;
  action: string;
  targetKind: string | null;
  targetName: string | null;
  address: string | null;
  result: string;
  detail: string | null;
};

/** A row with its place in a chain. */
export type ChainedEntry = EntryContent & { process: string; seq: number; hash: Uint8Array; mac: string };

/** A place in a chain, with what proves it. */
export type ChainLink = Pick<ChainedEntry, "process" | "seq" | "at" | "hash" | "mac">;

/** What counts have in common. `action`: tokens.read or keys.refused. `minute`: when it began. */
type ReadKind = {
  minute: Date;
  action: string;
  actorKind: string;
  actorId: string | null;
  actorName: string | null;
  result: string;
};

/** Counts by connection, in columns, since there may be a hundred thousand. Times are milliseconds since the minute began. */
export type ReadCounts = ReadKind & {
  connections: (string | null)[];
  counts: number[];
  firstMs: number[];
  lastMs: number[];
};

/** The last row that was pruned of a chain, with the hash of the row before it. */
export type Anchor = ChainedEntry & { previousHash: Uint8Array };

/** What a page of entries is looked for by. Times: since ≤ at < until. */
export type EntryQuery = {
  since: Date | null;
  until: Date | null;
  actor: string | null;
  connection: string | null;
  action: string | null;
  /** Only entries about connections within these bounds; with labels, only about connections that carry them now, since they were created. */
  within: Bounds | null;
  /** Newest first unless `oldestFirst`. The page begins behind this row. */
  after: { at: Date; process: string; seq: number } | null;
  oldestFirst: boolean;
  limit: number;
};

/**
 * Whoever owns the database can give an entry a time that no broker writes, such as `infinity`. It is read as the nearest one of these, so that
 * the entry has a place in a list; `verify` names it as changed.
 */
const firstTime = "'1970-01-01 00:00Z'::timestamptz";
const lastTime = "'5000-01-01 00:00Z'::timestamptz";

const writable = (time: string): string => `LEAST(GREATEST(${time}, ${firstTime}), ${lastTime})`;

const linkColumns: Columns<ChainLink> = {
  process: "process::text",
  seq: "seq::float8",
  at: writable("at"),
  hash: "hash",
  mac: "mac",
};

const entryColumns: Columns<ChainedEntry> = {
  ...linkColumns,
  actorKind: "actor_kind",
  actorId: "actor_id",
  actorName: "actor_name",
  action: "action",
  targetKind: "target_kind",
  targetName: "target_name",
  address: "address",
  result: "result",
  detail: "detail::text",
};

const anchorColumns: Columns<Anchor> = { ...entryColumns, previousHash: "previous_hash" };

const kindColumns: Columns<ReadKind> = {
  minute: "minute",
  action: "action",
  actorKind: "actor_kind",
  actorId: "actor_id",
  actorName: "actor_name",
  result: "result",
};

type CountsBefore = { own: Date; others: Date };

/** Counts of minutes that are over. */
function areOver(process: string, { own, others }: CountsBefore): Sql.Sql {
  return Sql.sql`((process = ${process}::uuid AND minute < ${own}::timestamptz) OR minute < ${others}::timestamptz)`;
}

/** What the writer of a process does in one transaction. */
export type AuditTransaction = {
  has(link: Pick<ChainLink, "process" | "seq" | "hash">): Promise<boolean>;
  insert(rows: readonly ChainedEntry[]): Promise<void>;
  /** `flush`: the number of these counts. Those of the same number are there already. */
  insertCounts(flush: { process: string; number: number }, counts: readonly ReadCounts[]): Promise<void>;
  /**
   * Takes counts of minutes out of the table, added up: this process's that began before `own`, and those of all others that began before
   * `others`. Only a share of them, by connection: counts that are added up have the same connection, so they are in the same share.
   */
  takeCounts(process: string, before: CountsBefore, share: { number: number; of: number }): Promise<ReadCounts[]>;
  /** The chains that were written to last: the newest row of each, at most `limit`. */
  newest(limit: number): Promise<ChainLink[]>;
};

export type AuditStore = ReturnType<typeof createAuditStore>;

/** Statements on the schema `audit`. */
export function createAuditStore({ audit: prisma }: Pick<Database, "audit">) {
  return {
    /**
     * Runs `work` in one transaction of this process's writer. Whoever has locked the tables costs it a connection for a second. A transaction of
     * the same process that the server has not ended yet is waited for, so that what it has written is seen.
     */
    async write<Result>(process: string, work: (transaction: AuditTransaction) => Promise<Result>): Promise<Result> {
      return await prisma.$transaction(async (session) => {
        const own = session as unknown as Prisma;
        await outwait(own, process);
        return await work(transactionOf(own));
      }, transactionLimits);
    },

    async page({
      since,
      until,
      actor,
      connection,
      action,
      within,
      after,
      oldestFirst,
      limit,
    }: EntryQuery): Promise<ChainedEntry[]> {
      const conditions = [
        since && Sql.sql`at >= ${since}::timestamptz`,
        until && Sql.sql`at < ${until}::timestamptz`,
        actor !== null && Sql.sql`COALESCE(actor_id, actor_name) = ${actor}`,
        connection !== null && Sql.sql`target_name = ${connection} AND target_kind = 'connection'`,
        action !== null && Sql.sql`action = ${action}`,
        within && isWithin(within),
        // Rows beyond have no place that a next page could begin behind, so they are on a first page, or nowhere.
        after && Sql.raw(oldestFirst ? `at < ${lastTime}` : `at >= ${firstTime}`),
        // The first condition finds the place in an index, whose order goes no further than `at`.
        after &&
          (oldestFirst
            ? Sql.sql`at >= ${after.at}::timestamptz AND (at, process, seq) > (${after.at}::timestamptz, ${after.process}::uuid, ${after.seq}::bigint)`
            : Sql.sql`at <= ${after.at}::timestamptz AND (at, process, seq) < (${after.at}::timestamptz, ${after.process}::uuid, ${after.seq}::bigint)`),
      ].filter((condition) => condition instanceof Sql.Sql);
      const where = conditions.length === 0 ? Sql.empty : Sql.sql`WHERE ${Sql.join(conditions, " AND ")}`;
      // By the columns, not by what they are selected as: an index has their order.
      const order = Sql.raw(oldestFirst ? "e.at, e.process, e.seq" : "e.at DESC, e.process DESC, e.seq DESC");
      return await prisma.$queryRaw<ChainedEntry[]>`
        SELECT ${selectList(entryColumns)} FROM audit.entries e ${where} ORDER BY ${order} LIMIT ${limit}::int`;
    },

    /** How many counts `takeCounts` would take, all shares together. */
    async openCounts(process: string, before: CountsBefore): Promise<number> {
      const [row] = await prisma.$queryRaw<{ open: number }[]>`
        SELECT count(*)::float8 AS open FROM audit.open_reads WHERE ${areOver(process, before)}`;
      return row?.open ?? 0;
    },

    /** The ids of all chains that have rows. */
    async chains(): Promise<string[]> {
      const rows = await prisma.$queryRaw<{ process: string }[]>`
        WITH RECURSIVE ${chains} SELECT process::text AS process FROM chains WHERE process IS NOT NULL`;
      return rows.map(({ process }) => process);
    },

    /** Rows of a chain by number, from this one on; null: from the first on, whatever its number is. A number may be there twice. */
    async chain(process: string, { from, limit }: { from: number | null; limit: number }): Promise<ChainedEntry[]> {
      const beginning = from === null ? Sql.empty : Sql.sql`AND seq >= ${from}::bigint`;
      return await prisma.$queryRaw<ChainedEntry[]>`
        SELECT ${selectList(entryColumns)} FROM audit.entries e WHERE process = ${process}::uuid ${beginning}
        ORDER BY e.seq, e.at, e.mac LIMIT ${limit}::int`;
    },

    /** What says something about other chains. */
    async witnesses(): Promise<ChainedEntry[]> {
      return await prisma.$queryRaw<ChainedEntry[]>`
        SELECT ${selectList(entryColumns)} FROM audit.entries WHERE action IN ('system.start', 'system.checkpoint')`;
    },

    async anchors(): Promise<Anchor[]> {
      return await prisma.$queryRaw<Anchor[]>`SELECT ${selectList(anchorColumns)} FROM audit.anchors`;
    },

    /**
     * The newest number of a chain, pruned or not; 0: there is none. The server may still be committing for a process that was killed a moment
     * ago: that is waited for.
     */
    async newestSeq(process: string): Promise<number> {
      return await prisma.$transaction(async (session) => {
        const own = session as unknown as Prisma;
        await outwait(own, process);
        const [row] = await own.$queryRaw<{ seq: number }[]>`
          SELECT GREATEST((SELECT max(seq) FROM audit.entries WHERE process = ${process}::uuid),
            (SELECT max(seq) FROM audit.anchors WHERE process = ${process}::uuid), 0)::float8 AS seq`;
        return row?.seq ?? 0;
      }, transactionLimits);
    },

    /** Replicas that were seen within the time. */
    async presentReplicas(withinSeconds: number): Promise<string[]> {
      const rows = await prisma.$queryRaw<{ id: string }[]>`
        SELECT id::text AS id FROM public.replicas WHERE seen_at > clock_timestamp() - make_interval(secs => ${withinSeconds}::float8)`;
      return rows.map(({ id }) => id);
    },

    /** Whether the database refuses this role to change and to remove entries. */
    async isAppendOnly(): Promise<boolean> {
      const [row] = await prisma.$queryRaw<{ mayChange: boolean }[]>`
        SELECT bool_or(has_table_privilege(c.oid, 'UPDATE') OR has_table_privilege(c.oid, 'DELETE') OR has_table_privilege(c.oid, 'TRUNCATE')
          OR pg_has_role(c.relowner, 'USAGE')) AS "mayChange"
        FROM pg_class c WHERE c.relnamespace = 'audit'::regnamespace AND c.relname LIKE 'entries%' AND c.relkind IN ('r', 'p')`;
      return row?.mayChange === false;
    },

    /** Makes partitions and removes a batch of old rows. Returns how many. */
    async maintain(): Promise<number> {
      const [row] = await prisma.$queryRaw<{ removed: number }[]>`SELECT audit.maintain(${pruneBatch}::int) AS removed`;
      return row?.removed ?? 0;
    },

    /** Removes a batch of the rows before then. Returns how many; null: the time is within the retention. */
    async prune(before: Date): Promise<number | null> {
      const [row] = await prisma.$queryRaw<{ removed: number | null }[]>`
        SELECT CASE WHEN ${before}::timestamptz <= now() - make_interval(days => (SELECT max(retention_days) FROM audit.settings))
          THEN audit.prune(${before}::timestamptz, ${pruneBatch}::int) END AS removed`;
      return row?.removed ?? null;
    },
  };
}

const transactionLimits = { maxWait: auditTimes.statementMs, timeout: auditTimes.transactionMs };

/** Waits until no other transaction of this process's writer is open. Statements after it see what that one has written. */
async function outwait(session: Prisma, process: string): Promise<void> {
  await session.$queryRaw`
    SELECT set_config('lock_timeout', ${String(auditTimes.lockMs)}, true) AS lock,
      set_config('statement_timeout', ${String(auditTimes.statementMs)}, true) AS statement,
      pg_advisory_xact_lock(hashtextextended(${process}, 0))::text AS held`;
}

/** Labels are the connection's: an earlier connection of the same name may have been somebody else's. */
function isWithin({ patterns, labels }: Bounds): Sql.Sql {
  const isNamed = Sql.sql`target_kind = 'connection' AND target_name LIKE ANY(${[...patterns]}::text[])`;
  if (!binds(labels)) return isNamed;
  return Sql.sql`${isNamed} AND EXISTS (SELECT 1 FROM public.connections c
    WHERE c.name = e.target_name AND c.created_at <= e.at AND ${carriesAll(Sql.sql`c.labels`, labels)})`;
}

/** As many rows are removed in one transaction, whose locks last a moment. */
const pruneBatch = 10_000;

/** All chains, each by one look into the index. */
const chains = Sql.sql`chains AS (
  (SELECT process FROM audit.entries ORDER BY process LIMIT 1)
  UNION ALL
  SELECT (SELECT e.process FROM audit.entries e WHERE e.process > c.process ORDER BY e.process LIMIT 1)
  FROM chains c WHERE c.process IS NOT NULL)`;

function transactionOf(session: Prisma): AuditTransaction {
  return {
    async has({ process, seq, hash }) {
      const rows = await session.$queryRaw<object[]>`
        SELECT 1 AS found FROM audit.entries
        WHERE process = ${process}::uuid AND seq = ${seq}::bigint AND hash = decode(${hex(hash)}, 'hex')`;
      return rows.length > 0;
    },
    async insert(rows) {
      const json = JSON.stringify(rows.map((row) => ({ ...row, hash: hex(row.hash) })));
      await session.$executeRaw`
        INSERT INTO audit.entries (at, seq, process, actor_kind, actor_id, actor_name, action, target_kind, target_name, address, result,
          detail, hash, mac)
        SELECT at, seq, process, "actorKind", "actorId", "actorName", action, "targetKind", "targetName", address, result,
          detail::json, decode(hash, 'hex'), mac
        FROM json_to_recordset(${json}::json) AS given(at timestamptz, seq bigint, process uuid, "actorKind" text, "actorId" text,
          "actorName" text, action text, "targetKind" text, "targetName" text, address text, result text, detail text, hash text, mac text)`;
    },
    async insertCounts({ process, number }, counts) {
      await session.$executeRaw`
        INSERT INTO audit.open_reads (flush, minute, process, action, actor_kind, actor_id, actor_name, connection, result, count, first, last)
        SELECT ${number}::bigint, minute, ${process}::uuid, action, "actorKind", "actorId", "actorName", each.connection, result, each.count::bigint,
          minute + make_interval(secs => each.first::float8 / 1000), minute + make_interval(secs => each.last::float8 / 1000)
        FROM json_to_recordset(${JSON.stringify(counts)}::json) AS given(minute timestamptz, action text, "actorKind" text, "actorId" text,
          "actorName" text, result text, connections json, counts json, "firstMs" json, "lastMs" json),
          ROWS FROM (json_array_elements_text(connections), json_array_elements_text(counts), json_array_elements_text("firstMs"),
            json_array_elements_text("lastMs")) AS each(connection, count, first, last)
        WHERE NOT EXISTS (SELECT FROM audit.open_reads o WHERE o.process = ${process}::uuid AND o.flush = ${number}::bigint)`;
    },
    async takeCounts(process, before, { number, of }) {
      // As one text for each kind: a hundred thousand rows would be a million objects on the way here.
      const kinds = await session.$queryRaw<(ReadKind & { columns: string })[]>`
        WITH taken AS (DELETE FROM audit.open_reads
          WHERE ${areOver(process, before)} AND abs(hashtext(COALESCE(connection, '')) % ${of}::int) = ${number}::int RETURNING *),
        known AS (SELECT *, ${Sql.raw(writable("minute"))} AS began FROM taken),
        sums AS (SELECT began AS minute, action, actor_kind, actor_id, actor_name, result, connection, sum(count)::float8 AS count,
            ${milliseconds("min(first)")} AS first_ms, ${milliseconds("max(last)")} AS last_ms
          FROM known GROUP BY began, action, actor_kind, actor_id, actor_name, result, connection ORDER BY min(first))
        SELECT ${selectList(kindColumns)}, json_build_object('connections', json_agg(connection), 'counts', json_agg(count),
          'firstMs', json_agg(first_ms), 'lastMs', json_agg(last_ms))::text AS columns
        FROM sums GROUP BY minute, action, actor_kind, actor_id, actor_name, result ORDER BY minute, min(first_ms)`;
      return kinds.map(({ columns, ...kind }) =>
        Object.assign(kind, JSON.parse(columns) as Omit<ReadCounts, keyof ReadKind>),
      );
    },
    newest: async (limit) =>
      await session.$queryRaw<ChainLink[]>`
        WITH RECURSIVE ${chains}
        SELECT ${selectList(linkColumns)} FROM (SELECT newest.* FROM chains c CROSS JOIN LATERAL
          (SELECT e.process, seq, at, hash, mac FROM audit.entries e WHERE e.process = c.process ORDER BY seq DESC LIMIT 1) newest) found
        ORDER BY at DESC LIMIT ${limit}::int`,
  };
}

/** Since the minute began. */
const milliseconds = (time: string) => Sql.raw(`(extract(epoch FROM ${writable(time)} - began) * 1000)::float8`);

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Written at the start by the role that migrates: how long entries cannot be removed. */
export async function setRetention(session: MigrationSession, days: number): Promise<void> {
  await session.query("UPDATE audit.settings SET retention_days = $1::int WHERE retention_days <> $1::int", [days]);
}
