import { setTimeout as sleep } from "node:timers/promises";
import { openTerminal } from "./output.ts";
import { runFreshet } from "./program.ts";

// If the reader closes the pipe (`| head`), that is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

void runFreshet(process.argv.slice(2), {
  terminal: openTerminal(process),
  env: process.env,
  nowMs: Date.now,
  sleep: (milliseconds) => sleep(milliseconds),
}).then((code) => (process.exitCode = code));
