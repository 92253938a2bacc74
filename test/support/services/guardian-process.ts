import { rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { dropDatabases } from "./databases.ts";
import type { Ward } from "./guardian.ts";

/** Runs apart from the tests: keeps what it is told to keep, and ends all of it when the pipe to its owner closes. */
const wards = new Map<string, Ward>();

for await (const line of createInterface({ input: process.stdin })) {
  const message: { guard: Ward } | { release: Ward } = JSON.parse(line);
  if ("guard" in message) wards.set(JSON.stringify(message.guard), message.guard);
  else wards.delete(JSON.stringify(message.release));
}

const all = [...wards.values()];
for (const ward of all) if (ward.kind === "process") kill(ward.pid);
await Promise.allSettled(all.map(remove));

async function remove(ward: Ward): Promise<void> {
  if (ward.kind === "folder") await rm(ward.path, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
  if (ward.kind === "databases") await dropDatabases(ward.serverUrl, ward.prefix);
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Already gone, which is what was wanted.
  }
}
