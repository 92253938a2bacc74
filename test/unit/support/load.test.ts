import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeEach, expect, test } from "vitest";
import { temporaryFolder } from "../../support/services/guardian.ts";

const loader = fileURLToPath(new URL("../../../bin/load.cjs", import.meta.url));
const run = promisify(execFile);
let root: string;

beforeEach(async () => {
  root = (await temporaryFolder("load")).path;
  for (const folder of ["bin", "build", "src"]) mkdirSync(join(root, folder));
  for (const name of ["load.cjs", "node-version.cjs"]) {
    copyFileSync(join(dirname(loader), name), join(root, "bin", name));
  }
  write("package-lock.json", "{}");
  write("package.json", `{"type": "module", "engines": {"node": ">=24"}}`);
  write("src/main.ts", `console.log("sources");`);
  write("build/main.cjs", `console.log("bundle", require("./part.cjs"), require("node:path").sep);`);
  write("build/part.cjs", "module.exports = 7;");
  const { stamp } = createRequire(loader)(join(root, "bin/load.cjs")) as { stamp: () => string };
  write("build/sources", stamp());
});

function write(path: string, content: string): void {
  writeFileSync(join(root, path), content);
}

async function start(): Promise<string> {
  const script = `require("./bin/load.cjs").load("main", "src/main.ts");`;
  const { stdout } = await run(process.execPath, ["-e", script], { cwd: root });
  return stdout.trim();
}

test("an entry starts from the bundle as long as that was made of these sources", async () => {
  expect(await start()).toBe("bundle 7 /");
});

test.each([
  ["a source that has changed", () => write("src/main.ts", `console.log("sources");\n`)],
  ["a source that is new", () => write("src/more.ts", "")],
  ["other versions of what is installed", () => write("package-lock.json", `{"packages": {}}`)],
  ["a lockfile that is gone", () => rmSync(join(root, "package-lock.json"))],
  ["a build that did not come to its end", () => write("build/sources", "")],
  [
    "a build whose record is no file",
    () => (rmSync(join(root, "build/sources")), mkdirSync(join(root, "build/sources"))),
  ],
  ["a build that lacks a part", () => rmSync(join(root, "build/part.cjs"))],
  ["a build whose part was cut off", () => write("build/part.cjs", "module.exp")],
  ["a build that holds something else", () => write("build/main.cjs", `}${"x".repeat(71)}`)],
])("%s: it starts from the sources", async (_what, change) => {
  change();
  expect(await start()).toBe("sources");
});

test("compiled code that is damaged, or another Node's, is compiled anew", async () => {
  write("build/main.cjs.cache", "damaged");
  expect(await start()).toBe("bundle 7 /");
});
