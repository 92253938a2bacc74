import { hangMs } from "../support/patience.ts";
import { Fleets } from "./fleets.ts";
import type { Given, Outcome, Plays, Row } from "./row.ts";

export type Result = { row: Row; outcome: Outcome; seconds: number };

type Options = Omit<Given, "fleets"> & { parallel: number };

/** A row may have many long waits, one after the other. If it hangs for hours, it is reported, and the others still count. */
const limitMs = 24 * hangMs;

/**
 * Runs rows: those that must be alone one by one, and then the others, several at a time. In the short size, where rows have
 * brokers in common, those that play in turn do so one after the other, beside the rest.
 * @returns what each came to, by number
 */
export async function runRows(rows: readonly Row[], options: Options): Promise<Result[]> {
  await using fleets = new Fleets(rows, options.seed);
  const { seed, scale, log, parallel } = options;
  const given = { seed, scale, log, fleets };
  const results: Result[] = [];
  const pool = async (waiting: Row[], size: number) => {
    const work = async () => {
      for (let row = waiting.shift(); row !== undefined; row = waiting.shift()) results.push(await runRow(row, given));
    };
    await Promise.all(Array.from({ length: size }, work));
  };
  const isAlone = ({ alone }: Row) => alone === true || alone === scale;
  const [alone, others] = [rows.filter(isAlone), rows.filter((row) => !isAlone(row))];
  const playing = (how?: Plays["how"]) =>
    others.filter(({ plays }) => (scale === "short" ? plays?.how : undefined) === how);
  const [beside, inTurn, rest] = [playing("beside"), playing("in turn"), playing()];
  await pool(alone, 1);
  await Promise.all([pool(beside, beside.length), pool(inTurn, 1), pool(rest, parallel)]);
  return results.toSorted((a, b) => a.row.number - b.row.number);
}

/** Never rejects: an error is a failed row. */
async function runRow(row: Row, { log, ...given }: Given): Promise<Result> {
  const startedMs = performance.now();
  const own = { ...given, log: (line: string) => log(`row ${row.number}: ${line}`) };
  own.log("started");
  const outcome = await Promise.race([guarded(row, own), late()]);
  const seconds = (performance.now() - startedMs) / 1000;
  own.log(`${outcome.ok ? "ok" : "FAILED"} in ${Math.round(seconds)} s: ${outcome.figure}`);
  if (!outcome.ok) for (const note of outcome.notes ?? []) own.log(note);
  if (!outcome.ok && row.plays?.how === "in turn") await given.fleets.discard("in turn");
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
