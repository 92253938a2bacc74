import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import autocannon from "autocannon";
import { temporaryFolder } from "../test/support/services/guardian.ts";

/** One case of the table in docs/performance.md. */
export type BenchCase = {
  /** As `--case` takes it. */
  name: string;
  number: number;
  /** What is measured, and beside what. */
  title: string;
  yardstick: string;
  /** What the ratio should be; docs/performance.md says why. */
  aim: { atLeast: number } | { atMost: number };
  unit: string;
  /** Measures both sides in turn, after a round that does not count. */
  run: (bench: Bench) => Promise<Measured>;
};

export type Bench = { pairs: number; seconds: number; log: (line: string) => void };
export type Measured = { ours: number[]; yardstick: number[]; notes?: string[] };

/** Takes both sides in turn, so that a noisy machine is noisy for both. The first pair warms up and does not count. */
export async function inTurn(
  { pairs, log }: Pick<Bench, "pairs" | "log">,
  sides: { ours: () => Promise<number>; yardstick: () => Promise<number> },
): Promise<Measured> {
  const measured: Measured = { ours: [], yardstick: [] };
  for (let pair = 0; pair <= pairs; pair++) {
    // Whoever goes second may find a warmer machine, so they change places.
    const isSwapped = pair % 2 === 1;
    const first = await (isSwapped ? sides.yardstick : sides.ours)();
    const second = await (isSwapped ? sides.ours : sides.yardstick)();
    const [ours, yardstick] = isSwapped ? [second, first] : [first, second];
    log(`${pair === 0 ? "warm-up" : `pair ${pair}`}: ${format(ours)} / ${format(yardstick)}`);
    if (pair === 0) continue;
    measured.ours.push(ours);
    measured.yardstick.push(yardstick);
  }
  return measured;
}

export const format = (value: number): string => (value >= 100 ? String(Math.round(value)) : value.toPrecision(3));

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [below = NaN, above = NaN] = [sorted[middle - 1], sorted[middle]];
  return sorted.length % 2 === 1 ? above : (below + above) / 2;
}

export type Summary = { ratio: number; min: number; max: number; ours: number; yardstick: number; isMet: boolean };

export function summarise({ aim }: Pick<BenchCase, "aim">, { ours, yardstick }: Measured): Summary {
  const ratios = ours.map((value, index) => value / (yardstick[index] ?? NaN));
  const ratio = median(ratios);
  const isMet = "atLeast" in aim ? ratio >= aim.atLeast : ratio <= aim.atMost;
  return {
    ratio,
    min: Math.min(...ratios),
    max: Math.max(...ratios),
    ours: median(ours),
    yardstick: median(yardstick),
    isMet,
  };
}

const run = promisify(execFile);
const serverCore = 0;
const generatorCore = 1;

/** Puts a process and its threads on the servers' core, where there are two cores and `taskset`. */
export const pinServer = async (pid: number | undefined): Promise<void> => await pin(pid, serverCore);

async function pin(pid: number | undefined, core: number): Promise<void> {
  if (availableParallelism() < 2 || pid === undefined) return;
  await run("taskset", ["-apc", String(core), String(pid)]).catch(() => undefined);
}

export type Load = {
  url: string;
  /** A path for each request, in turn; none: that of `url`. */
  paths?: readonly string[];
  headers?: Record<string, string>;
  connections?: number;
  seconds: number;
};
/** Requests a second, and what 99 of 100 were answered within. */
export type LoadResult = { perSecond: number; p99Ms: number };

/** Seconds of CPU that a process has used, by the kernel's count of hundredths. */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** The same as `generate`, and answers for each second of CPU that the server has used: what a busy machine does not change. */
export async function generateAt(pid: number, load: Load): Promise<LoadResult & { perCpuSecond: number }> {
  const before = cpuSeconds(pid);
  const result = await generate(load);
  return { ...result, perCpuSecond: (result.perSecond * load.seconds) / (cpuSeconds(pid) - before) };
}

/** Asks as fast as answers come: with wrk where it is installed, else with autocannon. @throws if an answer is not 2xx */
export async function generate(load: Load): Promise<LoadResult> {
  return (await hasWrk()) ? await withWrk(load) : await withAutocannon(load);
}

