import { Command } from "commander";
import { type ApiClient, createApiClient } from "./api-client.ts";
import { UsageError } from "./errors.ts";
import { createOutput, type Output, type Terminal } from "./output.ts";
import { type Environment, readSettings, type Settings } from "./settings.ts";

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
  /** Made only when a command needs it: a command that works offline needs no key. */
  api: () => ApiClient;
};

type Handler<Options> = (session: Session, input: { args: string[]; options: Options }) => Promise<void>;
type Action = (...given: unknown[]) => Promise<void>;

/** Turns a handler into a commander action: `args` are the operands, `options` the command's own options. */
export function handle<Options extends object>(cli: Cli, handler: Handler<Options>): Action {
  return async (...given) => {
    const command = given.at(-1);
    if (!(command instanceof Command)) throw new TypeError("commander passes the command last");
    refuseEmpty(command);
    const settings = readSettings(cli.env);
    const output = createOutput(cli.terminal, command.optsWithGlobals()["json"] === true);
    const session = { ...cli, settings, output, api: () => createApiClient(settings) };
    await handler(session, { args: command.args, options: command.opts<Options>() });
  };
}

/** A shell leaves an empty option where its variable is not set. Only free text may be empty. */
function refuseEmpty(command: Command): void {
  const empty = command.options.find(
    (option) =>
      !option.flags.endsWith("<text>") &&
      [command.getOptionValue(option.attributeName()) as unknown].flat().includes(""),
  );
  if (empty !== undefined) throw new UsageError(`${empty.long} is empty: write ${empty.flags}, or leave it away`);
}
