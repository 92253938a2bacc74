import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, symlink } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { request } from "undici";
import { compileCache } from "./broker-process.ts";
import { until } from "./patience.ts";
import { guard, temporaryFolder } from "./services/guardian.ts";

const project = fileURLToPath(new URL("../../", import.meta.url));

type Options = {
  port: number;
  /** Nothing but the port and where programs are, unless named here. */
  env?: Record<string, string>;
  /** Run by npm in a terminal of its own, as a person does. */
  terminal?: boolean;
};

/** A folder from which the broker starts as from a fresh clone: its data is not there yet. Removed when the test ends. */
export async function freshFolder(): Promise<string> {
  const { path } = await temporaryFolder("first-start");
  for (const name of ["bin", "package.json"]) await symlink(join(project, name), join(path, name));
  return path;
}

/** The command of `npm start`, run in `folder` as npm runs it. It never outlives the test file. */
export class FirstStart implements AsyncDisposable {
  readonly folder: string;
  readonly url: string;
  /** What a person sees: in a terminal, both streams. */
  stdout = "";
  stderr = "";
  readonly #child: ChildProcess;

  private constructor(folder: string, url: string, child: ChildProcess) {
    this.folder = folder;
    this.url = url;
    this.#child = child;
    child.stdout?.setEncoding("utf8").on("data", (chunk: string) => (this.stdout += chunk));
    child.stderr?.setEncoding("utf8").on("data", (chunk: string) => (this.stderr += chunk));
    if (child.pid !== undefined) child.once("exit", guard({ kind: "process", pid: child.pid }));
  }

  static async launch(folder: string, { port, env = {}, terminal = false }: Options): Promise<FirstStart> {
    const [program, args] = terminal
      ? ["script", ["-qec", "exec npm start", "/dev/null"]]
      : ["sh", ["-c", await startCommand()]];
    const child = spawn(program, args, {
      cwd: folder,
      env: { ...quietNpm(folder), PATH: programPath(), PORT: String(port), ...env },
      stdio: ["pipe", "pipe", "pipe"],
      detached: true, // a process group of its own, which can be asked for what is left of it
    });
    return new FirstStart(folder, `http://localhost:${port}`, child);
  }

  /** Waits until `/readyz` answers 200 and the first steps stand there. @throws when it ends instead */
  async ready(): Promise<this> {
    await until("the first steps", async () => {
      if (this.#child.exitCode !== null) throw new Error(`not ready: ${this.stderr}${this.stdout}`);
      return (await statusOf(`${this.url}/readyz`)) === 200 && this.stdout.includes("curl ");
    });
    return this;
  }

  /** The consent link that was printed; null: none. */
  get link(): string | null {
    return /http:\/\/\S+\/connect\/\S+/.exec(this.stdout)?.[0] ?? null;
  }

  /** The line to paste. */
  get curl(): string {
    return /^\s*(curl .*?)\s*$/m.exec(this.stdout)?.[1] ?? "";
  }

  /** Pastes a line into a shell in the folder. @returns what it prints to stdout */
  async paste(line: string): Promise<string> {
    const shell = spawn("bash", ["-c", line], {
      cwd: this.folder,
      env: { PATH: programPath() },
      stdio: ["ignore", "pipe", "ignore"],
    });
    return await text(shell.stdout);
  }

  /** Ctrl-C, by the terminal where there is one. @returns the exit code; null after a signal that nobody handled */
  async interrupt(): Promise<number | null> {
    if (this.#child.spawnfile === "script") this.#child.stdin?.write("\u0003");
    else await this.#interruptTwice();
    return await this.ended();
  }

  /** Sends the signal twice, as a command under npm gets it: from the terminal, and then from npm, which passes on its own. */
  async #interruptTwice(): Promise<void> {
    this.#child.kill("SIGINT");
    await sleep(20);
    this.#child.kill("SIGINT");
  }

  /** The broker itself, unless a terminal runs it: the shell of `npm start` has become it. */
  get process(): ChildProcess {
    return this.#child;
  }

  async ended(): Promise<number | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, "close");
    return this.#child.exitCode;
  }

  /** Whether any process of its group still runs. */
  get hasLeftovers(): boolean {
    try {
      return process.kill(-(this.#child.pid ?? 0), 0);
    } catch {
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.ended();
  }
}

/** npm keeps its own files in the folder, and does not look for a newer version of itself. */
function quietNpm(folder: string): Record<string, string> {
  const npm = { npm_config_cache: join(folder, "npm"), npm_config_update_notifier: "false" };
  return { HOME: folder, ...npm, NODE_COMPILE_CACHE: compileCache };
}

async function startCommand(): Promise<string> {
  const { scripts } = JSON.parse(await readFile(join(project, "package.json"), "utf8")) as {
    scripts: { start: string };
  };
  return scripts.start;
}

/** As in a script of npm: the project's own Node comes first. */
function programPath(): string {
  return [dirname(process.execPath), process.env["PATH"]].join(delimiter);
}

async function statusOf(url: string): Promise<number | null> {
  try {
    const answer = await request(url, { reset: true });
    await answer.body.dump();
    return answer.statusCode;
  } catch {
    return null;
  }
}
