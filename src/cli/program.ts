import { Command, CommanderError } from "commander";
import manifest from "../../package.json" with { type: "json" };
import { addAuditCommands } from "./commands/audit.ts";
import { addClientCommands } from "./commands/clients.ts";
import { addConnectCommand } from "./commands/connect.ts";
import { addConnectionCommands } from "./commands/connections.ts";
import { addEncryptionCommands } from "./commands/encryption.ts";
import { addImportCommand } from "./commands/import.ts";
import { addKeyCommands } from "./commands/keys.ts";
import { addWorkloadCommands } from "./commands/workloads.ts";
import { addProviderCommands } from "./commands/providers.ts";
import { addRecoverCommand } from "./commands/recover.ts";
import { addTokenCommand } from "./commands/token.ts";
import { didYouMean } from "../text.ts";
import { CliError, UsageError } from "./errors.ts";
import { example } from "./options.ts";
import { printable } from "./output.ts";
import type { Cli } from "./session.ts";

/**
 * Runs one command line, without the program's own name.
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage. A failure has been printed on stderr, in one line.
 */
export async function runFreshet(args: readonly string[], cli: Cli): Promise<number> {
  try {
    const program = buildProgram(cli);
    const topic = helpTopic(program, args);
    if (topic === null) await program.parseAsync(args, { from: "user" });
    else topic.outputHelp();
    return 0;
  } catch (error) {
    return report(error, cli);
  }
}

function buildProgram(cli: Cli): Command {
  const program = new Command("freshet")
    .description(
      "Talks to a Freshet broker: FRESHET_URL says where it is, FRESHET_KEY or FRESHET_KEY_FILE with which key.",
    )
    .version(manifest.version)
    .option("--json", "answer in JSON, one document per line")
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ writeOut: cli.terminal.out, writeErr: cli.terminal.err, outputError: () => undefined })
    .exitOverride();
  example(program, "connect acme-orders --provider sandbox", "connections list", "token acme-orders");
  addTokenCommand(program, cli);
  addConnectCommand(program, cli);
  addImportCommand(program, cli);
  addConnectionCommands(program, cli);
  addClientCommands(program, cli);
  addKeyCommands(program, cli);
  addWorkloadCommands(program, cli);
  addAuditCommands(program, cli);
  addProviderCommands(program, cli);
  addRecoverCommand(program, cli);
  addEncryptionCommands(program, cli);
  return program;
}

/** The command whose help is asked for by `help`; null: none is. Commander's own `help` takes an unknown name for none. */
function helpTopic(program: Command, args: readonly string[]): Command | null {
  const at = args.indexOf("help");
  if (at < 0) return null;
  const group = args.slice(0, at).reduce<Command | undefined>(childOf, program);
  if (group === undefined || group.commands.length === 0) return null;
  return args
    .slice(at + 1)
    .filter((word) => !word.startsWith("-"))
    .reduce((topic, name) => {
      const child = childOf(topic, name);
      if (child !== undefined) return child;
      const names = topic.commands.map((each) => each.name());
      throw new UsageError(`There is no command "${name}".${didYouMean(name, names)} "freshet help" names all`);
    }, group);
}

const childOf = (command: Command | undefined, name: string) => command?.commands.find((each) => each.name() === name);

function report(error: unknown, { terminal }: Cli): number {
  if (error instanceof CommanderError) return reportUsage(error, terminal.err);
  const known = error instanceof CliError ? error : new CliError(`A fault in this program: ${String(error)}`, "fault");
  terminal.err(`freshet: ${printable(known.message)} (${printable(known.code)})\n`);
  return known.exitCode;
}

/** Commander has printed help and version by then; its errors come here unprinted. */
function reportUsage(error: CommanderError, err: (text: string) => void): number {
  if (error.exitCode === 0) return 0;
  if (error.code !== "commander.help") err(`freshet: ${printable(withoutValues(error))} (usage)\n`);
  return 2;
}

/** An argument may be a secret in the wrong place, so no message repeats it. */
function withoutValues({ code, message }: CommanderError): string {
  const text = message.replace(/^error: /, "");
  if (code === "commander.invalidArgument") return text.replace(/ argument '.*' is invalid\./s, ":");
  if (code === "commander.unknownOption") return withPlaceOfSecret(text.replace(/=.*'/s, "'"));
  if (code === "commander.excessArguments") return text.replace(/(?<=but got \d+): .*$/s, ".");
  return text;
}

/** Options that people try first for a secret, and where the secret comes from. */
const placesOfSecrets: Readonly<Record<string, string>> = {
  "--client-secret": "--client-secret-file FILE, FRESHET_CLIENT_SECRET, or the prompt",
  "--secret": "--client-secret-file FILE, FRESHET_CLIENT_SECRET, or the prompt",
  "--password": "--password-file FILE, FRESHET_PASSWORD, or the prompt",
  "--refresh-token": "--refresh-token-file FILE or FRESHET_REFRESH_TOKEN",
  "--access-token": "--access-token-file FILE or FRESHET_ACCESS_TOKEN",
  "--code": "--code-file FILE, or the prompt",
  "--key": "FRESHET_KEY_FILE or FRESHET_KEY",
};

function withPlaceOfSecret(text: string): string {
  const option = /'(--[a-z-]+)'/.exec(text)?.[1] ?? "";
  const places = Object.hasOwn(placesOfSecrets, option) ? placesOfSecrets[option] : undefined;
  return places === undefined ? text : `unknown option '${option}'. No secret is an argument: ${places}`;
}
