import type { Command } from "commander";
import { choice, collect, collectPair, example, grants, wholeNumber } from "../options.ts";
import { handle, type Cli } from "../session.ts";
import type { TryOptions } from "../try/options.ts";

/** `freshet providers try FILE` */
export function addTryCommand(providers: Command, cli: Cli, builtinFolder: string): void {
  const command = providers
    .command("try <file>")
    .description("walk one connection through a definition file, without a broker, and show every request and answer")
    .addOption(choice("--grant <grant>", "the grant to try (default: as the definition offers)", grants))
    .option("--client-id <id>", "the client's id at the provider")
    .option("--client-secret-file <file>", "file that holds its secret or key, - for stdin (or FRESHET_CLIENT_SECRET)")
    .option("--scope <scope>", "a scope to ask for; repeatable", collect)
    .option("--input <key=value>", "an input of the provider; repeatable", collectPair)
    .option("--port <port>", "where to listen for the callback (default: 8090; 0 for any that is free)", wholeNumber)
    .option("--redirect-uri <uri>", "the one that is registered; what the browser ends at is then pasted here")
    .option("--manual", "the provider shows a code, which is then pasted here")
    .option("--timeout <seconds>", "how long to wait for the person (default: 600)", wholeNumber)
    .option("--username <name>", "for the password grant; its password comes from a file, FRESHET_PASSWORD or a prompt")
    .option("--password-file <file>", "file that holds the password, - for stdin")
    .option("--refresh-token-file <file>", "for --grant import, - for stdin (or FRESHET_REFRESH_TOKEN)")
    .option("--no-refresh", "do not refresh")
    .option("--revoke", "give the grant back at the end")
    .action(
      handle<TryOptions>(cli, async (session, { args: [file = ""], options }) => {
        // Imported here: no other command needs the definitions and their requests.
        const { tryDefinition } = await import("../try/run.ts");
        await tryDefinition(session, { file, builtinFolder, options });
      }),
    );
  example(command, "providers try acme.yaml --client-id 1234 --scope read");
}
