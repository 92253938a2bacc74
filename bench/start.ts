import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../test/support/free-port.ts";
import { provideServices, useDatabase } from "../test/support/services/index.ts";
import { startSuite } from "../test/support/services/suite.ts";
import { temporaryFolder } from "../test/support/services/guardian.ts";

/**
 * Starts side by side with what they cannot do without: `node bench/start.ts [rounds]`. From the spawn to the first 200 of
 * `/livez`: seconds of wall and of CPU (the process's own, by the kernel's count), and a broker's resident memory ten seconds later.
 * The cases take turns, so that a noisy machine is noisy for all; what counts is the ratio of the medians.
 */
const rounds = Number(process.argv[2] ?? 5);
const root = fileURLToPath(new URL("../", import.meta.url));
const restMs = 10_000;
/** Linux counts CPU in ticks of a hundredth of a second. */
const ticksPerSecond = 100;

type Start = { wall: number; cpu: number; megabytes: number };
type Case = { name: string; args: string[]; env: () => Promise<Record<string, string>> };

const suite = await startSuite();
provideServices(suite.services);
const databaseUrl = await useDatabase();
const keys = { ENCRYPTION_KEYS: `k1:${randomBytes(32).toString("base64")}`, ADMIN_KEY: "x".repeat(40) };
const newFolder = async () => ({ DATA_DIR: (await temporaryFolder("start")).path });
const own = {
  pglite: (await newFolder()).DATA_DIR,
  broker: (await newFolder()).DATA_DIR,
  spool: (await newFolder()).DATA_DIR,
};

const bareStart = ["bench/bare-start.mjs"];
const barePglite = ["bench/bare-pglite.mjs"];
const broker = ["bin/broker.cjs"];
const below = ({ DATA_DIR }: { DATA_DIR: string }) => ({ DATA_DIR: `${DATA_DIR}/below` });
const cases: Case[] = [
  { name: "Fastify and SELECT 1", args: bareStart, env: async () => ({ DATABASE_URL: databaseUrl }) },
  {
    name: "broker on Postgres",
    args: broker,
    env: async () => ({ DATABASE_URL: databaseUrl, DATA_DIR: own.spool, ...keys }),
  },
  { name: "PGlite makes a folder", args: barePglite, env: async () => below(await newFolder()) },
  { name: "broker, embedded, first", args: broker, env: async () => below(await newFolder()) },
  { name: "PGlite opens it", args: barePglite, env: async () => ({ DATA_DIR: own.pglite }) },
  { name: "broker, embedded, later", args: broker, env: async () => ({ DATA_DIR: own.broker }) },
];

const starts = new Map<Case, Start[]>(cases.map((each) => [each, []]));
// The first round warms disks up, and makes the folders that are opened later.
for (let round = 0; round <= rounds; round++) {
  for (const each of cases) {
    const start = await measure(each);
    if (round > 0) starts.get(each)?.push(start);
  }
}
await suite.stop();

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
const figures = cases.map((each) => {
  const of = (figure: keyof Start) => median((starts.get(each) ?? []).map((start) => start[figure]));
  return { name: each.name, wall: of("wall"), cpu: of("cpu"), megabytes: of("megabytes") };
});
process.stdout.write(`medians of ${rounds} starts, ${cpus().length} cores\n`);
for (const [index, { name, wall, cpu, megabytes }] of figures.entries()) {
  const yardstick = index % 2 === 1 ? figures[index - 1] : undefined;
  const ratio =
    yardstick && `  ${(wall / yardstick.wall).toFixed(2)} × wall, ${(cpu / yardstick.cpu).toFixed(2)} × CPU`;
  process.stdout.write(
    `${name.padEnd(24)} ${wall.toFixed(2)} s  ${cpu.toFixed(2)} s CPU  ${Math.round(megabytes)} MB${ratio ?? ""}\n`,
  );
}

async function measure({ args, env }: Case): Promise<Start> {
  const port = await freePort();
  const startedMs = performance.now();
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { PATH: process.env["PATH"], LOG_LEVEL: "warn", PORT: String(port), ...(await env()) },
    stdio: ["ignore", "ignore", "inherit"],
  });
  while (!(await isAlive(port))) {
    if (child.exitCode !== null) throw new Error(`${args.join(" ")} ended with code ${child.exitCode}`);
    await sleep(2);
  }
  const wall = (performance.now() - startedMs) / 1000;
  const cpu = cpuSeconds(child);
  if (args === broker) await sleep(restMs);
  const megabytes = Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]) / 1024;
  child.kill("SIGINT");
  await once(child, "exit");
  return { wall, cpu, megabytes };
}

/** User and system time: proc(5), fields 14 and 15 of `stat`, counted behind the name. */
function cpuSeconds({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** By hand: an HTTP client's own work would be in the figures of a machine with two cores. */
async function isAlive(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    socket.write("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    const [answer] = (await once(socket, "data")) as [Buffer];
    return answer.toString("latin1").startsWith("HTTP/1.1 200");
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
