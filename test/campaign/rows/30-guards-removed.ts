import { execFile } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { useDatabase, useRedis } from "../../support/services/index.ts";
import { guards, type Guard } from "../guards.ts";
import type { Row } from "../row.ts";

type Report = {
  numPassedTests: number;
  testResults: { message: string; assertionResults: { fullName: string; status: string }[] }[];
};

const run = promisify(execFile);
const projectRoot = fileURLToPath(new URL("../../../", import.meta.url));
const vitest = join(projectRoot, "node_modules/vitest/vitest.mjs");
/** One guard that needs no database shows that removing works. test/unit/support/failpoints shows that each of the others can be removed. */
const shortGuard = "takeover: ten seconds of uninterrupted Postgres";

export const row: Row = {
  number: 30,
  title: "each guard removed in turn",
  promised: "the suite fails, naming what broke",
  async run({ scale, log }) {
    const chosen = scale === "full" ? guards : guards.filter(({ name }) => name === shortGuard);
    const servers = await serversOfThisRun();
    const survived: string[] = [];
    const notes: string[] = [];
    for (const guard of chosen) {
      const broken = await testsBrokenBy(guard, servers);
      if (broken.length === 0) survived.push(guard.name);
      const line = `without "${guard.name}": ${broken.length} tests fail, first "${broken[0] ?? "none"}"`;
      notes.push(line);
      log(line);
    }
    const figure = `without each of ${chosen.length - survived.length} of ${chosen.length} guards the suite fails, naming what broke`;
    return { ok: survived.length === 0, figure, notes };
  },
};

/** They need not be started anew for each guard. */
async function serversOfThisRun(): Promise<Record<string, string>> {
  const [postgres, redis] = [new URL(await useDatabase()), new URL(await useRedis())];
  postgres.pathname = "/postgres";
  redis.pathname = "/0";
  return { TEST_DATABASE_URL: postgres.href, TEST_REDIS_URL: redis.href };
}

/**
 * The tests that fail without the guard.
 * @throws if a file does not even load: that proves nothing
 */
async function testsBrokenBy({ name, caughtBy }: Guard, servers: Record<string, string>): Promise<string[]> {
  const file = join(tmpdir(), `freshet-guard-${process.pid}-${guards.findIndex((guard) => guard.name === name)}.json`);
  // One failure is enough, and one of the two databases.
  const scope = caughtBy.files.some((path) => path.includes("databases")) ? ["-t", "on Postgres"] : [];
  const args = [vitest, "run", "--bail=1", "--project", caughtBy.project, ...caughtBy.files, ...scope];
  const env = { ...process.env, ...servers, MUTATION: name, TEST_REPORT: file };
  await run(process.execPath, args, { cwd: projectRoot, env, maxBuffer: 64e6 }).catch(() => undefined);
  const report = JSON.parse(await readFile(file, "utf8")) as Report;
  await rm(file, { force: true });
  const tests = report.testResults.flatMap(({ assertionResults }) => assertionResults);
  const ran = tests.filter(({ status }) => status === "passed" || status === "failed");
  if (ran.length === 0) throw new Error(`${name}: no test ran: ${report.testResults[0]?.message ?? ""}`);
  return ran.filter(({ status }) => status === "failed").map(({ fullName }) => fullName);
}
