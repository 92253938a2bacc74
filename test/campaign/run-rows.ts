import type { Given, Outcome, Row } from "./row.ts";

export type Result = { row: Row; outcome: Outcome; seconds: number };

type Options = Given & { parallel: number };

/** Longer than any row takes: what hangs is reported, and the others still count. */
const limitMs = 60 * 60_000;

/**
 * Starts rows: those that must be alone one by one, and then the others, several at a time. In the short size those that
 * wait do so all at once, beside those that work.
 * @returns what each comes to
 */
export function startRows(rows: readonly Row[], options: Options): Map<Row, Promise<Result>> {
  const promised = new Map(rows.map((row) => [row, Promise.withResolvers<Result>()]));
  const pool = async (waiting: Row[], size: number) => {
    const work = async () => {
      for (let row = waiting.shift(); row !== undefined; row = waiting.shift()) {
        promised.get(row)?.resolve(await runRow(row, options));
      }
    };
    await Promise.all(Array.from({ length: size }, work));
  };
  const isAlone = ({ alone }: Row) => alone === true || alone === options.scale;
  const runAll = async () => {
    const [alone, others] = [rows.filter(isAlone), rows.filter((row) => !isAlone(row))];
    await pool(alone, 1);
    const waiting = others.filter(({ waits }) => waits && options.scale === "short");
    const working = others.filter((row) => !waiting.includes(row));
    await Promise.all([pool(waiting, waiting.length), pool(working, options.parallel)]);
  };
  void runAll();
  return new Map([...promised].map(([row, { promise }]) => [row, promise]));
}

/** Never rejects: an error is a failed row. */
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
