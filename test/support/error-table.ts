import { readFileSync } from "node:fs";

/** A row of docs/errors.md. */
export type ErrorRow = { wrong: string; status: number; code: string; says: string };

/** The rows of the tables with the columns "Wrong | Status | Code | The text says", in order. */
export function readErrorTable(): ErrorRow[] {
  return tableLines(4).map(([wrong = "", status, code = "", says = ""]) => ({
    wrong,
    status: Number(status),
    code: unquote(code),
    says: unquote(says),
  }));
}

/** What the line on stderr says, by what was wrong: the table with two columns. */
export function readStartupTable(): Map<string, string> {
  return new Map(tableLines(2).map(([wrong = "", says = ""]) => [wrong, unquote(says)]));
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

const isRule = (line: string | undefined): boolean => /^\|[-| :]+\|$/.test(line ?? "");

/** The cells of all tables of so many columns, heads left out. A bar inside a cell is written `\|`. */
function tableLines(columns: number): string[][] {
  const lines = readFileSync(new URL("../../docs/errors.md", import.meta.url), "utf8").split("\n");
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
