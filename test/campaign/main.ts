import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { provideServices } from "../support/services/index.ts";
import { startSuite } from "../support/services/suite.ts";
import { chooseRows, loadRows } from "./load-rows.ts";
import { failuresOf, linesOf, reportOf, tableOf } from "./report.ts";
import { runRows } from "./run-rows.ts";

/** The short form plays the same every time, unless a seed is given. */
const shortSeed = 20_261_121;

const { values } = parseArgs({
  options: {
    rows: { type: "string" },
    seed: { type: "string" },
    short: { type: "boolean", default: false },
    parallel: { type: "string" },
    json: { type: "string" },
  },
});
const scale = values.short ? "short" : "full";
const all = await loadRows();
const usual = scale === "short" ? all.filter(({ onlyFull }) => onlyFull === undefined) : all;
const rows = values.rows === undefined ? usual : chooseRows(all, values.rows);
const drawn = scale === "short" ? shortSeed : Math.floor(Math.random() * 2 ** 31);
const seed = values.seed === undefined ? drawn : wholeNumber("seed", values.seed);
// In the short form most rows have brokers in common, and the rest is done one after the other beside them.
const usualParallel = scale === "short" ? 1 : 3;
const parallel = values.parallel === undefined ? usualParallel : wholeNumber("parallel", values.parallel);
const log = (line: string) => void process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);

const suite = await startSuite();
log(`${rows.length} rows, ${scale}, seed ${seed}; ${suite.line}`);
provideServices(suite.services);
const results = await runRows(rows, { seed, scale, parallel, log });
await suite.stop();

process.stdout.write(`${scale === "short" ? linesOf(results) : tableOf(results)}\n`);
process.stderr.write(`${failuresOf(results, { seed, scale })}\n`);
if (values.json !== undefined) writeFileSync(values.json, reportOf(results, { seed, scale }));
// If a failed row has left something running, it ends with this process.
process.exit(results.every(({ outcome }) => outcome.ok) ? 0 : 1);

function wholeNumber(option: string, text: string): number {
  if (/^[1-9]\d{0,9}$/.test(text) || (option === "seed" && text === "0")) return Number(text);
  throw new Error(`--${option} wants a whole number, not "${text}"`);
}
