import { Command } from "commander";
import { createApiClient, type ApiClient } from "./api-client.ts";
import { createOutput, type Output } from "./output.ts";
import { readSettings, type Environment, type Settings } from "./settings.ts";
import type { Terminal } from "./terminal.ts";

/** Everything outside that a command may touch. */
export type Cli = {
  terminal: Terminal;
  env: Environment;
  nowMs: () => number;
  sleep: (milliseconds: number) => Promise<void>;
};

/** One run of one command. */
export type Session = Cli & {
  output: Output;
  settings: Settings;
  /** Asked for where it is needed: a command that works offline needs no key. */
  api: () => ApiClient;
};

type Handler<Options> = (session: Session, input: { args: string[]; options: Options }) => Promise<void>;
type Action = (...given: unknown[]) => Promise<void>;

/** Turns a handler into a commander action: `args` are the operands, `options` the command's own options. */
export function handle<Options extends object>(cli: Cli, handler: Handler<Options>): Action {
  return async (...given) => {
    const command = given.at(-1);
    if (!(command instanceof Command)) throw new TypeError("commander passes the command last");
    const settings = readSettings(cli.env);
    const output = createOutput(cli.terminal, command.optsWithGlobals()["json"] === true);
    const session = { ...cli, settings, output, api: () => createApiClient(settings) };
    await handler(session, { args: command.args, options: command.opts<Options>() });
  };
}
