import type { Command } from "commander";
import { collectItems, segment } from "../api-client.ts";
import { collect } from "../options.ts";
import { warnOfUnconfirmed, type Column } from "../output.ts";
import { textOf } from "../resource.ts";
import { handle, type Cli, type Session } from "../session.ts";

type AddOptions = { ability: string[]; connection?: string[]; expiresAt?: string };

const columns: readonly Column[] = [
  ["ID", "id"],
  ["NAME", "name"],
  ["ABILITIES", "abilities"],
  ["CONNECTIONS", "connections"],
  ["EXPIRES", "expires_at"],
  ["REVOKED", "revoked_at"],
  ["CREATED", "created_at"],
];

/** `freshet keys add|list|revoke` */
export function addKeyCommands(program: Command, cli: Cli): void {
  const keys = program.command("keys").description("the keys that services call the broker with");
  keys
    .command("add <name>")
    .description("create a key and print it, once: the broker keeps only its hash")
    .requiredOption("--ability <ability>", "tokens, connections or admin; repeatable", collect)
    .option("--connection <pattern>", "connections that it is for, such as acme-*; repeatable", collect)
    .option("--expires-at <time>", "when it ends, as 2027-01-31T00:00:00Z")
    .action(handle(cli, addKey));
  keys
    .command("list")
    .description("all keys, newest first; never the keys themselves")
    .action(handle(cli, async ({ api, output }) => output.list(await collectItems(api(), "/keys"), columns)));
  keys.command("revoke <id>").description("end a key").action(handle(cli, revokeKey));
}

async function addKey({ api, output }: Session, { args: [name], options }: { args: string[]; options: AddOptions }) {
  const body = { name, abilities: options.ability, connections: options.connection, expires_at: options.expiresAt };
  const created = await api().post("/keys", body);
  output.note(`Key ${name} (${textOf(created["id"])}) is created. It is shown this once:`);
  output.value(textOf(created["key"]), created);
}

async function revokeKey({ api, output }: Session, { args: [id = ""] }: { args: string[] }) {
  warnOfUnconfirmed(output, await api().delete(`/keys/${segment(id)}`), "callers with it");
  output.done(`Key ${id} is revoked.`, { revoked: id });
}
