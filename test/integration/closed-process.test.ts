import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { expectClosed } from "../support/closed-process.ts";
import { FirstStart, freshFolder } from "../support/first-start.ts";
import { freePort } from "../support/free-port.ts";
import { until } from "../support/patience.ts";

it("what `npm start` runs opens no debugger on SIGUSR1, leaves no core dump, and tells no variable in a diagnostic report", async () => {
  const folder = await freshFolder();
  const env = { NODE_OPTIONS: "--report-on-signal", METRICS_KEY: "canary-metrics-5b1c-5b1c" };
  await using start = await FirstStart.launch(folder, { port: await freePort(), env });
  await start.ready();
  await expectClosed(start.process, start.url);
  start.process.kill("SIGUSR2");
  const reports = async () => (await readdir(folder)).filter((name) => name.startsWith("report."));
  await until("the report is written", async () => {
    const [name] = await reports();
    return name !== undefined && (await readFile(join(folder, name), "utf8")).trimEnd().endsWith("}");
  });
  const [name = ""] = await reports();
  const report = await readFile(join(folder, name), "utf8");
  expect(report).toContain('"header"');
  expect(report).not.toContain("canary-metrics");
  expect(await start.interrupt()).toBe(0);
  expect(start.stdout + start.stderr).not.toContain("Debugger");
});
