import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** What a failpoint does to the process that comes to it. */
export type FailpointAction = {
  /**
   * `kill`: SIGKILL to itself. `stop`: SIGSTOP to itself; after a SIGCONT all go on, and it acts no more. `throw`: an
   * error. `delay`: `delayMs` more. `hold`: stands there until the failpoint is set otherwise.
   */
  action: "kill" | "stop" | "throw" | "delay" | "hold";
  /**
   * It acts at the arrival with this number, or at the first one. If it kills or stops, earlier arrivals wait there, so that many
   * connections stand at the same place. A synchronous failpoint lets earlier arrivals pass, and so do the other actions.
   */
  after?: number;
  delayMs?: number;
};

/** By the name in the comment; names that are left out do nothing. */
export type Failpoints = Readonly<Record<string, FailpointAction>>;

export type FoundFailpoint = { name: string; isSync: boolean; file: string; line: number };

const comment = /^([ \t]*)\/\/ failpoint( \(sync\))?: (\S.*?)[ \t]*$/gm;

/** Puts a call in the place of each comment `// failpoint: name` or `// failpoint (sync): name`; lines keep their numbers. */
export function armFailpoints(source: string): string {
  return source.replace(comment, (line: string) => {
    const [, indent = "", sync, name] = new RegExp(comment).exec(line) ?? [];
    const call = sync === undefined ? "await globalThis.failpoint" : "globalThis.failpointSync";
    return `${indent}${call}(${JSON.stringify(name)});`;
  });
}

/** Every failpoint under a folder, with the file as seen from there. */
export function findFailpoints(folder: string): FoundFailpoint[] {
  return globSync("**/*.ts", { cwd: folder }).flatMap((file) => {
    const source = readFileSync(join(folder, file), "utf8");
    return [...source.matchAll(comment)].map(([, , sync, name = ""], at, all) => ({
      name,
      isSync: sync !== undefined,
      file,
      line: source.slice(0, all[at]?.index).split("\n").length,
    }));
  });
}
