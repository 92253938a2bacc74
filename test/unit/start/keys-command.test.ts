import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, describe, expect, test } from "vitest";
import type { WakingSignal } from "../../../src/clock.ts";
import { readConfig, secretVariables } from "../../../src/config.ts";
import { StartupError } from "../../../src/errors.ts";
import { withPrintedKeyring } from "../../../src/start/keys-command.ts";
import { until } from "../../support/patience.ts";

const folder = mkdtempSync(join(tmpdir(), "freshet-keys-command-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const bytes = randomBytes(32);
const keyring = `k1:${bytes.toString("base64")}`;
const canary = "canary-7f3a";

let made = 0;
const newPath = () => join(folder, String(++made));

/**
 * Time stands still while a command runs, and pauses pass at once. `limit`: when a run has taken too long; never, unless a test says when.
 */
function clockOf(limit: () => Promise<unknown>) {
  const clock = {
    nowMs: 0,
    pauses: [] as number[],
    monotonicMs: () => clock.nowMs,
    sleep: async (ms: number, signal?: WakingSignal) => {
      if (signal === undefined) {
        clock.pauses.push(ms); // the limit of a run has a signal
        clock.nowMs += ms;
      } else await limit();
    },
  };
  return clock;
}

const never = () => new Promise<void>(() => {});

type Trial = { env?: Record<string, string>; limit?: () => Promise<unknown> };

/** What a start with this command comes to, and what it logs. */
async function start(command: string, { env = {}, limit = never }: Trial = {}) {
  const lines: string[] = [];
  const log = pino({}, { write: (line) => void lines.push(line) });
  const clock = clockOf(limit);
  const config = readConfig({ ENCRYPTION_KEYS_COMMAND: command });
  const run = { env: { PATH: process.env["PATH"], ...env }, log, clock };
  const end = await withPrintedKeyring(config, run).catch((error: unknown) => {
    if (error instanceof StartupError) return error.message;
    throw error;
  });
  return { end, lines, pauses: clock.pauses };
}

/** The process that wrote its id there is over, and at most waits for its parent. */
async function untilOver(file: string): Promise<void> {
  const pid = readFileSync(file, "utf8").trim();
  const state = () => /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1];
  await until("its end", () => !existsSync(`/proc/${pid}`) || state() === "Z");
}

test("what the command prints is the keyring of the start, and nothing is told", async () => {
  const { end, lines } = await start(`echo "${keyring}, old:$(printf %s ${"A".repeat(43)}=)"`);
  expect(end).toMatchObject({
    encryptionKeys: [
      { id: "k1", key: bytes },
      { id: "old", key: Buffer.alloc(32) },
    ],
  });
  expect(Object.isFrozen(end)).toBe(true);
  expect(lines).toEqual([]);
});

describe("a command that prints no keyring is run again for five minutes, and what it says is told nowhere:", () => {
  const script = newPath();
  writeFileSync(script, "#!/bin/sh\n", { mode: 0o600 });
  const twice = [1, 2].map(() => `${canary}:${bytes.toString("base64")}`).join();

  test.for([
    ["ended with exit code 3", `echo ${canary}; echo ${canary} >&2; exit 3`],
    ["ended with exit code 1", `echo ${keyring}; exit 1`],
    ["was ended by SIGKILL", `echo ${canary} >&2; kill -9 $$`],
    ["printed nothing", `echo ${canary} >&2`],
    ["printed something that is no keyring (a comma list of id:base64(32 bytes))", `echo ${canary}`],
    ["printed something that is no keyring (a comma list of id:base64(32 bytes))", `echo ${twice}`],
    ["printed more than 64 KiB", `head -c 70000 /dev/zero | tr '\\0' c; sleep 1000`],
    ["ended with exit code 127: it names a program that is not there, or not in PATH", `${canary}-program`],
    ["ended with exit code 126: it names a program that this user may not run", script],
    ["ended with exit code 2", `echo '${canary}`],
  ] as const)("%s", async ([why, command]) => {
    const { end, lines, pauses } = await start(command, { env: { CANARY: canary } });
    expect(end).toContain(
      `ENCRYPTION_KEYS_COMMAND has printed no keyring for 5 minutes; the last time it ${why}. Run it by hand`,
    );
    expect(end).toContain("set ENCRYPTION_KEYS_FILE to your copy of the keyring (docs/keys-elsewhere.md)");
    expect(pauses.slice(0, 6)).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000]);
    expect(pauses.reduce((sum, ms) => sum + ms, 0)).toBe(300_000);
    expect(lines).toHaveLength(pauses.length);
    expect(lines[1]).toContain(`ENCRYPTION_KEYS_COMMAND ${why}`);
    expect(lines[1]).toContain("; the start waits, runs it again in 2 s, and gives up 5 minutes after it began");
    expect(lines.join("") + JSON.stringify(end)).not.toMatch(new RegExp(`${canary}|${keyring.slice(3, 20)}`));
  });
});