let wrkIsThere: Promise<boolean> | undefined;
export const hasWrk = async (): Promise<boolean> =>
  await (wrkIsThere ??= run("wrk", ["--version"]).then(
    () => true,
    (error: { code?: unknown }) => error.code !== "ENOENT", // it ends with 1 after its version
  ));

async function withWrk({ url, paths, headers = {}, connections = 50, seconds }: Load): Promise<LoadResult> {
  const script = paths === undefined ? [] : ["-s", await scriptOf(paths)];
  const named = Object.entries(headers).flatMap(([name, value]) => ["-H", `${name}: ${value}`]);
  const wrk = [
    "wrk",
    "-t1",
    `-c${connections}`,
    `-d${seconds}s`,
    "--timeout",
    "30s",
    "--latency",
    ...script,
    ...named,
    url,
  ];
  const pinned = availableParallelism() < 2 ? wrk : ["taskset", "-c", String(generatorCore), ...wrk];
  const [program = "", ...args] = pinned;
  const { stdout } = await run(program, args, { maxBuffer: 1024 * 1024 });
  const refused = /Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)/.exec(stdout);
  if (refused !== null) throw new Error(`${url}: ${refused[0]}`);
  return { perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]), p99Ms: p99Of(stdout) };
}

function p99Of(output: string): number {
  const [, value = "NaN", unit = "ms"] = /\s99%\s+([\d.]+)(us|ms|s)/.exec(output) ?? [];
  return Number(value) * ({ us: 0.001, ms: 1, s: 1000 }[unit] ?? NaN);
}

/** A script for wrk that asks for one path after the other. */
async function scriptOf(paths: readonly string[]): Promise<string> {
  const folder = (await temporaryFolder("bench")).path;
  writeFileSync(join(folder, "paths.txt"), paths.join("\n"));
  const lua = `local requests = {}
local at = 0
function init(args)
  for path in io.lines("${folder}/paths.txt") do requests[#requests + 1] = wrk.format("GET", path) end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
`;
  writeFileSync(join(folder, "paths.lua"), lua);
  return join(folder, "paths.lua");
}

async function withAutocannon({ url, paths, headers = {}, connections = 50, seconds }: Load): Promise<LoadResult> {
  const requests = paths?.map((path) => ({ path }));
  const result = await autocannon({
    url,
    connections,
    duration: seconds,
    headers,
    workers: 1,
    ...(requests && { requests }),
  });
  const failed = result.non2xx + result.errors;
  if (failed > 0) throw new Error(`${url}: ${failed} requests were refused or failed`);
  return { perSecond: result.requests.average, p99Ms: result.latency.p99 };
}

/** Runs a script on the generator's core to its end, and returns what it has written. */
export async function runOnGeneratorCore(file: string, env: Record<string, string>): Promise<string> {
  const node = [process.execPath, new URL(file, import.meta.url).pathname];
  const [program = "", ...args] = availableParallelism() < 2 ? node : ["taskset", "-c", String(generatorCore), ...node];
  return (await run(program, args, { env: { PATH: process.env["PATH"], ...env } })).stdout;
}

/** A yardstick in a process of its own, on the servers' core. It says its port when it listens. */
export const startYardstick = async (file: string, env: Record<string, string> = {}) =>
  await startProcess(file, { env, core: serverCore });

/** The same for what both sides ask, on the generator's core. */
export const startBeside = async (file: string, env: Record<string, string> = {}) =>
  await startProcess(file, { env, core: generatorCore });

async function startProcess(
  file: string,
  { env, core }: { env: Record<string, string>; core: number },
): Promise<{ url: string; pid: number; [Symbol.asyncDispose]: () => Promise<void> }> {
  const child = spawn(process.execPath, [new URL(file, import.meta.url).pathname], {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const [port] = (await once(child, "message")) as [number];
  await pin(child.pid, core);
  return {
    url: `http://127.0.0.1:${port}`,
    pid: child.pid ?? 0,
    async [Symbol.asyncDispose]() {
      child.kill();
      await once(child, "exit");
    },
  };
}
