import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/**
 * Lets a running process write nothing more into any file, as on a disk that is full (each write fails with EFBIG), or
 * lets it write again. Pipes and sockets are as before. With prlimit, of Debian's util-linux.
 */
export async function fillDisk(pid: number, isFull: boolean): Promise<void> {
  await run("prlimit", ["--pid", String(pid), `--fsize=${isFull ? "0" : "unlimited"}:unlimited`]);
}
