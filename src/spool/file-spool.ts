import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { keyOf, nameOf, type SpoolEntry, type SpoolKey, type SpoolPlace } from "./spool.ts";

/** Records as files of a folder that this process alone holds, readable by its user only. One file each. */
export function createFileSpool(folder: string): SpoolPlace {
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
      await writeDurably(`${path}.part`, entry.record);
      // Under its name only when it is whole: a start after a crash in between finds no half record.
      await rename(`${path}.part`, path);
      await syncFolder(folder);
    },
    async remove(key: SpoolKey) {
      await rm(join(folder, nameOf(key)), { force: true });
    },
    async list() {
      return (await Promise.all((await names()).map(entryOf))).flat();
    },
    async find(connectionId, generation) {
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
