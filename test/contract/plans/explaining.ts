import { readFileSync, readdirSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { Prisma as Sql } from "../../../src/generated/prisma/client.ts";
import type { Database, Prisma } from "../../../src/store/database.ts";
import { hangMs } from "../../support/patience.ts";

const source = fileURLToPath(new URL("../../../src/", import.meta.url));

/** A node of a plan as `EXPLAIN (ANALYZE, FORMAT JSON)` tells it. */
type Node = {
  "Node Type": string;
  "Relation Name"?: string;
  "Index Cond"?: string;
  "Recheck Cond"?: string;
  "TID Cond"?: string;
  "Actual Rows": number;
  "Actual Loops": number;
  "Rows Removed by Filter"?: number;
  "Rows Removed by Index Recheck"?: number;
  Plans?: Node[];
};

/** One statement as it was sent: where it stands in src/, what it costs, and its plan for people. */
export type Explained = {
  /** `store/due.ts:26`: where `$queryRaw` or `$executeRaw` is called. */
  site: string;
  /** Rows of growing tables that were read, used or not, by the statement itself. */
  read: number;
  /** The largest number of rows of a growing table that a scan of the whole table has looked at, in triggers and functions too. */
  scanned: number;
  /** Scans of whole tables that a plan names, though they may not have been carried out this time. */
  scans: string[];
  plan: string;
};

/**
 * The database, with each raw statement explained, carried out and rolled back before it is sent. What is sent afterwards finds everything as it was.
 * `growing`: the tables whose rows are counted.
 */
export function explaining(
  database: Database,
  growing: ReadonlySet<string>,
  note: (found: Explained) => void,
): Database {
  const around = (prisma: Prisma): Prisma => explainingClient(prisma, growing, note);
  const directly =
    (direct: Database["direct"]): Database["direct"] =>
    async (statement, values) => {
      const site = siteOf(new Error().stack ?? "");
      const promise = direct<never>(statement, values);
      const each = { text: statement.text, values, site, promise };
      note(
        await database.prisma.$transaction(
          async (session) => await explain(session as unknown as Session, each, growing),
          patient,
        ),
      );
      return await promise;
    };
  return {
    ...database,
    prisma: around(database.prisma),
    commits: around(database.commits),
    audit: around(database.audit),
    direct: directly(database.direct),
    directCommits: directly(database.directCommits),
  };
}

/** A transaction that is being explained takes longer, and a slow machine must not end it. */
const patient = { maxWait: hangMs, timeout: hangMs };

type Session = Pick<Prisma, "$queryRawUnsafe" | "$executeRawUnsafe">;
type Sent = { text: string; values: readonly unknown[]; site: string; promise: PromiseLike<unknown> };

function explainingClient(prisma: Prisma, growing: ReadonlySet<string>, note: (found: Explained) => void): Prisma {
  const sent = new WeakMap<object, Sent>();
  /** Statements in an array are sent in one transaction: each is explained before it begins. */
  const transaction = async (given: unknown, options: unknown): Promise<unknown> => {
    if (typeof given === "function") {
      const work = given as (session: Prisma) => Promise<unknown>;
      const inside = async (session: Prisma) =>
        await work(watching(session, async (each) => note(await explain(session, each, growing))));
      return await prisma.$transaction(inside as never, { ...(options as object), ...patient });
    }
    const all = (given as object[]).map((each) => sent.get(each) as Sent);
    for (const each of all) await alone(each);
    return await prisma.$transaction(all.map(({ promise }) => promise) as never, options as never);
  };
  const alone = async (each: Sent) => {
    note(
      await prisma.$transaction(
        async (session) => await explain(session as unknown as Session, each, growing),
        patient,
      ),
    );
  };
  const watching = (client: Prisma, before: (each: Sent) => Promise<void>): Prisma => {
    const raw =
      (name: "$queryRaw" | "$executeRaw") =>
      (first: TemplateStringsArray | Sql.Sql, ...values: unknown[]) => {
        const sql = Array.isArray(first) ? Sql.sql(first as TemplateStringsArray, ...values) : (first as Sql.Sql);
        const promise = client[name](sql) as PromiseLike<unknown>;
        const each = { text: sql.text, values: sql.values, site: siteOf(new Error().stack ?? ""), promise };
        const start = async () => {
          await before(each);
          return await promise;
        };
        // Prisma's promises begin when somebody waits for them, and so does this one.
        const watched = new Proxy(new Promise<unknown>(() => {}), {
          get: (_never, key: "then" | "catch" | "finally") => {
            const started = start();
            return started[key].bind(started);
          },
        });
        sent.set(watched, each);
        return watched;
      };
    return new Proxy(client, {
      get: (target, key) => {
        if (key === "$queryRaw" || key === "$executeRaw") return raw(key);
        if (key === "$transaction") return transaction;
        return Reflect.get(target, key) as unknown;
      },
    });
  };
  return watching(prisma, alone);
}

/** Within a transaction that is open. */
async function explain(
  session: Session,
  { text, values, site }: Sent,
  growing: ReadonlySet<string>,
): Promise<Explained> {
  await session.$executeRawUnsafe("SAVEPOINT before_plan");
  // Scans of small tables are cheap. In a large one they are taken where there is no other way, and that is what is looked for.
  await session.$executeRawUnsafe("SET LOCAL enable_seqscan = off");
  const before = await scannedRows(session);
  try {
    const [answer] = await session.$queryRawUnsafe<Record<string, [{ Plan: Node }]>[]>(
      `EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) ${text}`,
      ...values,
    );
    const after = await scannedRows(session);
    const [{ Plan: root }] = Object.values(answer ?? {})[0] as [{ Plan: Node }];
    const nodes = flat(root).filter((node) => growing.has(node["Relation Name"] ?? ""));
    const scanned = [...after].map(([table, rows]) => (growing.has(table) ? rows - (before.get(table) ?? 0) : 0));
    return {
      site,
      read: nodes.reduce((sum, node) => sum + rowsRead(node), 0),
      scanned: Math.max(0, ...scanned),
      scans: nodes.filter((node) => isWhole(node)).map((node) => node["Relation Name"] ?? ""),
      plan: JSON.stringify(root, null, 1).replace(/^\s*[{}\],[]*\n/gm, ""),
    };
  } finally {
    await session.$executeRawUnsafe("ROLLBACK TO before_plan");
  }
}

/** A partition without rows is scanned whatever else there is. */
const isWhole = (node: Node) =>
  node["Node Type"] === "Seq Scan" && (rowsRead(node) > 0 || !node["Relation Name"]?.startsWith("entries_"));

const flat = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(flat)];

