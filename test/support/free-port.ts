import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";

const lowest = 20_000;
const highest = 32_000;
/** Which process was given which port: one file each. Those of processes that have ended count for nothing. */
const folder = join(tmpdir(), `freshet-test-ports-${userInfo().uid}`);

/**
 * A free port of 127.0.0.1, below the range from which the system takes ports for outgoing connections, so that
 * nothing takes it while its server restarts. On a slow machine it takes a server long to listen: until this process
 * ends, no other run of these tests is given the port.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest));
    if (take(port) && (await canListen(port))) return port;
  }
}

function take(port: number): boolean {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, String(port));
  const own = `${file}.${process.pid}`;
  writeFileSync(own, String(process.pid));
  try {
    if (!isHeld(file)) rmSync(file, { force: true });
    linkSync(own, file); // fails where the file is there
    return true;
  } catch {
    return false;
  } finally {
    rmSync(own, { force: true });
  }
}

function isHeld(file: string): boolean {
  try {
    return process.kill(Number(readFileSync(file, "utf8")), 0);
  } catch {
    return false;
  }
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => {
      resolve(false);
    });
    server.listen(port, "127.0.0.1", () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}
