import { createReadStream } from "node:fs";
import type { Command } from "commander";
import type { Query } from "../api-client.ts";
import { CliError, errorCode, UsageError } from "../errors.ts";
import { linesIn } from "../lines.ts";
import { example, wholeNumber } from "../options.ts";
import type { Column } from "../output.ts";
import { isResource, parseResource, type Resource, resourcesIn, textOf } from "../resource.ts";
import { handle, type Cli, type Session } from "../session.ts";

const columns: readonly Column[] = [
  ["AT", "at"],
  ["WHO", "who"],
  ["ACTION", "action"],
  ["TARGET", "target"],
  ["RESULT", "result"],
  ["FROM", "address"],
  ["DETAIL", "detail"],
];

const faultColumns: readonly Column[] = [
  ["FAULT", "kind"],
  ["PROCESS", "process"],
  ["FROM", "from"],
  ["TO", "to"],
];

const endColumns: readonly Column[] = [
  ["OPEN END OF", "process"],
  ["LAST", "seq"],
  ["AT", "at"],
];

/** As many as one question of `POST /audit/verify` may name: of so many processes. */
const headsAtOnce = 5000;
const defaultLimit = 50;
const pageSize = 200;

type Filters = { since?: string; until?: string; actor?: string; connection?: string; type?: string };

/** `freshet audit list|export|verify` */
export function addAuditCommands(program: Command, cli: Cli): void {
  const audit = program
    .command("audit")
    .description("who did what: the entries, and whether somebody has changed them");
  example(audit, "audit list --connection acme-orders");
  const list = addFilters(audit.command("list").description("entries, newest first"))
    .option("--limit <count>", `how many (default: ${defaultLimit})`, wholeNumber)
    .action(handle(cli, listEntries));
  example(list, "audit list --actor admin --since 2027-01-31T00:00:00Z", "audit list --type keys.create --limit 5");
  const exported = addFilters(
    audit.command("export").description("all entries, oldest first, as JSON: one a line"),
  ).action(handle(cli, exportEntries));
  example(exported, "audit export --until 2027-01-01T00:00:00Z > audit-2026.jsonl");
  const verify = audit
    .command("verify")
    .description("whether entries were changed, removed or added; exit code 1 if so")
    .option("--heads <file>", "the broker's log, which shows what is missing at the end; - for stdin")
    .action(handle(cli, verifyEntries));
  example(verify, "audit verify", "audit verify --heads broker.log");
}

function addFilters(command: Command): Command {
  return command
    .option("--since <time>", "entries of this time and later, as 2027-01-31T00:00:00Z")
    .option("--until <time>", "entries before this time")
    .option("--actor <id>", "what this one did: the id of a key or of a consent link")
    .option("--connection <name>", "what was done to this connection, deleted ones too")
    .option("--type <action>", "one action, such as connections.delete");
}

async function listEntries(
  { api, output }: Session,
  { options: { limit = defaultLimit, ...filters } }: { options: Filters & { limit?: number } },
) {
  if (limit === 0) throw new UsageError("--limit must be 1 or more");
  const broker = api();
  const items: Resource[] = [];
  let cursor: string | undefined;
  do {
    const size = Math.min(pageSize, limit - items.length);
    const page = await broker.get("/audit", { ...filters, limit: size, cursor });
    items.push(...resourcesIn(page["items"]));
    cursor = textOf(page["next_cursor"]) || undefined;
  } while (cursor !== undefined && items.length < limit);
  output.list({ items: output.json ? items : items.map(asLine), next_cursor: cursor ?? null }, columns);
}

function asLine(entry: Resource): Resource {
  const { actor, target } = entry;
  return { ...entry, who: describe(actor, "id"), target: describe(target, "name") };
}

/** `key orders (4kZt0Qm2xW9a)`; `connection acme-orders`. */
function describe(value: unknown, main: "id" | "name"): string {
  if (!isResource(value)) return "";
  const { kind, id, name } = value;
  if (main === "name") return [textOf(kind), textOf(name)].filter(Boolean).join(" ");
  return [textOf(kind), textOf(name), textOf(id) && `(${textOf(id)})`].filter(Boolean).join(" ");
}

async function exportEntries({ api, terminal }: Session, { options }: { options: Filters }) {
  const query: Query = options;
  for await (const line of api().lines("/audit/export", { query })) await terminal.outAll(`${line}\n`);
}

type Report = {
  ok: boolean;
  chains: number;
  rows: number;
  faults: Resource[];
  openEnds: Resource[];
  appendOnly: boolean;
};

async function verifyEntries(session: Session, { options }: { options: { heads?: string } }) {
  const { output } = session;
  const heads = options.heads === undefined ? [] : await readHeads(session, options.heads);
  if (options.heads !== undefined && heads.length === 0) {
    throw new UsageError(`${options.heads} has no line with audit_head: is it the broker's log?`);
  }
  const reports: Report[] = [];
  for (let at = 0; at === 0 || at < heads.length; at += headsAtOnce) {
    reports.push(await verifyPart(session, heads.slice(at, at + headsAtOnce)));
  }
  const report = joined(reports);
  if (output.json) output.show(asAnswer(report, heads));
  else tell(session, report, heads.length);
  if (report.ok) return;
  throw new CliError(
    `The audit is not whole: ${report.faults.length} ${report.faults.length === 1 ? "fault" : "faults"}`,
    "audit_faulty",
  );
}

