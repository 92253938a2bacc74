import { execFile, spawn } from "node:child_process";
import { chmod, copyFile, cp, lstat, mkdir, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { hangMs } from "../support/patience.ts";
import { installOnce, linkInstalled } from "./installed.ts";
import { lastRest, readDockerfile, readEnv, type Instruction, type Stage } from "./read-dockerfile.ts";

const project = fileURLToPath(new URL("../..", import.meta.url));
/** The earlier stage's. What runs in the image is always what npm has installed of these very files. */
const installAll = "npm ci --ignore-scripts";
const run = promisify(execFile);
const asRoot = process.getuid?.() === 0;

/** The image's last stage on disk, ready to run. `root` stands for the image's `/`. */
export type PlayedImage = {
  stage: Stage;
  root: string;
  /** What the image sets, with its paths under `root`, and a PATH that holds its programs and the system's. */
  env: Record<string, string>;
  workdir: string;
  /** Whom the image runs as, where this process may choose. */
  user: { uid?: number; gid?: number };
  [Symbol.asyncDispose]: () => Promise<void>;
};

/** Does what `docker build` would do with this project's Dockerfile, by its own commands, in a folder of its own. */
export async function playImage(): Promise<PlayedImage> {
  const folder = await mkdtemp(join(tmpdir(), "freshet-image-"));
  // The image's user must be able to enter this folder, as it can enter a container's `/`.
  await chmod(folder, 0o755);
  const context = join(folder, "context");
  await copyContext(context);
  const path = await installNode(join(folder, "node"));
  const stages = readDockerfile(await readFile(join(project, "Dockerfile"), "utf8"));
  const stage = stages.pop();
  if (stage === undefined) throw new Error("The Dockerfile has no stage");
  // The earlier stages know nothing of each other, and a builder runs them side by side too.
  await Promise.all(stages.map(async (earlier) => playStage(earlier, { folder, context, path })));
  await playStage(stage, { folder, context, path });
  const root = join(folder, stage.name);
  const [uid = 0, gid = 0] = lastRest(stage, "USER").split(":").map(Number);
  return {
    stage,
    root,
    env: placeEnv(readEnv(stage, path), root),
    workdir: join(root, lastRest(stage, "WORKDIR")),
    user: asRoot ? { uid, gid } : {},
    [Symbol.asyncDispose]: async () => {
      await setWritable(folder, true);
      await rm(folder, { recursive: true });
    },
  };
}

/** Takes or gives the right to write, for everybody and everything below. */
export async function setWritable(folder: string, writable: boolean): Promise<void> {
  await run("chmod", ["-R", writable ? "u+w" : "a-w", folder]);
}

/** The base image has Node and the system's programs; nothing of this project's own `node_modules`. */
async function installNode(folder: string): Promise<string> {
  await mkdir(folder);
  await copyFile(process.execPath, join(folder, "node"));
  await chmod(join(folder, "node"), 0o755);
  const inherited = (process.env["PATH"] ?? "").split(":").filter((entry) => !entry.includes("node_modules"));
  return [folder, ...inherited].join(":");
}

type Surroundings = { folder: string; context: string; path: string };

async function playStage(stage: Stage, surroundings: Surroundings): Promise<void> {
  const root = join(surroundings.folder, stage.name);
  let workdir = root;
  for (const instruction of stage.instructions) {
    if (instruction.name === "WORKDIR") {
      workdir = join(root, instruction.rest);
      await mkdir(workdir, { recursive: true });
    }
    if (instruction.name === "COPY") await playCopy(instruction, { ...surroundings, root, workdir });
    if (instruction.name === "RUN") await playRun(instruction.rest, workdir, surroundings.path);
  }
}

async function playCopy({ rest, flags }: Instruction, { folder, context, root, workdir }: Surroundings & Places) {
  const sources = rest.split(/\s+/);
  const destination = sources.pop() ?? "";
  const into = destination.startsWith("/") ? join(root, destination) : join(workdir, destination);
  for (const source of sources) {
    const from = join(flags["from"] === undefined ? context : join(folder, flags["from"]), source);
    // A folder's content is copied, a file goes into a folder whose name ends in a slash.
    const target = (await stat(from)).isFile() && destination.endsWith("/") ? join(into, basename(from)) : into;
    await mkdir(dirname(target), { recursive: true });
    await copy(from, target, { mayLink: flags["from"] !== undefined });
    await applyFlags(target, flags);
  }
}

type Places = { root: string; workdir: string };

async function applyFlags(target: string, flags: Record<string, string>): Promise<void> {
  if (flags["chmod"] !== undefined) await run("chmod", ["-R", flags["chmod"], target]);
  if (asRoot && flags["chown"] !== undefined) await run("chown", ["-R", flags["chown"], target]);
}

/**
 * The programs of the system walk 20,000 files in a tenth of the time; links stay links. `mayLink`: nobody needs the original any more, so its
 * files get second names in place of copies, unless they are what `installOnce` keeps.
 */
async function copy(from: string, target: string, { mayLink }: { mayLink: boolean }): Promise<void> {
  const isFolder = (await stat(from)).isDirectory();
  if (isFolder) await mkdir(target, { recursive: true });
  const how = mayLink && !(await lstat(from)).isSymbolicLink() ? ["--link"] : [];
  await run("cp", ["-R", "-P", "--preserve=mode,timestamps", ...how, isFolder ? `${from}/.` : from, target]);
}

async function playRun(command: string, workdir: string, path: string): Promise<void> {
  if (command === installAll && (await linkInstalled(workdir))) return;
  const runIt = async () => await runInStage(command, workdir, path);
  await (command.startsWith("npm ci ") ? installOnce(command, workdir, runIt) : runIt());
}

/** In a container these commands have the disk to themselves; here one with an absolute path would hit this machine's. */
async function runInStage(command: string, workdir: string, path: string): Promise<void> {
  if (/(^|[\s"'=])\//.test(command)) throw new Error(`Not played, it names an absolute path: RUN ${command}`);
  const child = spawn("sh", ["-c", command], {
    cwd: workdir,
    env: buildEnv(path),
    stdio: ["ignore", "pipe", "pipe"],
    timeout: hangMs,
  });
  const [out, err, exitCode] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => void child.once("exit", resolve)),
  ]);
  if (exitCode !== 0) throw new Error(`RUN ${command} ended with ${String(exitCode)}:\n${out}\n${err}`);
}

/** A builder's environment: the machine's way to the registry, nothing of the test run that this is part of. */
function buildEnv(path: string): NodeJS.ProcessEnv {
  const foreign =
    /^(npm_(?!config_(registry|.*proxy|cafile|cache))|NODE_(ENV|OPTIONS|PATH)$|VITEST|INIT_CWD|PRISMA_|DATABASE_URL)/i;
  return { ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name))), PATH: path };
}

