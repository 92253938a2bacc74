import { writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

// Given to a process with `--import`: on SIGUSR2 it collects all garbage and says on stderr what is left.
process.on("SIGUSR2", () => void measure());

async function measure(): Promise<void> {
  // Only now: a process that starts with this flag discards code that was compiled without it.
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  for (let time = 0; time < 3; time++) {
    collect();
    await sleep(50); // finalizers free what is outside of the heap
  }
  const { heapUsed, external } = process.memoryUsage();
  writeSync(2, `heap probe ${JSON.stringify({ heapUsed, external })}\n`);
}
