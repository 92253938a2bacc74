import type { ChildProcess } from "node:child_process";
import { readFile } from "node:fs/promises";
import { expect } from "vitest";

/** SIGUSR1 is signal 10 on Linux. */
const sigusr1 = 1n << 9n;

/** A running broker that no signal opens a debugger in, and that leaves no core dump. Elsewhere than on Linux only the signal is sent. */
export async function expectClosed(broker: ChildProcess, url: string): Promise<void> {
  if (process.platform === "win32") return;
  broker.kill("SIGUSR1");
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  if (process.platform !== "linux") return;
  const status = await readFile(`/proc/${broker.pid}/status`, "utf8");
  const [, blocked = "0"] = /^SigBlk:\s*([0-9a-f]+)$/m.exec(status) ?? [];
  expect(BigInt(`0x${blocked}`) & sigusr1).toBe(sigusr1);
  const limits = await readFile(`/proc/${broker.pid}/limits`, "utf8");
  expect(limits).toMatch(/^Max core file size +0 +0 /m);
}
