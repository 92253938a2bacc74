import type { Command } from "commander";
import { collectItems, segment } from "../api-client.ts";
import { UsageError } from "../errors.ts";
import { collect, collectPair } from "../options.ts";
import { warnOfUnconfirmed, type Column } from "../output.ts";
import { textOf, type Resource } from "../resource.ts";
import { readSecret } from "../secrets.ts";
import { handle, type Cli, type Session } from "../session.ts";

type AddOptions = {
  provider: string;
  client?: string;
  grant?: string;
  scope?: string[];
  input?: Record<string, string>;
  label?: Record<string, string>;
  username?: string;
  passwordFile?: string;
};

type ListOptions = { status?: string; provider?: string; client?: string; label?: string; q?: string };

const columns: readonly Column[] = [
  ["NAME", "name"],
  ["PROVIDER", "provider"],
  ["STATUS", "status"],
  ["VERSION", "version"],
  ["EXPIRES", "expires_at"],
  ["ACCOUNT", "account"],
  ["ATTENTION", "attention.code"],
  ["LABELS", "labels"],
];

/** `freshet connections add|list|show|refresh|confirm|delete` */
export function addConnectionCommands(program: Command, cli: Cli): void {
  const connections = program.command("connections").description("accounts at providers, each with its tokens");
  defineAdd(connections, cli);
  connections
    .command("list")
    .description("all connections, newest first")
    .option("--status <status>", "pending, connected, needs_reauthorization or disabled")
    .option("--provider <id>", "of this provider")
    .option("--client <name>", "of this client")
    .option("--label <key:value>", "with this label")
    .option("--q <text>", "whose name holds this text")
    .action(handle<ListOptions>(cli, listConnections));
  connections
    .command("show <name>")
    .description("one connection; never its tokens")
    .action(handle(cli, async ({ api, output }, { args: [name = ""] }) => output.show(await api().get(pathOf(name)))));
  connections
    .command("refresh <name>")
    .description("get a new token now, or say what the provider does not about the end of its grant")
    .option("--retry-ended", "the grant has ended, or so the provider says: try its refresh token once more")
    .option("--force", "with --retry-ended: though that may end other connections of the same account")
    .option("--end", "it is probably_dead: end it")
    .action(handle(cli, refreshConnection));
  connections
    .command("confirm <name>")
    .description("say whether the other account that it was reconnected with takes its place")
    .option("--accept", "it does")
    .option("--decline", "it does not: the connection keeps what it had")
    .action(handle(cli, confirmAccount));
  connections
    .command("delete <name>")
    .description("revoke its tokens at the provider where that can be done, then delete it")
    .option("--no-revoke", "leave the tokens at the provider alone")
    .action(handle(cli, deleteConnection));
}

function defineAdd(connections: Command, cli: Cli): void {
  connections
    .command("add <name>")
    .description("create a connection; one that needs a person is then connected with: freshet connect NAME")
    .requiredOption("--provider <id>", "the provider of the account")
    .option("--client <name>", "the client to use")
    .option("--grant <grant>", "authorization_code, client_credentials, password, device_code or import")
    .option("--scope <scope>", "a scope to ask for; repeatable", collect)
    .option("--input <key=value>", "an input of the provider; repeatable", collectPair)
    .option("--label <key=value>", "a label of your own; repeatable", collectPair)
    .option("--username <name>", "for the password grant; its password comes from a file, FRESHET_PASSWORD or a prompt")
    .option("--password-file <file>", "file that holds the password, - for stdin")
    .action(handle(cli, addConnection));
}

async function addConnection(session: Session, { args: [name], options }: { args: string[]; options: AddOptions }) {
  const api = session.api();
  const connection = await api.post("/connections", {
    name,
    provider: options.provider,
    client: options.client,
    grant: options.grant,
    scopes: options.scope,
    inputs: options.input,
    labels: options.label,
    credentials: await readCredentials(session, options),
  });
  session.output.done(`Connection ${name} is ${textOf(connection["status"])}.${nextStep(connection)}`, connection);
}

function nextStep({ status, grant, ...connection }: Resource): string {
  const name = textOf(connection["name"]);
  if (status !== "pending") return "";
  if (grant === "authorization_code" || grant === "device_code") return ` Connect it with: freshet connect ${name}`;
  if (grant === "import") return ` Hand over its tokens with: freshet import ${name}`;
  return " The provider is away; the broker tries again by itself.";
}

async function readCredentials(
  session: Session,
  { username, passwordFile }: AddOptions,
): Promise<Resource | undefined> {
  if (username === undefined && passwordFile === undefined) return undefined;
  if (username === undefined) throw new UsageError("--password-file needs --username");
  const question = `Password of ${username} (not shown): `;
  const password = await readSecret({ file: passwordFile, variable: "FRESHET_PASSWORD", question }, session);
  if (password === undefined) throw new UsageError("--username needs a password: --password-file or FRESHET_PASSWORD");
  return { username, password };
}

async function listConnections({ api, output }: Session, { options }: { options: ListOptions }) {
  output.list(await collectItems(api(), "/connections", { ...options }), columns);
}

async function confirmAccount(
  { api, output }: Session,
  { args: [name = ""], options }: { args: string[]; options: { accept?: boolean; decline?: boolean } },
) {
  const accept = options.accept === true;
  if (accept === (options.decline === true)) throw new UsageError("Give --accept or --decline");
  const connection = await api().post(`${pathOf(name)}/account`, { accept });
  const done = accept ? "has the other account from now on" : "keeps the account that it had";
  output.done(`Connection ${name} ${done}.`, connection);
}

type RefreshOptions = { retryEnded?: boolean; force?: boolean; end?: boolean };

async function refreshConnection(
  { api, output }: Session,
  { args: [name = ""], options }: { args: string[]; options: RefreshOptions },
) {
  const { retryEnded = false, force = false, end = false } = options;
  if (end && retryEnded) throw new UsageError("Give --retry-ended or --end, not both");
  if (force && !retryEnded) throw new UsageError("--force goes with --retry-ended");
  const wish = { ...(retryEnded && { retry_ended: true }), ...(force && { force: true }), ...(end && { end: true }) };
  const connection = await api().post(`${pathOf(name)}/refresh`, wish);
  const done = end ? "has ended" : `has version ${textOf(connection["version"])}`;
  output.done(`Connection ${name} ${done}.`, connection);
}

async function deleteConnection(
  { api, output }: Session,
  { args: [name = ""], options: { revoke } }: { args: string[]; options: { revoke: boolean } },
) {
  const unconfirmed = await api().delete(pathOf(name), revoke ? {} : { revoke: false });
  warnOfUnconfirmed(output, unconfirmed, "its token");
  output.done(`Connection ${name} is deleted.`, { deleted: name });
}

function pathOf(name: string): string {
  return `/connections/${segment(name)}`;
}
