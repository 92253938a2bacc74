import { readdirSync } from "node:fs";
import type { Row } from "./row.ts";

const folder = new URL("rows/", import.meta.url);

/** Every row under rows/, by number. */
export async function loadRows(): Promise<Row[]> {
  const files = readdirSync(folder).filter((file) => file.endsWith(".ts"));
  const modules = await Promise.all(
    files.map(async (file) => (await import(new URL(file, folder).href)) as { row: Row }),
  );
  return modules.map(({ row }) => row).sort((a, b) => a.number - b.number);
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
