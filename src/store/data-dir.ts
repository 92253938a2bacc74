import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { StartupError } from "../errors.ts";
import { whyNotOnDisk } from "../unreachable.ts";

/** The broker's own folder, held by this process until it ends. */
export type DataDir = {
  readonly path: string;
  readonly embeddedDatabase: string;
  /** Answers that Postgres could not take yet. */
  readonly spool: string;
  /** What has been stored, remembered outside of the database. */
  readonly marks: string;
  /** Where it is remembered that this folder has seen a database of the sealed format. */
  readonly sealedFormat: string;
  /** Reads a secret kept in the folder, or makes it on first use, readable by this user only. */
  secret(name: string, make: () => string): Promise<{ value: string; path: string; isNew: boolean }>;
  release(): void;
};

/**
 * Takes the folder for this process alone.
 * @throws StartupError when it cannot be written, or another process holds it.
 */
export async function holdDataDir(path: string): Promise<DataDir> {
  let lock: DatabaseSync;
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    lock = new DatabaseSync(join(path, "lock"));
  } catch (error) {
    throw new StartupError(`DATA_DIR ${path} cannot be written ${whyNotOnDisk(error)}`);
  }
  takeLock(lock, path);
  held.add(lock);
  return {
    path,
    embeddedDatabase: join(path, "database"),
    spool: join(path, "spool"),
    marks: join(path, "marks"),
    sealedFormat: join(path, "sealed-format"),
    secret: async (name, make) => await readOrMake(join(path, name), make),
    release() {
      held.delete(lock);
      lock.close();
    },
  };
}

/** The garbage collector would close a lock, and so free the folder, that nothing leads to any more. */
const held = new Set<DatabaseSync>();

/** SQLite's exclusive lock is the kernel's file lock: it ends with the process, however that ends, and no other way. */
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
    await rename(draft, path); // a start that dies in between leaves no half-written secret
  } catch (error) {
    throw new StartupError(`${path} cannot be written ${whyNotOnDisk(error)}`);
  }
  return { value, path, isNew: true };
}
