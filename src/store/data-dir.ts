import { randomBytes } from "node:crypto";
import { chmod, lstat, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { StartupError, whyNotOnDisk } from "../errors.ts";

/** DATA_DIR, locked by this process until it ends. */
export type DataDir = {
  readonly path: string;
  readonly embeddedDatabase: string;
  /** The folder of spooled answers. */
  readonly spool: string;
  /** The file of marks. */
  readonly marks: string;
  /** The folder of audit entries that the database does not have yet. */
  readonly audit: string;
  /** The file that says that this folder has seen a database of the sealed format. */
  readonly sealedFormat: string;
  /** What others of this machine could read, each as a sentence for the log. */
  readonly opened: readonly string[];
  /** Reads a secret from the folder, or makes it on first use, readable by this user only. */
  secret(name: string, make: () => string): Promise<{ value: string; path: string; isNew: boolean }>;
  release(): void;
};

/**
 * Locks the folder for this process, and closes it to other users of the machine.
 * @throws StartupError when it cannot be written, when another process has locked it, or when others can read a secret in it
 */
export async function holdDataDir(path: string): Promise<DataDir> {
  let lock: DatabaseSync;
  let opened: string[];
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    opened = await closeToOthers(path);
    lock = new DatabaseSync(join(path, "lock"));
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError(`DATA_DIR ${path} cannot be written ${whyNotOnDisk(error)}`);
  }
  takeLock(lock, path);
  held.add(lock);
  return {
    path,
    opened,
    embeddedDatabase: join(path, "database"),
    spool: join(path, "spool"),
    marks: join(path, "marks"),
    audit: join(path, "audit"),
    sealedFormat: join(path, "sealed-format"),
    secret: async (name, make) => await readOrMake(join(path, name), make),
    release() {
      held.delete(lock);
      lock.close();
    },
  };
}

/** Keeps the lock reachable: the garbage collector would close it, and so unlock the folder. */
const held = new Set<DatabaseSync>();

/** SQLite's exclusive lock is a file lock of the kernel: it ends when the process ends, in whatever way, and only then. */
function takeLock(lock: DatabaseSync, path: string): void {
  try {
    lock.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    lock.close();
    const isBusy = (error as SqliteError).errcode === sqliteBusy;
    throw new StartupError(
      isBusy
        ? `DATA_DIR ${path} is held by another broker process; each needs a folder of its own: stop that one, or set DATA_DIR`
        : `DATA_DIR ${path} cannot be locked ${whyNotOnDisk(error)}`,
    );
  }
}

type SqliteError = NodeJS.ErrnoException & { errcode?: number };
const sqliteBusy = 5;

async function readOrMake(path: string, make: () => string) {
  try {
    return { value: (await readFile(path, "utf8")).trim(), path, isNew: false };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      throw new StartupError(`${path} cannot be read ${whyNotOnDisk(error)}`);
    }
  }
  const value = make();
  const draft = `${path}.${randomBytes(4).toString("hex")}`;
  try {
    await writeFile(draft, `${value}\n`, { mode: 0o600, flush: true });
    await rename(draft, path); // a start that is killed here leaves no half-written secret
  } catch (error) {
    throw new StartupError(`${path} cannot be written ${whyNotOnDisk(error)}`);
  }
  return { value, path, isNew: true };
}

/** Readable text: with one of them somebody does all that the broker can. What else lies there is sealed. */
const secretFiles = ["admin-key", "encryption-key"];

/**
 * Takes the rights of others away from the folder and the secrets in it, where this user may. A folder of another owner is a volume whose
 * group lets the broker in (`fsGroup` of Kubernetes), so its group is left alone. Links are left alone: what they lead to belongs to
 * whoever made them. Windows has no such rights. Returns what was open.
 */
async function closeToOthers(folder: string): Promise<string[]> {
  const user = process.getuid?.();
  if (user === undefined) return [];
  const { mode, uid } = await stat(folder);
  const isShared = uid !== user && (mode & 0o007) !== 0;
  const told = isShared ? [openFolder({ folder, mode, uid })] : uid === user ? await close(folder, mode, 0o700) : [];
  for (const name of secretFiles) {
    const path = join(folder, name);
    const file = await lstat(path).catch(() => null); // it is made later, or its reader says why it cannot be read
    if (file === null || !file.isFile()) continue;
    const { mode: rights, uid: owner } = file;
    if (owner === user) told.push(...(await close(path, rights, 0o600)));
    else if (isShared && (rights & 0o007) !== 0) throw new StartupError(openSecret({ path, user, rights, owner }));
  }
  return told;
}

async function close(path: string, mode: number, closed: number): Promise<string[]> {
  if ((mode & 0o077) === 0) return [];
  await chmod(path, closed);
  const remedy = closed === 0o600 ? "; if somebody else uses this machine, replace what it holds" : "";
  return [
    `${path} was open to other users of this machine (${octal(mode)}), and is closed now (${octal(closed)})${remedy}`,
  ];
}

function openFolder({ folder, mode, uid }: { folder: string; mode: number; uid: number }): string {
  const remedy = "nobody else is there in a container; elsewhere give it to the broker's user, with mode 0700";
  return `DATA_DIR ${folder} belongs to user ${uid} and is open to every user of this machine (${octal(mode)}): ${remedy}`;
}

function openSecret(file: { path: string; rights: number; owner: number; user: number }): string {
  const { path, rights, owner, user } = file;
  const remedy = `run chown ${user} and chmod 600 on it, and replace what it holds if somebody else uses this machine`;
  return `${path} can be read by every user of this machine (${octal(rights)}), and belongs to user ${owner}: ${remedy}`;
}

function octal(mode: number): string {
  return `0${(mode & 0o777).toString(8).padStart(3, "0")}`;
}
