import type { Given, Outcome, Row } from "./row.ts";

export type Result = { row: Row; outcome: Outcome; seconds: number };

type Options = Omit<Given, "log"> & { parallel: number; log: (line: string) => void };

/** Longer than any row takes: what hangs is reported, and the others still count. */
const limitMs = 60 * 60_000;

/** Runs rows, several at a time; those that must be alone come after all others, one by one. */
export async function runRows(rows: readonly Row[], options: Options): Promise<Result[]> {
  const together = rows.filter(({ alone }) => alone !== true);
  const alone = rows.filter((row) => row.alone === true);
  const results = [...(await pool(together, options.parallel, options)), ...(await pool(alone, 1, options))];
  return results.sort((a, b) => a.row.number - b.row.number);
}

async function pool(rows: readonly Row[], size: number, options: Options): Promise<Result[]> {
  const waiting = [...rows];
  const results: Result[] = [];
  const work = async () => {
    for (let row = waiting.shift(); row !== undefined; row = waiting.shift()) results.push(await runRow(row, options));
  };
  await Promise.all(Array.from({ length: size }, work));
  return results;
}

/** Runs one row. Never rejects: an error is a failed row. */
async function runRow(row: Row, { seed, scale, log }: Given): Promise<Result> {
  const startedMs = performance.now();
  const given = { seed, scale, log: (line: string) => log(`row ${row.number}: ${line}`) };
  given.log("started");
  const outcome = await Promise.race([guarded(row, given), late()]);
  const seconds = (performance.now() - startedMs) / 1000;
  given.log(`${outcome.ok ? "ok" : "FAILED"} in ${Math.round(seconds)} s: ${outcome.figure}`);
  return { row, outcome, seconds };
}

async function guarded(row: Row, given: Given): Promise<Outcome> {
  try {
    return await row.run(given);
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { ok: false, figure: `broke off: ${text.split("\n")[0]}`, notes: [text] };
  }
}

async function late(): Promise<Outcome> {
  return await new Promise((resolve) => {
    setTimeout(() => {
      resolve({ ok: false, figure: `did not end within ${limitMs / 60_000} minutes` });
    }, limitMs).unref();
  });
}
