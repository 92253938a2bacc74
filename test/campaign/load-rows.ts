import { readdirSync } from "node:fs";
import type { Row } from "./row.ts";

const folder = new URL("rows/", import.meta.url);

/** Every row under rows/, by number. @throws where a file's name begins with another number than its row has */
export async function loadRows(): Promise<Row[]> {
  const files = readdirSync(folder).filter((file) => file.endsWith(".ts"));
  return (await Promise.all(files.map(loadRow))).sort((a, b) => a.number - b.number);
}

async function loadRow(file: string): Promise<Row> {
  const { row } = (await import(new URL(file, folder).href)) as { row: Row };
  if (row.number === Number.parseInt(file, 10)) return row;
  throw new Error(`rows/${file} holds row ${row.number}`);
}

/** Picks rows as `1,5-8` says. @throws for what is no such list, or names a row that there is not */
export function chooseRows(rows: readonly Row[], list: string): Row[] {
  const chosen = list.split(",").flatMap((part) => {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(part.trim()) ?? [];
    if (first === undefined) throw new Error(`--rows wants numbers and ranges such as 1,5-8, not "${part}"`);
    const found = rows.filter(({ number }) => number >= Number(first) && number <= Number(last));
    if (found.length === 0) throw new Error(`--rows ${part}: there is no such row`);
    return found;
  });
  return [...new Set(chosen)].sort((a, b) => a.number - b.number);
}
