import { PassThrough } from "node:stream";
import { expect } from "vitest";
import { openTerminal } from "../../../src/cli/output.ts";
import { runFreshet } from "../../../src/cli/program.ts";

export type TrySurroundings = {
  env?: Record<string, string>;
  /** What a person does with the address that is shown. The person then types the returned text on stdin. */
  onOpen?: (url: URL) => Promise<string | void>;
  stdin?: string;
  interactive?: boolean;
};

/** One document of `--json`. */
type Step = { step: string; of?: string } & Record<string, unknown>;

/** Runs `freshet providers try` in this process, with a person who does what the test says. Sleeping takes no time. */
export async function runTry(args: string[], surroundings: TrySurroundings = {}) {
  const { env = {}, onOpen, stdin = "", interactive = false } = surroundings;
  const streams = {
    stdin: Object.assign(new PassThrough(), { isTTY: interactive }),
    stdout: new PassThrough(),
    stderr: Object.assign(new PassThrough(), { isTTY: interactive }),
  };
  const said = { out: "", err: "" };
  const opened: Promise<void>[] = [];
  streams.stdout.on("data", (chunk) => {
    said.out += String(chunk);
    const address = /https?:\/\/[^\s"]*[?&]response_type=[^\s"]*/.exec(said.out)?.[0];
    if (address === undefined || opened.length > 0 || !onOpen) return;
    opened.push(onOpen(new URL(address)).then((typed) => void (typed && streams.stdin.write(`${typed}\n`))));
  });
  streams.stderr.on("data", (chunk) => void (said.err += String(chunk)));
  streams.stdin.write(stdin);
  if (!interactive && !onOpen) streams.stdin.end();
  // Time passes only while the walk sleeps.
  const beganMs = Date.now();
  let sleptMs = 0;
  const exitCode = await runFreshet(["providers", "try", ...args], {
    terminal: openTerminal(streams),
    env: { PROVIDER_NETWORKS: "127.0.0.0/8", ...env },
    nowMs: () => beganMs + sleptMs,
    sleep: async (milliseconds) => void (sleptMs += milliseconds),
  });
  await Promise.all(opened);
  await new Promise((resolve) => setImmediate(resolve));
  return { exitCode, sleptMs, ...said, steps: () => said.out.trim().split("\n").map(parse) };
}

/** Fails if the output holds any of these, as they are or as a URL or a form spells them. */
export function expectNone(secrets: Iterable<string>, { out, err }: { out: string; err: string }): void {
  const all = [...secrets].filter((secret) => secret !== "");
  expect(all.length, "there are secrets to look for").toBeGreaterThan(0);
  for (const secret of all.flatMap((each) => [each, encodeURIComponent(each)])) {
    expect(out + err).not.toContain(secret);
  }
}

function parse(line: string): Step {
  return JSON.parse(line) as Step;
}
