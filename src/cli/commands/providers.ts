import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { projectRoot } from "../../root.ts";
import { collectItems, segment } from "../api-client.ts";
import { example } from "../options.ts";
import type { Column } from "../output.ts";
import { handle, type Cli, type Session } from "../session.ts";
import { endOnFaults } from "../try/faults.ts";
import { addTryCommand } from "./try.ts";

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
  addTryCommand(providers, cli, builtinFolder);
}

async function showProvider({ api, output }: Session, { args: [id = ""] }: { args: string[] }) {
  output.show(await api().get(`/providers/${segment(id)}`));
}

async function checkFile({ output, settings }: Session, { args: [file = ""] }: { args: string[] }) {
  // Imported here: no other command needs the definitions' schema.
  const { readDefinition } = await import("../../providers/read-definition.ts");
  const { hintsOn } = await import("../../providers/dead-grant.ts");
  const { readNetworks } = await import("../try/networks.ts");
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