test("it is run until it prints the keyring", async () => {
  const counted = newPath();
  const command = `echo >> ${counted}; test $(wc -l < ${counted}) -gt 2 && echo ${keyring}`;
  const { end, lines } = await start(command);
  expect(end).toMatchObject({ encryptionKeys: [{ id: "k1" }] });
  expect(lines).toHaveLength(2);
});

test("one that takes too long is ended with all that it has started, and run again", async () => {
  const [shell, child] = [newPath(), newPath()];
  const command = `test -e ${child} && exec echo ${keyring}; echo $$ > ${shell}; sh -c 'sleep 1000 & echo $! > ${child}; wait'; echo`;
  const { end, lines } = await start(command, { limit: firstRun(() => until("its child", () => sized(child))) });
  expect(end).toMatchObject({ encryptionKeys: [{ id: "k1" }] });
  expect(lines).toEqual([expect.stringContaining("ENCRYPTION_KEYS_COMMAND did not end within 30 s; the start waits")]);
  await untilOver(shell);
  await untilOver(child);
});

/** Only the first run takes too long. */
const firstRun = (limit: () => Promise<unknown>) => {
  const limits = [limit];
  return async () => await (limits.shift() ?? never)();
};

const sized = (file: string) => existsSync(file) && readFileSync(file, "utf8") !== "";

test("what it leaves in the background is ended, and does not hold the start up", async () => {
  const child = newPath();
  const { end } = await start(`sleep 1000 & echo $! > ${child}; echo ${keyring}`);
  expect(end).toMatchObject({ encryptionKeys: [{ id: "k1" }] });
  await untilOver(child);
});

test("it gets the broker's environment without the broker's secrets, and nothing to read from", async () => {
  const seen = newPath();
  const own = secretVariables.flatMap((name) => (/^HTTPS?_PROXY$/.test(name) ? [] : [name, `${name}_FILE`]));
  const secrets = Object.fromEntries(own.map((name) => [name, canary]));
  const passed = {
    VAULT_TOKEN: "vault",
    NO_PROXY: "internal",
    HTTPS_PROXY: "http://proxy:1",
    HTTP_PROXY: "http://proxy:2",
  };
  const { end } = await start(`env > ${seen}; cat >> ${seen}; echo ${keyring}`, { env: { ...passed, ...secrets } });
  expect(end).toMatchObject({ encryptionKeys: [{ id: "k1" }] });
  const lines = readFileSync(seen, "utf8").split("\n");
  expect(lines).toEqual(expect.arrayContaining(Object.entries(passed).map(([name, value]) => `${name}=${value}`)));
  expect(own).toEqual(expect.arrayContaining(["DATABASE_URL", "DATABASE_MIGRATION_URL", "ADMIN_KEY_FILE"]));
  expect(lines.join("\n")).not.toContain(canary);
});

test("without a command the configuration stays as it is", async () => {
  const config = readConfig({});
  expect(await withPrintedKeyring(config, { env: {}, log: pino({ level: "silent" }), clock: clockOf(never) })).toBe(
    config,
  );
});
