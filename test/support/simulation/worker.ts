import { parentPort } from "node:worker_threads";
import { tasks, type Tasks } from "./tasks.ts";

type Message = { name: keyof Tasks; given: unknown };

/** The thread's side of `simulate`. An error ends the thread. */
parentPort?.on("message", ({ name, given }: Message) => {
  const task = tasks[name] as (given: unknown) => Promise<unknown>;
  void task(given).then((result) => parentPort?.postMessage(result, []));
});
