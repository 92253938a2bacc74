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
  /** Asks for a line without showing what is typed. @throws CliError when the person gives up. */
  askHidden: (question: string) => Promise<string>;
};

/** `isTTY` says that a person sits at the other end. */
export type TerminalStreams = {
  stdin: Readable & { isTTY?: boolean };
  stdout: Writable;
  stderr: Writable & { isTTY?: boolean };
};

/** The terminal over three streams: answers on stdout, everything for people's eyes alone on stderr. */
export function openTerminal({ stdin, stdout, stderr }: TerminalStreams): Terminal {
  return {
    out: (line) => void stdout.write(line),
    err: (line) => void stderr.write(line),
    interactive: stdin.isTTY === true && stderr.isTTY === true,
    readStdin: () => text(stdin),
    readLine: () => readLine(stdin),
    askHidden: (question) => askHidden(question, stdin, stderr),
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

/** The line editor echoes into a sink: the question is written by hand, the answer is never written. */
async function askHidden(question: string, stdin: Readable, stderr: Writable): Promise<string> {
  const sink = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: stdin, output: sink, terminal: true, historySize: 0 });
  const closed = new Promise<never>((_resolve, reject) => {
    lines.once("close", () => reject(new CliError("Nothing was entered", "cancelled")));
  });
  stderr.write(question);
  try {
    return await Promise.race([lines.question(""), closed]);
  } finally {
    lines.close();
    stderr.write("\n");
  }
}
