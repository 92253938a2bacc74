import { readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

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

/** What stands in a lock file; npm keeps one of what it has installed. */
async function readLock(path: string): Promise<Packages> {
  return (JSON.parse(await readFile(path, "utf8")) as { packages: Packages }).packages;
}
