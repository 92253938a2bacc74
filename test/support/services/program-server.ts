import { type ChildProcess, spawn, type StdioOptions } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";
import { until } from "../patience.ts";
import { guard } from "./guardian.ts";
import { type PrivateServer, untilAnswering } from "./private-server.ts";

export type ProgramServerOptions = {
  url: string;
  command: string;
  args: string[];
  /** Its processes work in it and nobody else's do; removed when the server is disposed of. */
  folder: { path: string; remove(): Promise<void> };
  logFile: string;
  owner: { uid?: number; gid?: number };
  /** The signal of an orderly end: Postgres calls SIGINT "fast", Redis wants SIGTERM. */
  stopSignal: NodeJS.Signals;
  ping(): Promise<void>;
};

/** A server run from a program of this machine. */
export async function startProgramServer(options: ProgramServerOptions): Promise<PrivateServer> {
  let running = await launch(options);
  const all = () => processesOf(running, options.folder.path);
  const end = async (signal: NodeJS.Signals) => {
    // A frozen server takes no orderly signal before it runs again.
    if (signal !== "SIGKILL") for (const pid of await all()) signalOne(pid, "SIGCONT");
    if (signal !== "SIGKILL" && !hasEnded(running)) signalOne(running.pid, signal);
    await until(`every process of ${options.command} is gone`, async () => {
      const left = await all();
      if (signal === "SIGKILL" || hasEnded(running)) for (const pid of left) signalOne(pid, "SIGKILL");
      return left.length === 0;
    });
  };
  const signalAll = async (signal: NodeJS.Signals) => {
    // First the process that starts the others: then it starts no more.
    signalOne(running.pid, signal);
    for (const pid of await all()) signalOne(pid, signal);
  };
  return {
    url: options.url,
    stop: () => end(options.stopSignal),
    kill: () => end("SIGKILL"),
    pause: () => signalAll("SIGSTOP"),
    resume: () => signalAll("SIGCONT"),
    restart: async () => {
      await end(options.stopSignal);
      running = await launch(options);
    },
    [Symbol.asyncDispose]: async () => {
      await end("SIGKILL");
      await options.folder.remove();
    },
  };
}

async function launch(options: ProgramServerOptions): Promise<ChildProcess> {
  const log = openSync(options.logFile, "a");
  const stdio: StdioOptions = ["ignore", log, log];
  const child = spawn(options.command, options.args, {
    ...options.owner,
    cwd: options.folder.path,
    stdio,
    detached: true,
  });
  closeSync(log);
  child.unref();
  const failed = new Promise<never>((_resolve, reject) => {
    child.once("error", reject);
  });
  if (child.pid === undefined) return await failed;
  const release = guard({ kind: "process", pid: child.pid });
  child.once("exit", release);
  await untilAnswering(
    () => options.ping(),
    async () => {
      if (hasEnded(child)) await explain(options, child);
    },
  );
  return child;
}

/** A server that ended at once says why in its log; asking on would hide it. */
async function explain({ command, logFile }: ProgramServerOptions, { exitCode, signalCode }: ChildProcess) {
  const log = await readFile(logFile, "utf8");
  throw new Error(`${command} ended with ${signalCode ?? `code ${exitCode}`}:\n${log.slice(-2000)}`);
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function signalOne(pid: number | undefined, signal: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(pid, signal);
  } catch {
    // It ended in the meantime.
  }
}

/**
 * The server's processes, which work in its folder. Postgres serves each client in one of its own, and they outlive their
 * parent for a moment: as long as one of them has the shared memory, no new server may start.
 */
async function processesOf(child: ChildProcess, folder: string): Promise<number[]> {
  const own = child.pid === undefined || hasEnded(child) ? [] : [child.pid];
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name)).map(Number);
  const cwds = await Promise.all(pids.map(workingFolder));
  const inside = pids.filter((_pid, index) => cwds[index] === folder || cwds[index]?.startsWith(`${folder}/`));
  return [...new Set([...own, ...inside])];
}

/** A process that has ended has none. */
async function workingFolder(pid: number): Promise<string> {
  return await readlink(`/proc/${pid}/cwd`).catch(() => "");
}
