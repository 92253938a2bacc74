import { holdDataDir } from "../../src/store/data-dir.ts";

/** Takes a folder and holds it until it is killed, without keeping a reference to the lock. Or it prints why it could not. */
const [path = ""] = process.argv.slice(2);
try {
  const dataDir = await holdDataDir(path);
  const { value } = await dataDir.secret("canary", () => "made by the child");
  setInterval(() => {}, 60_000);
  setImmediate(() => {
    globalThis.gc?.();
    setImmediate(() => process.stdout.write(`held ${value}\n`));
  });
} catch (error) {
  process.stdout.write(`${(error as Error).name}: ${(error as Error).message}\n`);
}
