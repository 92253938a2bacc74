import { readFileSync } from "node:fs";

/** What docs/errors.md says of one wrong input. */
export type ErrorRow = { wrong: string; status: number; code: string; says: string };

/** The answers of docs/errors.md, in order. */
export function readErrorTable(): ErrorRow[] {
  return readErrorPage().flatMap(({ answer, wrong, says }) => (answer === null ? [] : [{ ...answer, wrong, says }]));
}

/** What the line on stderr says, by what was wrong: the rows of the page that stand under no status. */
export function readStartupTable(): Map<string, string> {
  return new Map(readErrorPage().flatMap(({ answer, wrong, says }) => (answer === null ? [[wrong, says]] : [])));
}

/**
 * Each text of the page with each of the inputs that get it, under the line that names status and code (`**400 `code`**`). Short texts stand
 * in tables that begin with "the text says", long ones in lists; a semicolon parts the inputs.
 */
function readErrorPage() {
  const lines = readFileSync(new URL("../../docs/errors.md", import.meta.url), "utf8").split("\n");
  let answer: { status: number; code: string } | null = null;
  let isOfTexts = false;
  return lines.flatMap((line, index) => {
    const [, status, code = ""] = /^\*\*(\d{3}) (.+)\*\*$/.exec(line) ?? [];
    if (status !== undefined) answer = { status: Number(status), code: unquote(code) };
    if (line.startsWith("#")) answer = null;
    if (isRule(lines[index + 1])) isOfTexts = cells(line)[0] === "the text says";
    const isRow = line.startsWith("|") && isOfTexts && !isRule(line) && !isRule(lines[index + 1]);
    const [says, wrong] = isRow ? cells(line) : (/^- (.+?): (`.+`)$/.exec(line)?.slice(1).toReversed() ?? []);
    if (says === undefined || wrong === undefined) return [];
    return wrong.split("; ").map((one) => ({ answer, wrong: one, says: unquote(says) }));
  });
}

/** `says` stands in `text`; `…` in it stands for anything. */
export function isSaid(says: string, text: string): boolean {
  let at = 0;
  for (const part of says.split("…")) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return true;
}

/** A row of docs/first-hour.md. `exit`: the code of the start that it ends; null: the start goes on. */
export type FirstHourRow = { section: string; wrong: string; line: string; exit: 2 | null };

/** The rows of docs/first-hour.md, in order. */
export function readFirstHour(): FirstHourRow[] {
  const text = readFileSync(new URL("../../docs/first-hour.md", import.meta.url), "utf8");
  return text.split(/^## /m).flatMap((part) => {
    const section = part.split("\n", 1)[0] ?? "";
    return tableLines(3, part).map(([wrong = "", line = "", then]) => {
      if (then !== "exit 2" && then !== "goes on") throw new Error(`${wrong}: what is "${then}"?`);
      return { section, wrong, line: unquote(line), exit: then === "exit 2" ? 2 : null };
    });
  });
}

/** `text` is this line, and nothing else; `…` in it stands for anything on one line. */
export function isLine(line: string, text: string): boolean {
  const parts = line.split("…").map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`));
  return new RegExp(`^${parts.join(".*")}$`).test(text);
}

const isRule = (line: string | undefined): boolean => /^\|[-| :]+\|$/.test(line ?? "");

/** The cells of all tables of so many columns, heads left out. A bar inside a cell is written `\|`. */
function tableLines(columns: number, text: string): string[][] {
  const lines = text.split("\n");
  const rows = lines.filter((line, index) => line.startsWith("|") && !isRule(line) && !isRule(lines[index + 1]));
  return rows.map(cells).filter((row) => row.length === columns);
}

function cells(line: string): string[] {
  const inner = line.replace(/^\|/, "").replace(/\|\s*$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll(String.raw`\|`, "|"));
}

/** Of a cell that is one piece of code, what is in it; two backticks hold one. */
function unquote(cell: string): string {
  const [, , text] = /^(`+) ?(.*?) ?\1$/.exec(cell) ?? [];
  return text ?? cell;
}
