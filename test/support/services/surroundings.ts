import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, readFile, readdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { type ServiceKind, type Source, type Surroundings, chooseSource, remedyFor, urlVariable } from "./choice.ts";

const run = promisify(execFile);
const debianPostgres = "/usr/lib/postgresql";

/** Looks at this machine and its environment for one service. */
export async function surroundingsOf(kind: ServiceKind): Promise<Surroundings> {
  return {
    url: process.env[urlVariable(kind)],
    dockerEngine: await hasDockerEngine(),
    programFolder: await findProgramFolder(kind),
    mayInstall: await mayInstall(),
  };
}

/**
 * Installs what an `apt-get` source names and returns the source that it became: programs, or nowhere when the
 * installation failed.
 */
export async function install(kind: ServiceKind, source: Source): Promise<Source> {
  if (source.from !== "apt-get") return source;
  const installed = await aptInstall(source.packageName);
  if (!installed) return { from: "nowhere", remedy: remedyFor(kind) };
  return chooseSource(kind, {
    dockerEngine: false,
    programFolder: await findProgramFolder(kind),
    mayInstall: false,
  });
}

/** Runs `apt-get update` and `apt-get install -y` for one package, without what it only recommends. False when it failed, its reason on stderr. */
export async function aptInstall(packageName: string): Promise<boolean> {
  process.stderr.write(`tests: installing the Debian package ${packageName} with apt-get\n`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  try {
    await run("apt-get", ["update", "-q"], { env });
    await run("apt-get", ["install", "-y", "-q", "--no-install-recommends", packageName], {
      env,
      maxBuffer: 64 * 1024 * 1024,
    });
    return true;
  } catch (error) {
    process.stderr.write(
      `tests: apt-get could not install ${packageName}: ${String(error).trim().split("\n").at(-1)}\n`,
    );
    return false;
  }
}

/** Root on Debian or Ubuntu: the only place where the suite installs anything. */
export async function mayInstall(): Promise<boolean> {
  if (process.getuid?.() !== 0 || !(await findOnPath("apt-get"))) return false;
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  return /^ID(_LIKE)?=.*(debian|ubuntu)/m.test(release);
}

/** The full path of a program on the PATH. */
export async function findOnPath(program: string): Promise<string | undefined> {
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    if (folder && (await isProgram(join(folder, program)))) return join(folder, program);
  }
  return undefined;
}

let engine: Promise<boolean> | undefined;

function hasDockerEngine(): Promise<boolean> {
  // Loaded only here: every test that looks for a program loads this file.
  engine ??= import("testcontainers")
    .then(async ({ getContainerRuntimeClient }) => await getContainerRuntimeClient())
    .then(
      () => true,
      () => false,
    );
  return engine;
}

async function findProgramFolder(kind: ServiceKind): Promise<string | undefined> {
  if (kind === "redis") return folderHolding(pathFolders(), ["redis-server"]);
  return folderHolding([...pathFolders(), ...(await postgresFolders())], ["postgres", "initdb"]);
}

function pathFolders(): string[] {
  return (process.env["PATH"] ?? "").split(delimiter).filter(Boolean);
}

/** Debian keeps the server's programs in a versioned folder off the PATH; the newest comes first. */
async function postgresFolders(): Promise<string[]> {
  const named = await run("pg_config", ["--bindir"]).then(
    ({ stdout }) => [stdout.trim()],
    () => [],
  );
  const versions = await readdir(debianPostgres).catch(() => []);
  const sorted = versions.sort((a, b) => Number(b) - Number(a));
  return [...named, ...sorted.map((version) => join(debianPostgres, version, "bin"))];
}

async function folderHolding(folders: string[], names: string[]): Promise<string | undefined> {
  for (const folder of folders) {
    const found = await Promise.all(names.map((name) => isProgram(join(folder, name))));
    if (found.every(Boolean)) return folder;
  }
  return undefined;
}

export function isProgram(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}
