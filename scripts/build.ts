import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { bundle } from "./bundle.ts";
import { makeSnapshot } from "../src/store/embedded.ts";

/**
 * What a start is faster with, in build/: the bundles, the code that V8 compiled of them in one start of each, and the freshly
 * migrated folder of the embedded database. bin/load.cjs uses the bundles as long as they are made of the sources that are there.
 */
const root = resolve(import.meta.dirname, "..");
const build = join(root, "build");
/** Only a hang takes longer: an installation must come to an end. */
const hangMs = 300_000;
const load = createRequire(import.meta.url)("../bin/load.cjs") as { stamp(): string; record: string };

rmSync(build, { recursive: true, force: true });
await bundle({ folder: build });
await makeSnapshot();
writeFileSync(load.record, load.stamp());
try {
  await compileBroker();
  await run("freshet", ["--help"], {}).ended;
} catch (error) {
  rmSync(load.record); // what does not start here is started from the sources
  throw error;
}

/** One start with a folder of its own, until it is ready, and what a first caller asks. */
async function compileBroker(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "freshet-build-"));
  const port = await freePort();
  const { child, ended } = run("broker", [], { PORT: String(port), DATA_DIR: folder, LOG_LEVEL: "warn" });
  const url = `http://127.0.0.1:${port}`;
  const ready = async () => {
    while ((await statusOf(`${url}/readyz`)) !== 200) await sleep(20);
  };
  await Promise.race([ready(), ended]); // one that ends here has failed, or was ended as a hang
  if (child.exitCode !== null) throw new Error("the broker has ended before it was ready");
  const authorization = `Bearer ${readFileSync(join(folder, "admin-key"), "utf8").trim()}`;
  for (const path of ["/tokens/sandbox", "/connections", "/connect/x"]) await statusOf(url + path, { authorization });
  child.kill("SIGINT");
  await ended;
  rmSync(folder, { recursive: true });
}

/** An entry of bin/, which keeps what it has compiled when it ends. */
function run(name: string, args: string[], env: Record<string, string>) {
  const child = spawn(process.execPath, ["--require", "./scripts/keep-compiled.cjs", `bin/${name}.cjs`, ...args], {
    cwd: root,
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "ignore", "inherit"],
    timeout: hangMs,
  });
  return { child, ended: succeeded(name, child) };
}

async function succeeded(name: string, child: ChildProcess): Promise<void> {
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new Error(`${name} ended with code ${String(code)}`);
}

async function statusOf(url: string, headers: Record<string, string> = {}): Promise<number | null> {
  return await fetch(url, { headers }).then(
    async (answer) => (await answer.arrayBuffer(), answer.status),
    () => null,
  );
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