/** The last line of the answer is the report; those before it say how far it is. */
async function verifyPart({ api, output }: Session, heads: readonly string[]): Promise<Report> {
  let told = 0;
  const request = heads.length === 0 ? {} : { method: "POST", body: { heads } };
  for await (const line of api().lines("/audit/verify", request)) {
    const { rows, report, problem } = parseResource(line) ?? {};
    if (isResource(problem)) throw new CliError(textOf(problem["detail"]), textOf(problem["code"]));
    if (isResource(report)) return readReport(report);
    if (typeof rows !== "number" || rows < told * 2) continue;
    told = rows;
    output.note(`${rows} entries so far …`);
  }
  throw new CliError("The broker did not say what it has found", "incomplete_answer");
}

function readReport(report: Resource): Report {
  return {
    ok: report["ok"] === true,
    chains: Number(report["chains"]),
    rows: Number(report["rows"]),
    faults: resourcesIn(report["faults"]),
    openEnds: resourcesIn(report["open_ends"]),
    appendOnly: report["append_only"] === true,
  };
}

/** Each part has verified everything, and some of the heads. */
function joined(reports: readonly Report[]): Report {
  const last = reports.at(-1);
  if (last === undefined) throw new TypeError("there is at least one part");
  const faults = new Map(reports.flatMap((each) => each.faults).map((fault) => [JSON.stringify(fault), fault]));
  return { ...last, ok: reports.every(({ ok }) => ok), faults: [...faults.values()] };
}

function asAnswer({ openEnds, appendOnly, ...report }: Report, heads: readonly string[]): Resource {
  return { ...report, open_ends: openEnds, append_only: appendOnly, heads: heads.length };
}

/** What is wrong comes first. */
function tell({ output, terminal }: Session, report: Report, heads: number): void {
  const { faults, openEnds } = report;
  if (faults.length > 0) output.list({ items: faults }, faultColumns);
  if (openEnds.length > 0) {
    output.list({ items: openEnds }, endColumns);
    if (heads === 0) output.note("Whether something is missing after an open end is known with --heads FILE alone.");
  }
  if (!report.appendOnly) {
    output.note(
      "freshet: warning: the broker's own role can change entries here: only the proofs protect them (DATABASE_MIGRATION_URL)",
    );
  }
  const compared = heads === 0 ? "" : `; newest entries of the log: ${heads}`;
  const verdict = report.ok ? "Nothing is wrong." : "Something is wrong.";
  terminal.out(`${verdict} Entries: ${report.rows}; processes: ${report.chains}${compared}.\n`);
}

/** The newest head of each process in a log, as `process:seq:mac`. @throws UsageError when the file cannot be read */
async function readHeads({ terminal }: Session, file: string): Promise<string[]> {
  const newest = new Map<string, Head>();
  const take = (line: string) => {
    const head = headIn(line);
    if (head === null || !isOfBroker(head)) return;
    if (head.seq > (newest.get(head.process)?.seq ?? 0)) newest.set(head.process, head);
  };
  if (file === "-") for (const line of (await terminal.readStdin()).split("\n")) take(line);
  else for await (const line of linesOf(file)) take(line);
  return [...newest.values()].map(({ process, seq, mac }) => `${process}:${seq}:${mac}`);
}

async function* linesOf(file: string): AsyncGenerator<string> {
  try {
    yield* linesIn(createReadStream(file, "utf8"));
  } catch (error) {
    throw new UsageError(`${file} cannot be read (${errorCode(error)})`);
  }
}

type Head = { process: string; seq: number; mac: string };

/** Anybody may have made a log write something like a head. The broker refuses a question with one that it cannot have written. */
function isOfBroker({ process, seq, mac }: Head): boolean {
  const isId = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(process);
  return isId && Number.isInteger(seq) && seq < 1e15 && /^[\w.-]{1,128}$/.test(mac);
}

const marker = "audit_head";

/**
 * The head in a line of a log: the broker's own JSON, the same behind a prefix (`docker compose logs`), or as a text inside of the JSON of whoever
 * collects logs. Null: there is none.
 */
export function headIn(line: string): Head | null {
  if (!line.includes(marker)) return null;
  for (let at = line.indexOf("{"); at >= 0; at = line.indexOf("{", at + 1)) {
    const end = line.lastIndexOf("}") + 1;
    const found = headOf(parseResource(line.slice(at, end)));
    if (found !== null) return found;
  }
  return null;
}

function headOf(value: unknown): Head | null {
  if (typeof value === "string") return headIn(value);
  if (!isResource(value)) return null;
  const { process, seq, mac } = value;
  if (typeof process === "string" && typeof seq === "number" && typeof mac === "string") return { process, seq, mac };
  for (const inner of Object.values(value)) {
    const found = headOf(inner);
    if (found !== null) return found;
  }
  return null;
}
