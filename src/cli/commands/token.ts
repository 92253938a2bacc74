import type { Command } from "commander";
import { segment } from "../api-client.ts";
import { example, wholeNumber } from "../options.ts";
import { resourcesIn, textOf } from "../resource.ts";
import { handle, type Cli, type Session } from "../session.ts";

type TokenOptions = { minTtl?: number; rejectedVersion?: number; wait?: number; token?: string };

/** `freshet token NAME` */
export function addTokenCommand(program: Command, cli: Cli): void {
  const command = program
    .command("token <connection>")
    .description("print a fresh access token, and nothing else; --json prints the whole answer")
    .option("--min-ttl <seconds>", "how long it must live at least", wholeNumber)
    .option("--rejected-version <version>", "the version that the provider answered 401 to", wholeNumber)
    .option("--wait <seconds>", "how long to wait for a refresh in flight", wholeNumber)
    .option("--token <name>", "a further token of the connection, such as a user's own, by its name")
    .action(handle(cli, printToken));
  example(command, "token acme-orders", "token acme-orders --rejected-version 7");
}

async function printToken(
  { api, output }: Session,
  { args: [name = ""], options }: { args: string[]; options: TokenOptions },
) {
  const answer = await api().get(`/tokens/${segment(name)}`, {
    min_ttl: options.minTtl,
    rejected_version: options.rejectedVersion,
    wait: options.wait,
    token: options.token,
  });
  for (const warning of resourcesIn(answer["warnings"])) output.warn(warning);
  output.value(textOf(answer["access_token"]), answer);
}