function placeEnv(env: Record<string, string>, root: string): Record<string, string> {
  const place = (value: string) => (value.startsWith("/") ? join(root, value) : value);
  return Object.fromEntries(Object.entries(env).map(([name, value]) => [name, place(value)]));
}

/** What the builder gets: .dockerignore's last matching line decides, `!` lets in. */
async function copyContext(context: string): Promise<void> {
  const lines = (await readFile(join(project, ".dockerignore"), "utf8")).split("\n");
  const rules = lines.filter((line) => line !== "" && !line.startsWith("#")).map(readRule);
  const isLetIn = (path: string) => rules.findLast(({ pattern }) => pattern.test(path))?.letsIn ?? true;
  const leadsTo = (path: string) => rules.some(({ letsIn, prefix }) => letsIn && prefix.startsWith(`${path}/`));
  await cp(project, context, {
    recursive: true,
    filter: (source) => {
      const path = relative(project, source);
      return path === "" || isLetIn(path) || leadsTo(path);
    },
  });
}

function readRule(line: string) {
  const letsIn = line.startsWith("!");
  const prefix = letsIn ? line.slice(1) : line;
  const pattern = prefix.replaceAll(/[.+^$()|[\]{}]/g, String.raw`\$&`).replaceAll("*", "[^/]*");
  return { letsIn, prefix: `${prefix}/`, pattern: new RegExp(`^${pattern}(/|$)`) };
}
