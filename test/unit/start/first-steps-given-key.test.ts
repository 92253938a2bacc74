import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readConfig, readEnvironment, type Variables } from "../../../src/config.ts";
import { givenKey } from "../../../src/start/first-steps.ts";

const folder = mkdtempSync(join(tmpdir(), "freshet first's-"));
const key = `${"k".repeat(31)}$HOME*`;
const other = "o".repeat(32);

afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** What a shell in the same folder sends as the bearer, by the line that a start prints. */
function sent(
  given: { env: Variables; file: ReturnType<typeof readEnvironment>["file"] },
  env: Variables = {},
): string {
  const command = `printf '%s' "Bearer ${givenKey(given)}"`;
  return execFileSync("sh", ["-c", command], {
    cwd: folder,
    env: { PATH: process.env["PATH"], ...env },
    encoding: "utf8",
  });
}

function beside(content: string) {
  const path = join(folder, ".env");
  writeFileSync(path, content);
  const { file } = readEnvironment(path);
  return { env: file?.values ?? {}, file };
}

describe("the line of the first steps finds the first key of ADMIN_KEY in a shell of the same folder", () => {
  it.each([
    ["a plain line", `ADMIN_KEY=${key}\n`],
    ["no line end", `ADMIN_KEY=${key}`],
    ["two keys", `ADMIN_KEY=${key},${other}\n`],
    ["double quotes", `ADMIN_KEY="${key},${other}" # the first counts\n`],
    ["single quotes", `ADMIN_KEY='${key}'\n`],
    ["backquotes", `ADMIN_KEY=\`${key}\`\n`],
    ["export, and spaces", `  export ADMIN_KEY = ${key} # "mine"\n`],
    ["spaces in quotes", `ADMIN_KEY=" ${key} "\n`],
    ["line ends of Windows", `PORT=9000\r\nADMIN_KEY=${key}\r\nHOST=::1\r\n`],
    ["a byte order mark", `\uFEFFADMIN_KEY=${key}\n`],
    [
      "other names that end so, and a comment",
      `OLD_ADMIN_KEY=${other}\n#ADMIN_KEY=${other}\nADMIN_KEY=${key}\n_ADMIN_KEY=x\n`,
    ],
    ["the last of two", `ADMIN_KEY=${other}\nADMIN_KEY=${key}\n`],
  ])("%s in .env", (_case, content) => {
    const given = beside(content);
    expect(readConfig(given.env).adminKeys[0]).toBe(key);
    expect(sent(given)).toBe(`Bearer ${key}`);
  });

  it("a key with quotes in it, in other quotes", () => {
    const quoted = `"${"q".repeat(32)}'"x`;
    expect(sent(beside(`ADMIN_KEY=\`${quoted}\`\n`))).toBe(`Bearer ${quoted}`);
  });

  it("and nothing else in .env is run", () => {
    const given = beside(
      `ORGANISATION_NAME=Acme touch touched\nORGANISATION_CONTACT=Meier (Bakery)\nADMIN_KEY=${key}\n`,
    );
    expect(sent(given)).toBe(`Bearer ${key}`);
    expect(existsSync(join(folder, "touched"))).toBe(false);
  });

  it.each([key, `${key},${other}`, `${key}\n`, ` ${key},${other}\r\n`])("in the environment or a file: %j", (value) => {
    const path = join(folder, "admin key");
    writeFileSync(path, value);
    expect(sent({ env: { ADMIN_KEY: value }, file: null }, { ADMIN_KEY: value })).toBe(`Bearer ${key}`);
    expect(sent({ env: { ADMIN_KEY_FILE: path }, file: null })).toBe(`Bearer ${key}`);
  });
});
