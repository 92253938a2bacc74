import { spawn } from "node:child_process";
import { access, constants, readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { startStubBroker } from "./stub-broker.ts";

const entry = fileURLToPath(new URL("../../../bin/freshet.cjs", import.meta.url));

async function runProcess(program: string, args: string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [program, ...args], { env: { PATH: process.env["PATH"], ...env } });
  const [out, err, exitCode] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => void child.once("exit", resolve)),
  ]);
  return { out, err, exitCode };
}

test("the command can be run by its own name, through a link as in the image", async () => {
  await access(entry, constants.X_OK);
  expect(await readFile(entry, "utf8")).toMatch(/^#!\/usr\/bin\/env node\n/);
  const link = join((await temporaryFolder("cli")).path, "freshet");
  await symlink(entry, link);
  expect(await runProcess(link, ["--version"])).toMatchObject({ exitCode: 0, err: "" });
});

test("exit codes reach the shell", async () => {
  expect(await runProcess(entry, ["nope"])).toMatchObject({ exitCode: 2, out: "" });
  await using broker = await startStubBroker({});
  const env = { FRESHET_URL: broker.url, FRESHET_KEY: "k" };
  expect(await runProcess(entry, ["clients", "list"], env)).toMatchObject({ exitCode: 1, out: "" });
});

test("a reader that leaves early is no failure", async () => {
  const items = Array.from({ length: 20_000 }, (_, index) => ({ name: `client-${index}`, provider: "oauth2" }));
  await using broker = await startStubBroker({ "GET /clients": { body: { items, next_cursor: null } } });
  const env = { PATH: process.env["PATH"], FRESHET_URL: broker.url, FRESHET_KEY: "k" };
  const child = spawn(process.execPath, [entry, "clients", "list"], { env });
  child.stdout.once("data", () => child.stdout.destroy());
  const [err, exitCode] = await Promise.all([
    text(child.stderr),
    new Promise((resolve) => void child.once("exit", resolve)),
  ]);
  expect({ err, exitCode }).toEqual({ err: "", exitCode: 0 });
});
