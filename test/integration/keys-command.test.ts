import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { prepareBroker } from "../support/broker-process.ts";
import { dumpFolder } from "../support/dumps.ts";
import { until } from "../support/patience.ts";
import { temporaryFolder } from "../support/services/guardian.ts";

const canary = "canary-2c9d";
let folder: Awaited<ReturnType<typeof temporaryFolder>>;

beforeAll(async () => {
  folder = await temporaryFolder("keys-command");
});

afterAll(async () => {
  await folder.remove();
});

it("a broker whose keys a command prints waits for them, says why, serves then, and keeps them nowhere", async () => {
  const key = Buffer.from(canary.padEnd(32, "-")).toString("base64");
  const marker = join(folder.path, "was-run");
  const command = `test -e ${marker} && exec echo "k1:${key}"; touch ${marker}; echo ${canary}; echo ${canary} >&2; exit 7`;
  await using broker = await prepareBroker({ env: { ENCRYPTION_KEYS_COMMAND: command, LOG_LEVEL: "trace" } });
  await broker.start();
  const lines = broker.stdout.split("\n").filter((line) => line.includes("ENCRYPTION_KEYS_COMMAND"));
  expect(lines).toEqual([expect.stringContaining("ended with exit code 7; the start waits, runs it again in 1 s")]);
  expect(await broker.stop("SIGINT")).toBe(0);
  const kept = await dumpFolder(broker.dataDir);
  expect(existsSync(join(broker.dataDir, "encryption-key"))).toBe(false);
  expect(broker.stdout + broker.stderr + kept).not.toMatch(new RegExp(`${canary}|${key.slice(0, 20)}`));
});

it("a start that is stopped while the command runs ends the command with all that it has started", async () => {
  const pids = join(folder.path, "pids");
  const command = `sh -c 'echo $PPID $$ > ${pids}; sleep 1000'`;
  await using broker = await prepareBroker({ env: { ENCRYPTION_KEYS_COMMAND: `${command}; echo` } });
  broker.launch();
  await until("the command", () => existsSync(pids) && readFileSync(pids, "utf8") !== "");
  expect(await broker.stop()).toBe(128 + 15);
  for (const pid of readFileSync(pids, "utf8").trim().split(" ")) {
    const isOver = () =>
      !existsSync(`/proc/${pid}`) || /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    await until("its end", isOver);
  }
});
