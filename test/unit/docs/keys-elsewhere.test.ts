import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readConfig } from "../../../src/config.ts";
import { withPrintedKeyring } from "../../../src/start/keys-command.ts";

const page = readFileSync(resolve(import.meta.dirname, "../../../docs/keys-elsewhere.md"), "utf8");
const blocksOf = (text: string) => [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = ""]) => block.trim());
const [, recipes = ""] = /\n## Recipes\n([\s\S]*?)\n## /.exec(page) ?? [];

/** Of each recipe: how it seals `encryption_keys`, and the command that it sets. */
const played = recipes
  .split(/^### /m)
  .slice(1)
  .map((text) => {
    const [seal = "", setting = ""] = blocksOf(text);
    const [, command = ""] = /^ENCRYPTION_KEYS_COMMAND='(.*)'$/.exec(setting) ?? [];
    return { recipe: text.split("\n", 1)[0] ?? "", seal, command };
  });

const folder = mkdtempSync(join(tmpdir(), "freshet-keys-elsewhere-"));
const [programs, etc] = [join(folder, "bin"), join(folder, "etc")];
const keyring = `k1:${Buffer.alloc(32, 7).toString("base64")}`;

/** A program of the recipes: it takes exactly these arguments, and turns its text around in place of sealing and opening it. */
const standIns: Record<string, string> = {
  bao: `case "$*" in
    "write -field=ciphertext transit/encrypt/freshet plaintext=-") printf vault:v1:; rev ;;
    "write -field=plaintext transit/decrypt/freshet ciphertext=@${etc}/encryption_keys.bao") cut -c10- < ${etc}/encryption_keys.bao | rev ;;`,
  aws: `case "$*" in
    "kms encrypt --key-id alias/freshet --plaintext fileb://encryption_keys --query CiphertextBlob --output text") rev encryption_keys | base64 ;;
    "kms decrypt --key-id alias/freshet --ciphertext-blob fileb://${etc}/encryption_keys.kms --query Plaintext --output text") rev ${etc}/encryption_keys.kms | base64 ;;`,
  gcloud: `key="--location=europe-west1 --keyring=freshet --key=keyring"; case "$*" in
    "kms encrypt $key --plaintext-file=encryption_keys --ciphertext-file=encryption_keys.gcp") rev encryption_keys > encryption_keys.gcp ;;
    "kms decrypt $key --ciphertext-file=${etc}/encryption_keys.gcp --plaintext-file=-") rev ${etc}/encryption_keys.gcp ;;`,
  age: `case "$*" in
    "--encrypt --recipients-file recipients.txt --output encryption_keys.age encryption_keys") rev encryption_keys > encryption_keys.age ;;
    "--encrypt --passphrase --output encryption_keys.offline.age encryption_keys") rev encryption_keys > encryption_keys.offline.age ;;
    "--decrypt --identity ${etc}/age.key ${etc}/encryption_keys.age") rev ${etc}/encryption_keys.age ;;
    "--decrypt --output ${folder}/shm/encryption_keys encryption_keys.offline.age") rev encryption_keys.offline.age > ${folder}/shm/encryption_keys ;;`,
  "systemd-creds": `case "$*" in
    "encrypt --name=encryption_keys encryption_keys encryption_keys.cred") rev encryption_keys > encryption_keys.cred ;;
    "cat encryption_keys") cat "$CREDENTIALS_DIRECTORY/encryption_keys" ;;`,
  npm: `test "$*" = start && test -z "$ENCRYPTION_KEYS_COMMAND" && case x in x) cat "$ENCRYPTION_KEYS_FILE" ;;`,
};
const isInstalled = (program: string) => spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
/** Then it seals with real keys, in place of its stand-in. Nobody types its passphrases here. */
const hasAge = isInstalled("age") && isInstalled("age-keygen");

const here = (text: string) => text.replaceAll("/etc/freshet", etc).replaceAll("/dev/shm", join(folder, "shm"));
const path = () => `${programs}:${process.env["PATH"]}`;

beforeAll(() => {
  for (const name of ["bin", "etc", "shm", "credentials"]) mkdirSync(join(folder, name));
  for (const [name, text] of Object.entries(standIns)) {
    if (name === "age" && hasAge) continue;
    writeFileSync(join(programs, name), `#!/bin/sh\n${text}\n*) echo "$*" >&2; exit 9 ;; esac\n`);
    chmodSync(join(programs, name), 0o755);
  }
  writeFileSync(join(folder, "encryption_keys"), `${keyring}\n`);
  writeFileSync(join(folder, "credentials/encryption_keys"), `${keyring}\n`, { mode: 0o600 });
  if (!hasAge) return;
  run("age-keygen -o /etc/freshet/age.key; age-keygen -y /etc/freshet/age.key > recipients.txt");
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

const run = (script: string) =>
  execFileSync("/bin/sh", ["-ec", here(script)], { cwd: folder, env: { PATH: path() }, encoding: "utf8" });

async function printed(command: string, search: string) {
  const env = { PATH: search, CREDENTIALS_DIRECTORY: join(folder, "credentials") };
  const log = pino({}, { write: (line) => expect.unreachable(line) });
  const clock = { monotonicMs: () => 0, sleep: () => new Promise<void>(() => {}) };
  const config = await withPrintedKeyring(readConfig({ ENCRYPTION_KEYS_COMMAND: command }), { env, log, clock });
  return config.encryptionKeys;
}

const expected = [{ id: "k1", key: Buffer.alloc(32, 7) }];

test("every line of the page that a shell reads is one that a shell understands", () => {
  const all = [...blocksOf(page), ...played.map(({ command }) => command)];
  expect(all.length).toBeGreaterThan(15);
  for (const script of all) {
    const { status, stderr } = spawnSync("/bin/sh", ["-n", "-c", script], { encoding: "utf8" });
    expect([script, status, stderr]).toEqual([script, 0, ""]);
  }
});

describe("what a recipe has sealed, its command opens:", () => {
  test.each(played)("$recipe", async ({ seal, command }) => {
    expect([seal, command]).toEqual([expect.stringMatching(/./), expect.stringMatching(/./)]);
    run(seal);
    const sealed = /encryption_keys\.\w+/.exec(seal)?.[0] ?? "";
    expect(readFileSync(join(folder, sealed), "latin1")).not.toContain(keyring);
    writeFileSync(join(etc, sealed), readFileSync(join(folder, sealed)));
    expect(await printed(here(command), path())).toEqual(expected);
  });

  test.runIf(isInstalled("systemd-creds"))("systemd credentials, by the program itself", async () => {
    const { command } = played.find(({ recipe }) => recipe === "systemd credentials") ?? { command: "" };
    expect(await printed(command, process.env["PATH"] ?? "")).toEqual(expected);
  });
});

test.skipIf(hasAge)("with the offline copy a broker starts without the service", () => {
  const [, offline = ""] = /\n## On a day when the service is away\n([\s\S]*)/.exec(page) ?? [];
  const [copy = "", open = ""] = blocksOf(offline);
  run(copy);
  expect(existsSync(join(folder, "encryption_keys.offline.age"))).toBe(true);
  expect(run(open).trim()).toBe(keyring);
});

test("the file that the page makes for a new installation holds a key", () => {
  const make = blocksOf(page).find((block) => block.includes("/dev/urandom")) ?? "";
  const made = spawnSync("/bin/sh", ["-ec", make], { cwd: etc });
  expect(made.status).toBe(0);
  const config = readConfig({ ENCRYPTION_KEYS_FILE: join(etc, "encryption_keys") });
  expect(config.encryptionKeys).toEqual([{ id: "k1", key: expect.any(Buffer) }]);
});
