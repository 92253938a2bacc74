import { once } from "node:events";
import { createInterface } from "node:readline/promises";
import { type Readable, Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { readable } from "../text.ts";
import { CliError } from "./errors.ts";
import { isResource, type Resource, textOf } from "./resource.ts";

/** A column of a table: its heading, and the field it shows, `outer.inner` for one of a map. */
export type Column = readonly [heading: string, field: string];

/** How a command answers: tables and sentences for people, one JSON document per line with `--json`. */
export type Output = {
  json: boolean;
  /** One resource, a line per field. */
  show: (resource: Resource) => void;
  list: (page: { items: Resource[]; next_cursor?: unknown }, columns: readonly Column[]) => void;
  /** What was done: `sentence` for people, `resource` for programs. Its `attention` goes to stderr. */
  done: (sentence: string, resource: Resource) => void;
  /** One bare value on stdout, for `$(…)`. */
  value: (value: string, resource: Resource) => void;
  /** A remark for people, on stderr, so that it never mixes with an answer. */
  note: (sentence: string) => void;
  /** The same about something of the API's with a `code` and a `detail`. */
  warn: (about: Resource) => void;
};

export function createOutput(terminal: Terminal, json: boolean): Output {
  const print = (value: unknown, human: () => string) => terminal.out(`${json ? JSON.stringify(value) : human()}\n`);
  const note = (sentence: string) => terminal.err(`${printable(sentence)}\n`);
  const warn = ({ code, detail }: Resource) => note(`freshet: warning: ${textOf(detail)} (${textOf(code)})`);
  return {
    json,
    note,
    warn,
    show: (resource) => print(resource, () => formatFields(resource)),
    list: (page, columns) => print(page, () => formatTable(page.items, columns)),
    done(sentence, resource) {
      print(resource, () => sentence);
      if (isResource(resource["attention"])) warn(resource["attention"]);
    },
    value: (value, resource) => print(resource, () => value),
  };
}

/** The header `freshet-unconfirmed` as a warning: those replicas may still serve `what`. */
export function warnOfUnconfirmed({ note }: Output, names: string, what: string): void {
  if (names === "") return;
  note(`freshet: warning: these replicas have not confirmed it and may still serve ${what}: ${names}`);
}

/** Columns as wide as their widest cell, two spaces apart. */
function formatTable(items: readonly Resource[], columns: readonly Column[]): string {
  if (items.length === 0) return "None.";
  const rows = items.map((item) => columns.map(([, field]) => formatValue(fieldOf(item, field))));
  return alignColumns([columns.map(([heading]) => heading), ...rows]);
}

function fieldOf(item: Resource, path: string): unknown {
  return path.split(".").reduce<unknown>((value, name) => (isResource(value) ? value[name] : undefined), item);
}

/** One line per field: its name, then its value. */
function formatFields(resource: Resource): string {
  return alignColumns(Object.entries(resource).map(([field, value]) => [`${printable(field)}:`, formatValue(value)]));
}

function alignColumns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  const align = (row: readonly string[]) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ");
  return rows.map((row) => align(row).trimEnd()).join("\n");
}

function formatValue(value: unknown): string {
  if (Array.isArray(value)) return value.map(formatValue).join(" ") || "-";
  if (isResource(value)) return formatMap(value);
  return printable(textOf(value)) || "-";
}

/** Small maps as `key=value`, deeper ones as JSON. */
function formatMap(map: Resource): string {
  if (Object.values(map).some((value) => isResource(value))) return printable(JSON.stringify(map));
  const entries = Object.entries(map).map(([key, value]) => `${printable(key)}=${formatValue(value)}`);
  return entries.join(" ") || "-";
}

/** Text from providers and people must not move the cursor or colour the terminal. */
export function printable(value: string): string {
  return readable(value);
}

/** What a command sees of the terminal it runs in. */
export type Terminal = {
  out: (text: string) => void;
  /** The same for a long answer: resolves when there is room for more. */
  outAll: (text: string) => Promise<void>;
  err: (text: string) => void;
  /** True when a person can be asked. */
  interactive: boolean;
  readStdin: () => Promise<string>;
  /** The next line of stdin, before its end has come. @throws CliError when it ends without one. */
  readLine: () => Promise<string>;
  /** Asks for a line. @throws CliError when the person gives up. */
  ask: (question: string) => Promise<string>;
  /** The same, without showing what is typed. */
  askHidden: (question: string) => Promise<string>;
};

/** `isTTY` says that a person sits at the other end. */
export type TerminalStreams = {
  stdin: Readable & { isTTY?: boolean };
  stdout: Writable;
  stderr: Writable & { isTTY?: boolean; columns?: number };
};

/** The terminal as three streams: answers go to stdout, remarks for people to stderr. */
export function openTerminal({ stdin, stdout, stderr }: TerminalStreams): Terminal {
  /** Lines that came with the answer to an earlier question: several were pasted at once. */
  const ahead: string[] = [];
  const ask = async (question: string, shows: boolean) => {
    const pasted = ahead.shift();
    if (pasted === undefined) return await editLine({ stdin, stderr, ahead, question, shows });
    stderr.write(`${question}${shows ? pasted : ""}\n`);
    return pasted;
  };
  return {
    out: (line) => void stdout.write(line),
    outAll: async (lines) => {
      if (!stdout.write(lines)) await once(stdout, "drain");
    },
    err: (line) => void stderr.write(line),
    interactive: stdin.isTTY === true && stderr.isTTY === true,
    readStdin: () => text(stdin),
    readLine: () => readLine(stdin),
    ask: (question) => ask(question, true),
    askHidden: (question) => ask(question, false),
  };
}

async function readLine(stdin: Readable): Promise<string> {
  const lines = createInterface({ input: stdin, terminal: false });
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  lines.once("line", resolve);
  lines.once("close", () => reject(new CliError("Nothing was entered", "cancelled")));
  try {
    return await promise;
  } finally {
    lines.close();
  }
}

type Editing = Pick<TerminalStreams, "stdin" | "stderr"> & { ahead: string[]; question: string; shows: boolean };

/**
 * The next line that is typed. A hidden line is not echoed, and neither are lines that were pasted after it: further lines of the same
 * chunk go to `ahead`, and may be secrets.
 */
async function editLine({ stdin, stderr, ahead, question, shows }: Editing): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let isAnswered = false;
  const echo = new Writable({
    write(chunk, _encoding, done) {
      if (shows && !isAnswered) stderr.write(chunk);
      done();
    },
  });
  const output = Object.assign(echo, { columns: stderr.columns });
  const lines = createInterface({ input: stdin, output, terminal: true, historySize: 0 });
  lines.on("line", (line) => {
    if (isAnswered) ahead.push(line);
    else resolve(line);
    isAnswered = true;
  });
  lines.once("close", () => reject(new CliError("Nothing was entered", "cancelled")));
  if (!shows) stderr.write(question);
  lines.setPrompt(shows ? question : "");
  lines.prompt();
  try {
    return await promise;
  } finally {
    lines.close();
    if (!shows || !isAnswered) stderr.write("\n");
  }
}
