import { Worker } from "node:worker_threads";
import type { Tasks } from "./tasks.ts";

const workerFile = new URL("worker.ts", import.meta.url);

/** Does a task of the simulator in a thread of its own, since it leaves its event loop no time for anything else. */
export function simulate<Name extends keyof Tasks>(
  name: Name,
  given: Parameters<Tasks[Name]>[0],
): Promise<Awaited<ReturnType<Tasks[Name]>>> {
  const worker = new Worker(workerFile, { workerData: { name, given } });
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", (code) => reject(new Error(`the simulation ended with ${code} and no result`)));
  });
}
