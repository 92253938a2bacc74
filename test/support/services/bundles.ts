import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { armedFolder } from "../broker-process.ts";
import { armFailpoints } from "../faults/failpoints.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const armedRecord = join(armedFolder, "sources");
const load = createRequire(import.meta.url)("../../../bin/load.cjs") as {
  fingerprint(): string;
  stamp(): string;
  record: string;
};

/** What brokers under test run from, made anew where the sources have changed since. */
export async function makeBundles(): Promise<void> {
  const sources = load.fingerprint();
  const isMadeOf = (path: string, whole = sources) => existsSync(path) && readFileSync(path, "utf8") === whole;
  if (!isMadeOf(load.record, load.stamp())) {
    execFileSync(process.execPath, ["scripts/build.ts"], { cwd: root, stdio: "inherit" });
  }
  if (isMadeOf(armedRecord)) return;
  const arm = {
    name: "failpoints",
    transform: { filter: { id: /\/src\/.*\.ts$/ }, handler: (code: string) => armFailpoints(code) },
  };
  // Loaded when something has changed: the bundler takes a third of a second.
  const { bundle } = await import("../../../scripts/bundle.ts");
  mkdirSync(armedFolder, { recursive: true });
  await bundle({ folder: armedFolder, plugins: [arm] });
  writeFileSync(armedRecord, sources);
}
