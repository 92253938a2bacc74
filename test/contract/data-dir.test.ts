import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { StartupError } from "../../src/errors.ts";
import { holdDataDir } from "../../src/store/embedded.ts";
import { guard, temporaryFolder } from "../support/services/guardian.ts";

const program = fileURLToPath(new URL("hold-process.ts", import.meta.url));

/** Another process that takes the folder, and the first line that it prints. */
async function holder(path: string): Promise<{ child: ChildProcess; line: string }> {
  const child = spawn(process.execPath, ["--expose-gc", program, path], { stdio: ["ignore", "pipe", "inherit"] });
  if (child.pid !== undefined) child.once("exit", guard({ kind: "process", pid: child.pid }));
  for await (const line of createInterface({ input: child.stdout })) return { child, line };
  throw new Error("the process ended without a word");
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

describe("the broker's folder", () => {
  it("is held by one process: a second one is refused, and kill -9 frees it at once", async () => {
    const folder = await temporaryFolder("hold");
    const { path } = folder;
    const first = await holder(path);
    expect(first.line).toBe("held made by the child");
    // The first process has no reference to the lock any more, and has collected its garbage.
    const second = await holder(path);
    expect(second.line).toBe(
      `StartupError: DATA_DIR ${path} is held by another broker process; each needs a folder of its own: stop that one, or set DATA_DIR`,
    );
    await expect(holdDataDir(path)).rejects.toThrow(StartupError);

    await kill(first.child);
    const here = await holdDataDir(path);
    expect((await holder(path)).line).toMatch(/^StartupError/);
    here.release();
    const third = await holder(path);
    expect(third.line).toBe("held made by the child");
    await kill(third.child);
    await folder.remove();
  });

  it("is made where it is missing, for this user alone", async () => {
    const folder = await temporaryFolder("made");
    const { path } = folder;
    const inner = join(path, "a", "b");
    const dataDir = await holdDataDir(inner);
    expect((await stat(inner)).mode & 0o777).toBe(0o700);
    expect(dataDir.embeddedDatabase.startsWith(inner)).toBe(true);
    dataDir.release();
    await folder.remove();
  });

  it("that cannot be written stops the start with the path and the cause", async () => {
    const folder = await temporaryFolder("file");
    const { path } = folder;
    const file = join(path, "file");
    await writeFile(file, "");
    await expect(holdDataDir(join(file, "below"))).rejects.toThrow(StartupError);
    await expect(holdDataDir(join(file, "below"))).rejects.toThrow(/DATA_DIR .*below cannot be written \(\w+\)/);
    await folder.remove();
  });
});

describe("a secret in the broker's folder", () => {
  it("is made once, read by its owner alone, and stays the same over restarts", async () => {
    const folder = await temporaryFolder("secret");
    const { path } = folder;
    const first = await holdDataDir(path);
    let made = 0;
    const make = () => `secret ${++made}`;
    const secret = await first.secret("admin-key", make);
    expect(secret).toEqual({ value: "secret 1", path: join(path, "admin-key"), isNew: true });
    expect((await stat(secret.path)).mode & 0o777).toBe(0o600);
    expect(await first.secret("admin-key", make)).toEqual({ ...secret, isNew: false });
    first.release();
    const second = await holdDataDir(path);
    expect(await second.secret("admin-key", make)).toEqual({ ...secret, isNew: false });
    expect(await second.secret("another", make)).toMatchObject({ value: "secret 2", isNew: true });
    second.release();
    await folder.remove();
  });

  it("is written whole or not at all: what a dying start left behind is not taken for one", async () => {
    const folder = await temporaryFolder("draft");
    const { path } = folder;
    const dataDir = await holdDataDir(path);
    await writeFile(join(path, "admin-key.0badf00d"), "ha");
    const { value } = await dataDir.secret("admin-key", () => "whole");
    expect([value, await readFile(join(path, "admin-key"), "utf8")]).toEqual(["whole", "whole\n"]);
    expect((await readdir(path)).filter((name) => name.startsWith("admin-key")).sort()).toEqual([
      "admin-key",
      "admin-key.0badf00d",
    ]);
    dataDir.release();
    await folder.remove();
  });

  it("that cannot be read stops the start: a new one would lock everybody out", async () => {
    const folder = await temporaryFolder("unreadable");
    const { path } = folder;
    const dataDir = await holdDataDir(path);
    const { path: file } = await dataDir.secret("admin-key", () => "first");
    const below = dataDir.secret(join("admin-key", "below"), () => "never");
    await expect(below).rejects.toThrow(StartupError);
    await expect(below).rejects.toThrow(/cannot be read \(ENOTDIR\)/);
    expect(await readFile(file, "utf8")).toBe("first\n");
    dataDir.release();
    await folder.remove();
  });
});
