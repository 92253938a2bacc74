import { readFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { FailpointAction, Failpoints } from "./failpoints.ts";

declare global {
  var failpoint: ((name: string) => Promise<void>) | undefined;
  var failpointSync: ((name: string) => void) | undefined;
}

const holdPollMs = 20;

/** What has come to one failpoint since it was set. */
type Place = { arrivals: number; isSpent: boolean; released: PromiseWithResolvers<void> };

/**
 * Makes the calls that `armFailpoints` writes. `setting`: the failpoints as JSON, or `@` and the path of a file that holds them and is read
 * anew at each arrival; if it changes, arrivals are counted anew.
 */
export function installFailpoints(setting: () => string): void {
  let text = "";
  let points: Failpoints = {};
  let places = new Map<string, Place>();
  const find = (name: string): { point: FailpointAction; place: Place } | null => {
    const now = read(setting());
    if (now !== text) [text, points, places] = [now, JSON.parse(now || "{}") as Failpoints, new Map()];
    const point = points[name];
    if (point === undefined) return null;
    const place = places.get(name) ?? { arrivals: 0, isSpent: false, released: Promise.withResolvers<void>() };
    places.set(name, place);
    return { point, place };
  };

  globalThis.failpoint = async (name) => {
    const found = find(name);
    if (found === null || found.place.isSpent) return;
    const { point, place } = found;
    const isDue = ++place.arrivals >= (point.after ?? 1);
    if (!isDue) return point.action === "kill" || point.action === "stop" ? await place.released.promise : undefined;
    if (point.action === "delay") await sleep(point.delayMs);
    else if (point.action === "hold") while (find(name)?.place === place) await sleep(holdPollMs);
    else strike(name, found);
  };

  globalThis.failpointSync = (name) => {
    const found = find(name);
    if (found === null || found.place.isSpent) return;
    if (++found.place.arrivals >= (found.point.after ?? 1)) strike(name, found);
  };
}

function strike(name: string, { point, place }: { point: FailpointAction; place: Place }): void {
  const { action, delayMs = 0 } = point;
  if (action === "throw") throw new Error(`failpoint "${name}"`);
  if (action !== "kill" && action !== "stop") return standStill(delayMs);
  writeSync(2, `failpoint "${name}": ${action}, ${place.arrivals} arrived\n`);
  process.kill(process.pid, action === "kill" ? "SIGKILL" : "SIGSTOP");
  // The signal may take its time to reach all threads.
  standStill(action === "kill" ? Infinity : 50);
  place.isSpent = true;
  place.released.resolve();
}

/** The whole process waits. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function read(setting: string): string {
  return setting.startsWith("@") ? readFileSync(setting.slice(1), "utf8") : setting;
}
