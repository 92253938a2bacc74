import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { StartupError } from "../../src/errors.ts";
import { holdDataDir } from "../../src/store/data-dir.ts";
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

const modeOf = async (path: string) => (await stat(path)).mode & 0o777;

describe("what other users of the machine may do", () => {
  it("is taken away from the folder and its secrets, and told once; where nothing was open, nothing is said", async () => {
    const folder = await temporaryFolder("open");
    const { path } = folder;
    const secrets = ["admin-key", "encryption-key"].map((name) => join(path, name));
    for (const secret of secrets) await writeFile(secret, "a secret\n");
    await chmod(path, 0o755);
    await chmod(secrets[0] ?? "", 0o644);
    await chmod(secrets[1] ?? "", 0o640);
    const dataDir = await holdDataDir(path);
    expect(dataDir.opened).toEqual([
      `${path} was open to other users of this machine (0755), and is closed now (0700)`,
      `${secrets[0]} was open to other users of this machine (0644), and is closed now (0600); if somebody else uses this machine, replace what it holds`,
      `${secrets[1]} was open to other users of this machine (0640), and is closed now (0600); if somebody else uses this machine, replace what it holds`,
    ]);
    expect(await Promise.all([path, ...secrets].map(modeOf))).toEqual([0o700, 0o600, 0o600]);
    dataDir.release();
    const again = await holdDataDir(path);
    expect(again.opened).toEqual([]);
    again.release();
    await folder.remove();
  });

  it("is left alone where a secret is a link, as to a secret of Docker or Kubernetes, which all may read", async () => {
    const folder = await temporaryFolder("linked");
    const elsewhere = await temporaryFolder("mounted");
    await writeFile(join(elsewhere.path, "admin_key"), "a secret\n", { mode: 0o444 });
    await symlink(join(elsewhere.path, "admin_key"), join(folder.path, "admin-key"));
    const dataDir = await holdDataDir(folder.path);
    expect(dataDir.opened).toEqual([]);
    expect(await modeOf(join(elsewhere.path, "admin_key"))).toBe(0o444);
    dataDir.release();
    await folder.remove();
    await elsewhere.remove();
  });

  it.skipIf(process.getuid?.() !== 0)(
    "on a volume of another owner: its group stays, an open folder is told, and an open secret in it stops the start (as root)",
    async () => {
      const folder = await temporaryFolder("volume");
      const { path } = folder;
      await chown(path, 4242, 4242);
      await chmod(path, 0o770);
      const shared = await holdDataDir(path);
      expect([shared.opened, await modeOf(path)]).toEqual([[], 0o770]);
      shared.release();
      await chmod(path, 0o777);
      const open = await holdDataDir(path);
      expect(open.opened).toEqual([
        `DATA_DIR ${path} belongs to user 4242 and is open to every user of this machine (0777): nobody else is there in a container; elsewhere give it to the broker's user, with mode 0700`,
      ]);
      open.release();
      const secret = join(path, "admin-key");
      await writeFile(secret, "a secret\n");
      await chown(secret, 4242, 4242);
      await chmod(secret, 0o644);
      await expect(holdDataDir(path)).rejects.toThrow(
        `${secret} can be read by every user of this machine (0644), and belongs to user 4242: run chown 0 and chmod 600 on it`,
      );
      await chmod(secret, 0o640);
      (await holdDataDir(path)).release();
      await folder.remove();
    },
  );
});
