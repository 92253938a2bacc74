import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { provideServices } from "../support/services/index.ts";
import { startSuite } from "../support/services/suite.ts";
import { chooseRows, loadRows } from "./load-rows.ts";
import { failuresOf, tableOf } from "./report.ts";
import { startRows } from "./run-rows.ts";

const { values } = parseArgs({
  options: {
    rows: { type: "string" },
    seed: { type: "string" },
    short: { type: "boolean", default: false },
    parallel: { type: "string", default: "3" },
    json: { type: "string" },
  },
});
const all = await loadRows();
const rows = values.rows === undefined ? all : chooseRows(all, values.rows);
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : wholeNumber("seed", values.seed);
const scale = values.short ? "short" : "full";
const parallel = wholeNumber("parallel", values.parallel);
const log = (line: string) => void process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);

const suite = await startSuite();
log(`${rows.length} rows, ${scale}, seed ${seed}; ${suite.line}`);
provideServices(suite.services);
const results = await Promise.all(startRows(rows, { seed, scale, parallel, log }).values());
await suite.stop();

process.stdout.write(`${tableOf(results)}\n`);
process.stderr.write(`${failuresOf(results, { seed, scale })}\n`);
if (values.json !== undefined) {
  const plain = results.map(({ row: { number, title, promised }, outcome, seconds }) => ({
    number,
    title,
    promised,
    seconds,
    ...outcome,
  }));
  writeFileSync(values.json, `${JSON.stringify({ seed, scale, rows: plain }, null, 2)}\n`);
}
// What a row that failed has left running ends with this process.
process.exit(results.every(({ outcome }) => outcome.ok) ? 0 : 1);

function wholeNumber(option: string, text: string): number {
  if (/^[1-9]\d{0,9}$/.test(text) || (option === "seed" && text === "0")) return Number(text);
  throw new Error(`--${option} wants a whole number, not "${text}"`);
}
