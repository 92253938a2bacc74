import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { accounting } from "./cases/accounting.ts";
import { coldRead } from "./cases/cold-read.ts";
import { herd } from "./cases/herd.ts";
import { hotRead } from "./cases/hot-read.ts";
import { manyUniform, manyZipf } from "./cases/many-connections.ts";
import { memory } from "./cases/memory.ts";
import { readsWhileRefreshing } from "./cases/reads-while-refreshing.ts";
import { refreshes } from "./cases/refreshes.ts";
import { sweep } from "./cases/sweep.ts";
import { bigStart } from "./cases/big-start.ts";
import { size } from "./cases/size.ts";
import { type BenchCase, format, hasWrk, summarise } from "./harness.ts";
import { stopServices } from "./services.ts";

/**
 * `npm run bench`: each case against its yardstick in the same run, in turn; what counts is the median of the ratios. docs/performance.md says what
 * is measured and how. `-- --case hot-read` runs one, `--pairs N` and `--seconds N` make it longer or shorter, `--json FILE` writes the figures.
 */
const cases: readonly BenchCase[] = [
  hotRead,
  manyUniform,
  manyZipf,
  coldRead,
  herd,
  refreshes,
  readsWhileRefreshing,
  sweep,
  memory,
  bigStart,
  size,
  accounting,
];

const { values } = parseArgs({
  options: {
    case: { type: "string", multiple: true },
    pairs: { type: "string", default: "7" },
    seconds: { type: "string", default: "4" },
    json: { type: "string" },
  },
});
const wanted = values.case ?? cases.map(({ name }) => name);
const unknown = wanted.find((name) => !cases.some((each) => each.name === name));
if (unknown !== undefined) {
  process.stderr.write(`--case: there is no "${unknown}"; there are ${cases.map(({ name }) => name).join(", ")}\n`);
  process.exit(2);
}

const write = (line: string) => void process.stdout.write(`${line}\n`);
const machine = `${cpus().length} × ${cpus()[0]?.model ?? "unknown"}, Node ${process.version}, ${(await hasWrk()) ? "wrk" : "autocannon"}`;
write(machine);
const results: unknown[] = [];
for (const each of cases.filter(({ name }) => wanted.includes(name))) {
  write(`\n${each.number}. ${each.title}\n   beside: ${each.yardstick}`);
  const pairs = Math.max(Number(values.pairs), 1);
  const measured = await each.run({ pairs, seconds: Number(values.seconds), log: (line) => write(`   ${line}`) });
  const { ratio, min, max, ours, yardstick, isMet } = summarise(each, measured);
  const aim = "atLeast" in each.aim ? `≥ ${each.aim.atLeast}` : `≤ ${each.aim.atMost}`;
  write(
    `   ratio ${ratio.toFixed(2)} (${min.toFixed(2)} to ${max.toFixed(2)}), wanted ${aim}: ${isMet ? "met" : "NOT met"}; ${format(ours)} / ${format(yardstick)} ${each.unit}`,
  );
  for (const note of measured.notes ?? []) write(`   ${note}`);
  results.push({
    number: each.number,
    name: each.name,
    aim: each.aim,
    ratio,
    min,
    max,
    isMet,
    unit: each.unit,
    ...measured,
  });
}
await stopServices();
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify({ machine, at: new Date().toISOString(), cases: results }, null, 2)}\n`);
}
