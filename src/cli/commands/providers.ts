import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { connectionGrants } from "../../grant-types.ts";
import { projectRoot } from "../../root.ts";
import { cliTimes } from "../../time.ts";
import { collectItems, segment } from "../api-client.ts";
import { choice, collect, collectPair, example, wholeNumber } from "../options.ts";
import type { Column } from "../output.ts";
import { type Cli, handle, type Session } from "../session.ts";
import { endOnFaults, type TryOptions } from "../try/prepare.ts";

const columns: readonly Column[] = [
  ["ID", "id"],
  ["NAME", "name"],
  ["GRANTS", "grants"],
  ["NETWORKS", "networks"],
  ["REDIRECT URI", "redirect_uri"],
];

const builtinFolder = fileURLToPath(new URL("providers", projectRoot));

/** `freshet providers list|show|check|try` */
export function addProviderCommands(program: Command, cli: Cli): void {
  const providers = program.command("providers").description("provider definitions");
  example(providers, "providers list");
  const list = providers
    .command("list")
    .description("the definitions in force, with the redirect URI to register")
    .action(handle(cli, async ({ api, output }) => output.list(await collectItems(api(), "/providers"), columns)));
  example(list, "providers list");
  const show = providers.command("show <id>").description("one definition in force").action(handle(cli, showProvider));
  example(show, "providers show sandbox");
  const check = providers
    .command("check <file>")
    .description("check a definition file; works offline (what it extends may stand in PROVIDERS_DIR)")
    .action(handle(cli, checkFile));
  example(check, "providers check acme.yaml");
  addTryCommand(providers, cli);
}

async function showProvider({ api, output }: Session, { args: [id = ""] }: { args: string[] }) {
  output.show(await api().get(`/providers/${segment(id)}`));
}

async function checkFile({ output, settings }: Session, { args: [file = ""] }: { args: string[] }) {
  // Imported here: no other command needs the definitions' schema.
  const { readDefinition } = await import("../../providers/load/catalog.ts");
  const { hintsOn } = await import("../../providers/load/check-definition.ts");
  const { readNetworks } = await import("../try/prepare.ts");
  const surroundings = { builtinFolder, extraFolder: settings.providersDir, networks: readNetworks(settings) };
  const read = readDefinition(file, surroundings);
  if ("definition" in read) {
    const hints = read.definition === null ? [] : hintsOn(read.definition);
    output.done(`${file} is right.`, { file, problems: [], hints });
    if (!output.json) for (const hint of hints) output.note(`hint: ${hint}`);
    return;
  }
  if (output.json) output.show({ file, problems: read.problems });
  throw endOnFaults(file, read.problems, output.json ? () => undefined : output.note);
}

/** `freshet providers try FILE` */
function addTryCommand(providers: Command, cli: Cli): void {
  const command = providers
    .command("try <file>")
    .description("walk one connection through a definition file, without a broker, and show every request and answer")
    .addOption(choice("--grant <grant>", "the grant to try (default: as the definition offers)", connectionGrants))
    .option("--client-id <id>", "the client's id at the provider")
    .option("--client-secret-file <file>", "file that holds its secret or key, - for stdin (or FRESHET_CLIENT_SECRET)")
    .option("--scope <scope>", "a scope to ask for; repeatable", collect)
    .option("--input <key=value>", "an input of the provider; repeatable", collectPair)
    .option("--port <port>", "where to listen for the callback (default: 8090; 0 for any that is free)", wholeNumber)
    .option("--redirect-uri <uri>", "the one that is registered; what the browser ends at is then pasted here")
    .option("--manual", "the provider shows a code, which is then pasted here")
    .option(
      "--timeout <seconds>",
      `how long to wait for the person (default: ${cliTimes.tryTimeoutSeconds})`,
      wholeNumber,
    )
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
