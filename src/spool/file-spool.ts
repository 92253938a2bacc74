import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { eachAlone } from "../each-alone.ts";
import { keyOf, nameOf, type SpoolEntry, type SpoolKey, type SpoolPlace } from "./spool.ts";

type FileSpool = SpoolPlace & {
  /** At the start: what a process that has ended left unfinished is finished where it is whole, and else removed. */
  finishParts(isWhole: (entry: SpoolEntry) => boolean): Promise<void>;
};

const unfinished = ".part";

/**
 * Records as files of a folder that this process alone holds, readable by its user only. One file each.
 * @param onError told of a file that cannot be read: the others are listed without it
 */
export function createFileSpool(folder: string, onError: (error: unknown) => void): FileSpool {
  const entryOf = async (name: string): Promise<SpoolEntry[]> => {
    const key = keyOf(name);
    if (key === null) return [];
    try {
      return [{ ...key, record: new Uint8Array(await readFile(join(folder, name))) }];
    } catch (error) {
      if (isMissing(error)) return []; // its answer has just been stored
      throw error;
    }
  };
  const names = async (): Promise<string[]> => {
    try {
      return await readdir(folder);
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  };
  return {
    name: "data_dir",
    async put(entry) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const path = join(folder, nameOf(entry));
      await writeDurably(`${path}${unfinished}`, entry.record);
      // Under its name only when it is whole: a start after a crash in between finds no half record.
      await rename(`${path}${unfinished}`, path);
      await syncFolder(folder);
    },
    async remove(key: SpoolKey) {
      await rm(join(folder, nameOf(key)), { force: true });
    },
    async list() {
      const entries: SpoolEntry[] = [];
      await eachAlone(await names(), async (name) => entries.push(...(await entryOf(name))), { onError });
      return entries;
    },
    async finishParts(isWhole) {
      const all = await names().catch((error: unknown): string[] => {
        onError(error); // what is done with the folder later says so again
        return [];
      });
      const parts = all.filter((name) => name.endsWith(unfinished));
      const finish = async (name: string): Promise<void> => {
        const [path, key] = [join(folder, name), keyOf(name.slice(0, -unfinished.length))];
        if (key === null) return;
        const record = new Uint8Array(await readFile(path));
        if (isWhole({ ...key, record })) await rename(path, join(folder, nameOf(key)));
        else await rm(path);
      };
      await eachAlone(parts, finish, { onError });
    },
    async find({ connectionId, generation }) {
      const own = (await names()).filter((name) => name.startsWith(`${connectionId}.${generation}.`));
      return (await Promise.all(own.map(entryOf))).flat();
    },
  };
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}

async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "w", 0o600);
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** The name of a new file is durable only when its folder is. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
