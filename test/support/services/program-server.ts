import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { guard } from "./guardian.ts";
import { type PrivateServer, untilAnswering } from "./private-server.ts";

export type ProgramServerOptions = {
  url: string;
  command: string;
  args: string[];
  /** Removed when the server is disposed of. */
  folder: { remove(): Promise<void> };
  logFile: string;
  owner: { uid?: number; gid?: number };
  /** The signal of an orderly end: Postgres calls SIGINT "fast", Redis wants SIGTERM. */
  stopSignal: NodeJS.Signals;
  ping(): Promise<void>;
};

/** A server run from a program of this machine. */
export async function startProgramServer(options: ProgramServerOptions): Promise<PrivateServer> {
  let running = await launch(options);
  const end = (signal: NodeJS.Signals) => endProcess(running, signal);
  return {
    url: options.url,
    stop: () => end(options.stopSignal),
    kill: () => end("SIGKILL"),
    pause: () => signalAll(running, "SIGSTOP"),
    resume: () => signalAll(running, "SIGCONT"),
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
  const child = spawn(options.command, options.args, { ...options.owner, stdio: ["ignore", log, log], detached: true });
  closeSync(log);
  child.unref();
  const failed = new Promise<never>((_resolve, reject) => {
    child.once("error", reject);
  });
  if (child.pid === undefined) return await failed;
  const release = guard({ kind: "process", pid: child.pid });
  child.once("exit", release);
  await untilAnswering(async () => {
    if (child.exitCode !== null) await explain(options, child.exitCode);
    await options.ping();
  });
  return child;
}

/** A server that ended at once says why in its log; asking on would hide it. */
async function explain(options: ProgramServerOptions, exitCode: number): Promise<never> {
  const log = await readFile(options.logFile, "utf8");
  throw new Error(`${options.command} ended with code ${exitCode}:\n${log.slice(-2000)}`);
}

async function endProcess(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => {
      resolve();
    });
  });
  child.ref();
  // A frozen server takes no orderly signal before it runs again.
  if (signal !== "SIGKILL") await signalAll(child, "SIGCONT");
  await (signal === "SIGKILL" ? signalAll(child, signal) : signalOne(child.pid, signal));
  await exited;
}

/** Postgres serves each client in a process of its own; freezing or killing its parent alone would let those go on. */
async function signalAll(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const children = await childrenOf(child.pid);
  signalOne(child.pid, signal);
  for (const pid of children) signalOne(pid, signal);
}

function signalOne(pid: number | undefined, signal: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(pid, signal);
  } catch {
    // It ended in the meantime.
  }
}

async function childrenOf(pid: number | undefined): Promise<number[]> {
  const list = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  return list.trim().split(/\s+/).filter(Boolean).map(Number);
}