/** An UPDATE is a node of its table too, and has read nothing by itself. */
function rowsRead(node: Node): number {
  if (!node["Node Type"].endsWith("Scan")) return 0;
  const passedOver = (node["Rows Removed by Filter"] ?? 0) + (node["Rows Removed by Index Recheck"] ?? 0);
  return (node["Actual Rows"] + passedOver) * node["Actual Loops"];
}

/** By table: rows that whole scans have looked at in this transaction. Triggers of foreign keys and functions count too. */
async function scannedRows(session: Session): Promise<Map<string, number>> {
  const rows = await session.$queryRawUnsafe<{ table: string; rows: number }[]>(
    "SELECT relname::text AS table, seq_tup_read::float8 AS rows FROM pg_stat_xact_user_tables",
  );
  return new Map(rows.map(({ table, rows: read }) => [table, read]));
}

const sites = findSites();

/** Where `$queryRaw`, `$executeRaw` and `direct` are called in src/: the place as `Explained` names it, and the line's text behind its file. */
export function allSites(): { site: string; text: string }[] {
  return [...sites].flatMap(([file, lines]) =>
    [...lines].map(([line, text]) => ({ site: `${file}:${line}`, text: `${file}: ${text.trim()}` })),
  );
}

function findSites(): Map<string, Map<number, string>> {
  const found = new Map<string, Map<number, string>>();
  for (const entry of readdirSync(source, { recursive: true, encoding: "utf8" })) {
    if (!entry.endsWith(".ts") || entry.startsWith("generated")) continue;
    const lines = readFileSync(`${source}${entry}`, "utf8").split("\n");
    const calls = lines.flatMap((line, at) =>
      /\$(?:query|execute)Raw\b|\bdirect(?:Commits)?</.test(line) ? [[at + 1, line] as const] : [],
    );
    if (calls.length > 0) found.set(entry, new Map(calls));
  }
  return found;
}

/** The place of the call that this stack is from. A call over several lines counts as its first one. */
function siteOf(stack: string): string {
  for (const line of stack.split("\n")) {
    const [, path, at] = /([^ (]*\/src\/[^ ():]+\.ts):(\d+)/.exec(line) ?? [];
    if (path === undefined) continue;
    const file = relative(source, path.replace(/^file:\/\//, ""));
    const start = [...(sites.get(file)?.keys() ?? [])].findLast((each) => each <= Number(at));
    if (start !== undefined) return `${file}:${start}`;
  }
  return "nowhere";
}
