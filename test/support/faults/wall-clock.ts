import { existsSync, globSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { aptInstall, mayInstall } from "../services/surroundings.ts";
import { temporaryFolder } from "../services/guardian.ts";

/** A wall clock for a process, apart from the machine's. The monotonic clock is the machine's own. */
export type WallClock = AsyncDisposable & {
  /** `libfaketime`: the process's every program sees it. `dates`: JavaScript's `Date` alone, where there is no library. */
  kind: "libfaketime" | "dates";
  /** Options for `startBroker`. */
  options: { env: Record<string, string>; nodeOptions: string[] };
  /** Sets it ahead of the machine's clock, or behind it. Seen at once by a process that runs. */
  set(offsetSeconds: number): void;
};

const preload = pathToFileURL(fileURLToPath(new URL("wall-clock-preload.ts", import.meta.url))).href;
const libraries = [
  "/usr/lib/*/faketime/libfaketimeMT.so.1",
  "/usr/lib*/faketime/libfaketimeMT.so.1",
  "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/** A clock that is `offsetSeconds` ahead, or behind where negative, without the library where told so. Take it with `await using`. */
export async function wallClock(
  offsetSeconds: number,
  { library: mayUseLibrary = true }: { library?: boolean } = {},
): Promise<WallClock> {
  const folder = await temporaryFolder("clock");
  const file = join(folder.path, "offset");
  const set = (seconds: number) => {
    writeFileSync(`${file}.new`, `${seconds < 0 ? "" : "+"}${seconds}`);
    renameSync(`${file}.new`, file);
  };
  set(offsetSeconds);
  const library = mayUseLibrary ? await findLibrary() : undefined;
  const env = { FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: "1", FAKETIME_DONT_FAKE_MONOTONIC: "1" };
  return {
    kind: library === undefined ? "dates" : "libfaketime",
    options: {
      env: library === undefined ? env : { ...env, LD_PRELOAD: library },
      nodeOptions: library === undefined ? [`--import=${preload}`] : [],
    },
    set,
    [Symbol.asyncDispose]: () => folder.remove(),
  };
}

let installing: Promise<boolean> | undefined;

/** As root on Debian or Ubuntu it is installed, once. */
async function findLibrary(): Promise<string | undefined> {
  const found = firstLibrary();
  if (found !== undefined || !(await mayInstall())) return found;
  installing ??= aptInstall("libfaketime");
  await installing;
  return firstLibrary();
}

function firstLibrary(): string | undefined {
  return libraries.flatMap((pattern) => globSync(pattern)).find((path) => existsSync(path));
}
