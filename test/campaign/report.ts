import type { Scale } from "./row.ts";
import type { Result } from "./run-rows.ts";

type Run = { seed: number; scale: Scale };

/** The table of docs/reliability.md, in Markdown. */
export function tableOf(results: readonly Result[]): string {
  const lines = results.map(({ row, outcome, seconds }) =>
    [row.number, row.title, row.promised, outcome.figure, outcome.ok ? "yes" : "**no**", Math.round(seconds)]
      .map((cell) => String(cell).replaceAll("|", "\\|").replaceAll(/\s+/g, " "))
      .join(" | "),
  );
  const head = "| # | case | promised | measured | ok | seconds |\n|---|---|---|---|---|---|";
  return [head, ...lines.map((line) => `| ${line} |`)].join("\n");
}

/** A line for each row: what was promised, and what came. */
export function linesOf(results: readonly Result[]): string {
  return results
    .map(({ row: { number, title, promised }, outcome: { ok, figure } }) => {
      return `${ok ? "ok    " : "FAILED"} row ${number}, ${title}. Promised: ${promised}. Came: ${figure}`;
    })
    .join("\n");
}

/** The same for programs. */
export function reportOf(results: readonly Result[], run: Run): string {
  const rows = results.map(({ row: { number, title, promised }, outcome, seconds }) => ({
    number,
    title,
    promised,
    seconds,
    ...outcome,
  }));
  return `${JSON.stringify({ ...run, rows }, null, 2)}\n`;
}

/** For each row that failed, why, and the command line that repeats it. */
export function failuresOf(results: readonly Result[], { seed, scale }: Run): string {
  const short = scale === "short" ? " --short" : "";
  return results
    .filter(({ outcome }) => !outcome.ok)
    .map(({ row, outcome }) => {
      const again = `npm run campaign -- --rows ${row.number} --seed ${seed}${short}`;
      return [`row ${row.number} failed; to repeat it: ${again}`, ...(outcome.notes ?? [])].join("\n  ");
    })
    .join("\n");
}
