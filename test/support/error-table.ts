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
function tableLines(
  columns: number,
  text = readFileSync(new URL("../../docs/errors.md", import.meta.url), "utf8"),
): string[][] {
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
