import type { Command } from "commander";
import { collectItems, segment, type ApiClient } from "../api-client.ts";
import { CliError } from "../errors.ts";
import { collect, collectOf, collectPair, example } from "../options.ts";
import { warnOfUnconfirmed, type Column } from "../output.ts";
import { createQuestions } from "../questions.ts";
import { textOf } from "../resource.ts";
import { handle, type Cli, type Session } from "../session.ts";

const abilities = ["tokens", "connections", "admin"] as const;

type AddOptions = {
  ability?: string[];
  connection?: string[];
  label?: Record<string, string>;
  expiresAt?: string;
};

const columns: readonly Column[] = [
  ["ID", "id"],
  ["NAME", "name"],
  ["ABILITIES", "abilities"],
  ["CONNECTIONS", "connections"],
  ["LABELS", "labels"],
  ["EXPIRES", "expires_at"],
  ["REVOKED", "revoked_at"],
  ["CREATED", "created_at"],
  ["LAST USED", "last_used_at"],
];

/** `freshet keys add|list|revoke` */
export function addKeyCommands(program: Command, cli: Cli): void {
  const keys = program.command("keys").description("the keys that services call the broker with");
  example(keys, "keys list");
  const add = keys
    .command("add <name>")
    .description("create a key and print it, once: the broker keeps only its hash")
    .option("--ability <ability>", `${abilities.join(", ")}; repeatable`, collectOf(abilities))
    .option("--connection <pattern>", "connections that it is for, such as acme-*; repeatable", collect)
    .option("--label <key=value>", "only connections that carry this label; repeatable", collectPair)
    .option("--expires-at <time>", "when it ends, as 2027-01-31T00:00:00Z")
    .action(handle(cli, addKey));
  example(add, "keys add billing --ability tokens --connection 'acme-*'");
  const list = keys
    .command("list")
    .description("all keys, newest first; never the keys themselves")
    .action(handle(cli, async ({ api, output }) => output.list(await collectItems(api(), "/keys"), columns)));
  example(list, "keys list");
  const revoke = keys.command("revoke <id>").description("end a key, by its id").action(handle(cli, revokeKey));
  example(revoke, "keys revoke 7hq2");
}

async function addKey(session: Session, { args: [name = ""], options }: { args: string[]; options: AddOptions }) {
  const { api, output } = session;
  const question = `Ability (${abilities.join(", ")}): `;
  const questions = createQuestions(session);
  const ability = options.ability ?? [
    await questions.text(undefined, { option: `--ability <${abilities.join("|")}>`, question }),
  ];
  questions.requireAll();
  const { connection: connections, label: labels, expiresAt: expires_at } = options;
  const body = { name, abilities: ability, connections, labels, expires_at };
  const created = await api().post("/keys", body);
  output.note(`Key ${name} (${textOf(created["id"])}) is created. It is shown this once:`);
  output.value(textOf(created["key"]), created);
}

async function revokeKey({ api, output }: Session, { args: [id = ""] }: { args: string[] }) {
  const unconfirmed = await api()
    .delete(`/keys/${segment(id)}`)
    .catch(async (error: unknown) => {
      throw await naming(api(), error, id);
    });
  warnOfUnconfirmed(output, unconfirmed, "callers with it");
  output.done(`Key ${id} is revoked.`, { revoked: id });
}

/** Names are not unique, so a key is revoked by its id. Somebody who gives a name is told the ids. */
async function naming(api: ApiClient, failure: unknown, name: string): Promise<unknown> {
  if (!(failure instanceof CliError) || failure.code !== "not_found") return failure;
  const { items } = await collectItems(api, "/keys");
  const ids = items.filter((key) => key["name"] === name && key["revoked_at"] === null).map((key) => textOf(key["id"]));
  if (ids.length === 0) return failure;
  return new CliError(`A key is named by its id: ${ids.join(", ")} for "${name}"`, failure.code);
}
