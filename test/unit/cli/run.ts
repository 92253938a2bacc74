import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { openTerminal } from "../../../src/cli/output.ts";
import { runFreshet } from "../../../src/cli/program.ts";

export type Surroundings = {
  env?: Record<string, string>;
  /** The text on stdin; with `interactive`, what a person types. */
  stdin?: string;
  interactive?: boolean;
};

export const testKey = "frt_test_key";

/** Runs one command line in this process, over streams of its own. Waiting takes no time: the clock jumps instead. */
export async function run(args: string[], { env = {}, stdin = "", interactive = false }: Surroundings = {}) {
  const streams = {
    stdin: Object.assign(new PassThrough(), { isTTY: interactive }),
    stdout: new PassThrough(),
    stderr: Object.assign(new PassThrough(), { isTTY: interactive }),
  };
  let nowMs = Date.parse("2026-11-20T12:00:00Z");
  streams.stdin.write(stdin);
  if (!interactive) streams.stdin.end();
  const exitCode = await runFreshet(args, {
    terminal: openTerminal(streams),
    env: { FRESHET_KEY: testKey, ...env },
    nowMs: () => nowMs,
    sleep: async (milliseconds) => void (nowMs += milliseconds),
  });
  streams.stdout.end();
  streams.stderr.end();
  return { exitCode, out: await text(streams.stdout), err: await text(streams.stderr) };
}
