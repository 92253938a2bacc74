import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const installed = fileURLToPath(new URL("../../node_modules", import.meta.url));

type Locked = { integrity?: string; optional?: boolean };
type Packages = Record<string, Locked>;

/**
 * In place of `npm ci` of everything, half a minute of work: a link to the checkout's own folder.
 * @returns false where that holds anything else than the lock file in `workdir` says; then nothing is done
 */
export async function linkInstalled(workdir: string): Promise<boolean> {
  const [wanted, found] = await Promise.all([
    readLock(join(workdir, "package-lock.json")),
    readLock(join(installed, ".package-lock.json")).catch((): Packages => ({})),
  ]);
  const isAsWanted = ([path, { integrity, optional = false }]: [string, Locked]) =>
    path === "" || (path in found ? found[path]?.integrity === integrity : optional);
  if (!Object.entries(wanted).every(isAsWanted)) return false;
  await symlink(installed, join(workdir, "node_modules"));
  return true;
}

/**
 * Runs a command that installs, in a folder that holds nothing but what it reads. What it has installed is kept, and linked to for as
 * long as command, files and Node are the same.
 */
export async function installOnce(command: string, workdir: string, install: () => Promise<void>): Promise<void> {
  const made = createHash("sha256").update(JSON.stringify([command, process.version, process.arch]));
  const entries = await readdir(workdir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  for (const file of files.sort()) made.update(file.slice(workdir.length)).update(await readFile(file));
  const kept = join(installed, ".cache", "installed");
  const own = join(kept, made.digest("hex").slice(0, 16));
  if (!existsSync(own)) {
    await install();
    await rm(kept, { recursive: true, force: true });
    await mkdir(kept, { recursive: true });
    const draft = join(kept, randomUUID());
    await promisify(execFile)("cp", ["-a", join(workdir, "node_modules"), draft]);
    await rename(draft, own);
    return;
  }
  await symlink(own, join(workdir, "node_modules"));
}

/** What stands in a lock file; npm keeps one of what it has installed. */
async function readLock(path: string): Promise<Packages> {
  return (JSON.parse(await readFile(path, "utf8")) as { packages: Packages }).packages;
}
