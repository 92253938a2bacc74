import { execFileSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { temporaryFolder } from "../../support/services/guardian.ts";

/** As many threads do the disk's work in a process of Node. */
const threads = 4;

/** From here on no disk answers this process, as if it were a network file system whose server is away; `goOn`: until then. */
export async function hangDisk(): Promise<{ goOn: () => void }> {
  const { path } = await temporaryFolder("hang");
  const pipe = join(path, "pipe");
  execFileSync("mkfifo", [pipe]);
  // Whoever opens a pipe to read waits until somebody opens it to write.
  const readers = Array.from({ length: threads }, async () => await open(pipe, "r"));
  const state = { hangs: true };
  const goOn = (): void => {
    if (!state.hangs) return;
    state.hangs = false;
    const writer = openSync(pipe, "r+");
    const closed = readers.map(async (reader) => await (await reader).close());
    void Promise.all(closed).finally(() => closeSync(writer));
  };
  // A test that has come to its limit must not leave the whole run hanging.
  onTestFinished(goOn);
  return { goOn };
}
