import { parentPort, workerData } from "node:worker_threads";
import { tasks, type Tasks } from "./tasks.ts";

/** The thread's side of `simulate`. */
const { name, given } = workerData as { name: keyof Tasks; given: unknown };
const task = tasks[name] as (given: unknown) => Promise<unknown>;
parentPort?.postMessage(await task(given), []);
