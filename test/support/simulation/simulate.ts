import { Worker } from "node:worker_threads";
import type { Tasks } from "./tasks.ts";

const workerFile = new URL("worker.ts", import.meta.url);
/** Threads that have done their task: the next one need not load the sources again. */
const idle: Worker[] = [];

/** Does a task of the simulator in a thread of its own, since it leaves its event loop no time for anything else. */
export async function simulate<Name extends keyof Tasks>(
  name: Name,
  given: Parameters<Tasks[Name]>[0],
): Promise<Awaited<ReturnType<Tasks[Name]>>> {
  const worker = idle.pop() ?? new Worker(workerFile);
  const { promise, resolve, reject } = Promise.withResolvers<Awaited<ReturnType<Tasks[Name]>>>();
  const onExit = (code: number) => reject(new Error(`the simulation ended with ${code} and no result`));
  worker.once("message", resolve).once("error", reject).once("exit", onExit);
  worker.ref();
  worker.postMessage({ name, given }, []);
  const result = await promise;
  worker.off("error", reject).off("exit", onExit);
  worker.unref();
  idle.push(worker);
  return result;
}
