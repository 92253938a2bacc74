import { execFile } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { guards, type Guard } from "../guards.ts";
import type { Row } from "../row.ts";

type Report = {
  numPassedTests: number;
  testResults: { message: string; assertionResults: { fullName: string; status: string }[] }[];
};

const run = promisify(execFile);
const projectRoot = fileURLToPath(new URL("../../../", import.meta.url));
/** Those that need no database take two seconds each. */
const shortGuards = new Set(["takeover: ten seconds of uninterrupted Postgres", "late answers: promotion"]);

export const row: Row = {
  number: 30,
  title: "each guard removed in turn",
  promised: "the suite fails, naming what broke",
  async run({ scale, log }) {
    const chosen = scale === "full" ? guards : guards.filter(({ name }) => shortGuards.has(name));
    const survived: string[] = [];
    const notes: string[] = [];
    for (const guard of chosen) {
      const broken = await testsBrokenBy(guard);
      if (broken.length === 0) survived.push(guard.name);
      const line = `without "${guard.name}": ${broken.length} tests fail, first "${broken[0] ?? "none"}"`;
      notes.push(line);
      log(line);
    }
    const figure = `without each of ${chosen.length - survived.length} of ${chosen.length} guards the suite fails, naming what broke`;
    return { ok: survived.length === 0, figure, notes };
  },
};

/** The tests that fail without the guard. A file that does not even load proves nothing. @throws then */
async function testsBrokenBy({ name, caughtBy }: Guard): Promise<string[]> {
  const file = join(tmpdir(), `freshet-guard-${process.pid}-${guards.findIndex((guard) => guard.name === name)}.json`);
  // One failure is enough, and one of the two databases.
  const scope = caughtBy.files.some((path) => path.includes("databases")) ? ["-t", "on Postgres"] : [];
  const args = ["vitest", "run", "--bail=1", "--project", caughtBy.project, ...caughtBy.files, ...scope];
  const env = { ...process.env, MUTATION: name, TEST_REPORT: file };
  await run("npx", args, { cwd: projectRoot, env, maxBuffer: 64e6 }).catch(() => undefined);
  const report = JSON.parse(await readFile(file, "utf8")) as Report;
  await rm(file, { force: true });
  const tests = report.testResults.flatMap(({ assertionResults }) => assertionResults);
  const ran = tests.filter(({ status }) => status === "passed" || status === "failed");
  if (ran.length === 0) throw new Error(`${name}: no test ran: ${report.testResults[0]?.message ?? ""}`);
  return ran.filter(({ status }) => status === "failed").map(({ fullName }) => fullName);
}
