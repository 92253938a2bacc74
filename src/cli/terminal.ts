import { createInterface } from "node:readline/promises";
import type { Readable } from "node:stream";
import { Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { CliError } from "./errors.ts";

/** What a command sees of the terminal it runs in. */
export type Terminal = {
  out: (text: string) => void;
  err: (text: string) => void;
  /** True when a person can be asked. */
  interactive: boolean;
  readStdin: () => Promise<string>;
  /** The next line of stdin, before its end has come. @throws CliError when it ends without one. */
  readLine: () => Promise<string>;
  /** Asks for a line. @throws CliError when the person gives up. */
  ask: (question: string) => Promise<string>;
  /** The same, without showing what is typed. */
  askHidden: (question: string) => Promise<string>;
};

/** `isTTY` says that a person sits at the other end. */
export type TerminalStreams = {
  stdin: Readable & { isTTY?: boolean };
  stdout: Writable;
  stderr: Writable & { isTTY?: boolean; columns?: number };
};

/** The terminal over three streams: answers on stdout, everything for people's eyes alone on stderr. */
export function openTerminal({ stdin, stdout, stderr }: TerminalStreams): Terminal {
  /** Lines that came with the answer to an earlier question: several were pasted at once. */
  const ahead: string[] = [];
  const ask = async (question: string, shows: boolean) => {
    const pasted = ahead.shift();
    if (pasted === undefined) return await editLine({ stdin, stderr, ahead, question, shows });
    stderr.write(`${question}${shows ? pasted : ""}\n`);
    return pasted;
  };
  return {
    out: (line) => void stdout.write(line),
    err: (line) => void stderr.write(line),
    interactive: stdin.isTTY === true && stderr.isTTY === true,
    readStdin: () => text(stdin),
    readLine: () => readLine(stdin),
    ask: (question) => ask(question, true),
    askHidden: (question) => ask(question, false),
  };
}

async function readLine(stdin: Readable): Promise<string> {
  const lines = createInterface({ input: stdin, terminal: false });
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  lines.once("line", resolve);
  lines.once("close", () => reject(new CliError("Nothing was entered", "cancelled")));
  try {
    return await promise;
  } finally {
    lines.close();
  }
}

type Editing = Pick<TerminalStreams, "stdin" | "stderr"> & { ahead: string[]; question: string; shows: boolean };

/**
 * The next line that is typed. One that must not be seen is echoed nowhere, and neither is what was pasted behind it: further lines of the
 * same chunk are kept in `ahead`, and may be secrets.
 */
async function editLine({ stdin, stderr, ahead, question, shows }: Editing): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let isAnswered = false;
  const echo = new Writable({
    write(chunk, _encoding, done) {
      if (shows && !isAnswered) stderr.write(chunk);
      done();
    },
  });
  const output = Object.assign(echo, { columns: stderr.columns });
  const lines = createInterface({ input: stdin, output, terminal: true, historySize: 0 });
  lines.on("line", (line) => {
    if (isAnswered) ahead.push(line);
    else resolve(line);
    isAnswered = true;
  });
  lines.once("close", () => reject(new CliError("Nothing was entered", "cancelled")));
  if (!shows) stderr.write(question);
  lines.setPrompt(shows ? question : "");
  lines.prompt();
  try {
    return await promise;
  } finally {
    lines.close();
    if (!shows || !isAnswered) stderr.write("\n");
  }
}
