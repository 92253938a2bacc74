import { spawn } from "node:child_process";
import { once } from "node:events";
import { globSync, readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect, it } from "vitest";
import { guards } from "../../campaign/guards.ts";
import { armFailpoints, type Failpoints, findFailpoints } from "../../support/faults/failpoints.ts";
import { mutate } from "../../support/faults/mutations.ts";
import { until } from "../../support/patience.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const program = fileURLToPath(new URL("../../support/faults/example/three-workers.ts", import.meta.url));
const preload = pathToFileURL(`${root}test/support/faults/preload.ts`).href;

/** Three workers come to the failpoint "here", each says when it is past it. */
async function run({ failpoints, armed }: { failpoints: Failpoints; armed: boolean }) {
  const env = { PATH: process.env["PATH"], FAILPOINTS: JSON.stringify(failpoints) };
  const child = spawn(process.execPath, [...(armed ? ["--import", preload] : []), program], { env });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, output }));
  return { child, ended };
}

const outcome = async (failpoints: Failpoints, armed = true) => await (await run({ failpoints, armed })).ended;

it("a comment does nothing in a process that was not told otherwise", async () => {
  expect(await outcome({ here: { action: "kill" } }, false)).toEqual({ code: 0, signal: null, output: "0 1 2 end\n" });
});

it("src knows of failpoints in comments only, and each of these is one", () => {
  const mentions = globSync("src/**/*.ts", { cwd: root }).flatMap((file) => {
    const lines = armFailpoints(
      readFileSync(root + file, "utf8").replaceAll("globalThis.failpoint", "FORBIDDEN failpoint"),
    );
    const armed = lines.replaceAll(/^\s*(await )?globalThis\.failpoint(Sync)?\(".*"\);$/gm, "");
    return /failpoint/i.test(armed) ? [file] : [];
  });
  expect(mentions).toEqual([]);
});

it("failpoints are found with name, file and line", () => {
  expect(findFailpoints(`${root}test/support/faults`)).toContainEqual({
    name: "here",
    isSync: false,
    file: "example/three-workers.ts",
    line: 4,
  });
});

it("a failpoint kills the process when as many have come as asked for, and none of them is past it", async () => {
  expect(await outcome({ here: { action: "kill" } })).toEqual({ code: null, signal: "SIGKILL", output: "" });
  expect(await outcome({ here: { action: "kill", after: 3 } })).toEqual({ code: null, signal: "SIGKILL", output: "" });
});

it("what is said of another failpoint does nothing here", async () => {
  expect(await outcome({ elsewhere: { action: "kill" } })).toMatchObject({ code: 0, output: "0 1 2 end\n" });
});

it("a failpoint throws", async () => {
  expect(await outcome({ here: { action: "throw", after: 2 } })).toMatchObject({ code: 1, output: "0 " });
});

it("a synchronous failpoint kills before the next line", async () => {
  expect(await outcome({ end: { action: "kill" } })).toMatchObject({ signal: "SIGKILL", output: "0 1 2 " });
});

it("a stopped process goes on after SIGCONT, with all that stood there", async () => {
  const { child, ended } = await run({ failpoints: { here: { action: "stop", after: 3 } }, armed: true });
  await once(child.stderr, "data");
  const state = () => /^State:\s+(\w)/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1];
  await until("the process is stopped", () => state() === "T");
  child.kill("SIGCONT");
  const { code, output } = await ended;
  expect(code).toBe(0);
  expect(output.split(" ").toSorted()).toEqual(["0", "1", "2", "end\n"]);
});

it("lines keep their numbers when failpoints are armed", () => {
  const source = "a();\n  // failpoint: one\n// failpoint (sync): two\nb();";
  expect(armFailpoints(source).split("\n")).toEqual([
    "a();",
    '  await globalThis.failpoint("one");',
    'globalThis.failpointSync("two");',
    "b();",
  ]);
});

it.each(guards)("the guard $name stands in the source once, and can be taken out", (guard) => {
  const source = readFileSync(root + guard.file, "utf8");
  expect(mutate(source, guard)).not.toBe(source);
});

it("a mutation whose text is gone, or stands there twice, is an error", () => {
  const mutation = { name: "m", file: "f.ts", find: "x", replace: "y" };
  expect(() => mutate("abc", mutation)).toThrow('mutation "m": its text stands 0 times in f.ts');
  expect(() => mutate("xx", mutation)).toThrow("2 times");
});
