import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, statfs } from "node:fs/promises";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Something that must not outlive this process. */
export type Ward =
  | { kind: "process"; pid: number }
  | { kind: "folder"; path: string }
  | { kind: "databases"; serverUrl: string; prefix: string };

const program = fileURLToPath(new URL("guardian-process.ts", import.meta.url));
let guardian: ChildProcess | undefined;

/**
 * Makes sure that `ward` is ended or removed when this process ends, in whatever way: another process, in a session of its own, sees the
 * pipe close. Returns a function to call when the ward has gone by itself.
 */
export function guard(ward: Ward): () => void {
  tell({ guard: ward });
  return () => {
    tell({ release: ward });
  };
}

function tell(message: { guard: Ward } | { release: Ward }): void {
  guardian ??= startGuardian();
  guardian.stdin?.write(`${JSON.stringify(message)}\n`);
}

function startGuardian(): ChildProcess {
  const child = spawn(process.execPath, [program], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  child.unref();
  // The pipe must not keep this process alive: the other process waits for its end.
  if (child.stdin instanceof Socket) child.stdin.unref();
  return child;
}

/** A folder that does not outlive this process: in memory where that has room, else under the system's temporary one. */
export async function temporaryFolder(purpose: string): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(await temporaryRoot(), `freshet-${purpose}-`));
  const release = guard({ kind: "folder", path });
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
      release();
    },
  };
}

const memory = "/dev/shm";
/** Ten times what a run leaves there at the most. */
const roomyBytes = 16 * 2 ** 30;
let root: Promise<string> | undefined;

/**
 * A broker waits for its disk at each change, and all brokers of a run share one disk. No test takes the power away, so memory keeps files just as
 * well. What measures speed runs outside of vitest and has a disk.
 */
async function temporaryRoot(): Promise<string> {
  return await (root ??= process.env["VITEST"] === undefined ? Promise.resolve(tmpdir()) : roomiestRoot());
}

async function roomiestRoot(): Promise<string> {
  const { bavail, bsize } = await statfs(memory).catch(() => ({ bavail: 0, bsize: 0 }));
  return bavail * bsize >= roomyBytes ? memory : tmpdir();
}
