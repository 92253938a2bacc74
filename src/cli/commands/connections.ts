import type { Command } from "commander";
import { connectionGrants, rulesOfGrant } from "../../grant-types.ts";
import { collectItems, segment } from "../api-client.ts";
import { UsageError } from "../errors.ts";
import { type ConnectionOptions, createConnection, readNewCredentials } from "../making.ts";
import { choice, collect, collectPair, example, requireChange, wholeNumber } from "../options.ts";
import { type Column, warnOfUnconfirmed } from "../output.ts";
import { readProvider } from "../provider.ts";
import {
  addInputOptions,
  createQuestions,
  type InputOptions,
  readInput,
  readInputs,
  refuseSecretArguments,
} from "../questions.ts";
import { isResource, type Resource, resourcesIn, textOf } from "../resource.ts";
import { type Cli, handle, type Session } from "../session.ts";

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

const eventColumns: readonly Column[] = [
  ["AT", "at"],
  ["EVENT", "type"],
  ["DETAIL", "detail"],
];

const statuses = ["pending", "connected", "needs_reauthorization", "disabled"] as const;

/** `freshet connections add|list|show|update|disable|enable|refresh|events|code|confirm|delete` */
export function addConnectionCommands(program: Command, cli: Cli): void {
  const connections = program.command("connections").description("accounts at providers, each with its tokens");
  example(connections, "connections list");
  defineAdd(connections, cli);
  defineLooks(connections, cli);
  defineChanges(connections, cli);
  defineGrants(connections, cli);
  const remove = connections
    .command("delete <name>")
    .description("revoke its tokens at the provider where that can be done, then delete it")
    .option("--no-revoke", "leave the tokens at the provider alone")
    .action(handle(cli, deleteConnection));
  example(remove, "connections delete acme-orders");
}

function defineAdd(connections: Command, cli: Cli): void {
  const add = connections
    .command("add <name>")
    .description(
      "create a connection; one that needs a person is then connected with: freshet connect NAME (which can make it, too)",
    );
  addConnectionOptions(add).action(handle(cli, addConnection));
  example(add, "connections add acme-orders --provider sandbox --client orders-app --grant client_credentials");
}

/** What a new connection may be given, wherever it is made. */
export function addConnectionOptions(command: Command): Command {
  command
    .option("--provider <id>", "the provider of the account")
    .option("--client <name>", "the client to use (default: the only one of the provider)")
    .addOption(
      choice("--grant <grant>", `${connectionGrants.join(", ")} (default: the provider's usual one)`, connectionGrants),
    )
    .option("--scope <scope>", "a scope to ask for; repeatable", collect);
  return addInputOptions(command, "an input of the provider; repeatable")
    .option("--label <key=value>", "a label of your own; repeatable", collectPair)
    .option("--username <name>", "for the password grant; its password comes from a file, FRESHET_PASSWORD or a prompt")
    .option("--password-file <file>", "file that holds the password, - for stdin");
}

function defineLooks(connections: Command, cli: Cli): void {
  const list = connections
    .command("list")
    .description("all connections, newest first")
    .addOption(choice("--status <status>", statuses.join(", "), statuses))
    .option("--provider <id>", "of this provider")
    .option("--client <name>", "of this client")
    .option("--label <key:value>", "with this label")
    .option("--q <text>", "whose name holds this text")
    .action(handle<ListOptions>(cli, listConnections));
  example(list, "connections list --status needs_reauthorization");
  const show = connections
    .command("show <name>")
    .description("one connection; never its tokens")
    .action(handle(cli, async ({ api, output }, { args: [name = ""] }) => output.show(await api().get(pathOf(name)))));
  example(show, "connections show acme-orders");
  const events = connections
    .command("events <name>")
    .description("its history, newest first")
    .option("--limit <count>", "how many events (default: 50, at most 200)", wholeNumber)
    .action(handle(cli, showEvents));
  example(events, "connections events acme-orders --limit 5");
}

function defineChanges(connections: Command, cli: Cli): void {
  const update = connections
    .command("update <name>")
    .description("change what is given; scopes and labels are replaced as a whole")
    .option("--scope <scope>", "a scope to ask for from now on; repeatable", collect)
    .option("--label <key=value>", "a label of your own; repeatable", collectPair)
    .option("--no-labels", "without any label");
  addInputOptions(update, "another value of an input; repeatable")
    .option("--username <name>", "new credentials; the password comes from a file, FRESHET_PASSWORD or a prompt")
    .option("--password-file <file>", "file that holds the password, - for stdin")
    .action(handle(cli, updateConnection));
  example(update, "connections update acme-orders --label team=billing");
  const disable = connections
    .command("disable <name>")
    .description("give out no token of it until it is enabled again")
    .action(handle(cli, switchConnection(true)));
  example(disable, "connections disable acme-orders");
  const enable = connections
    .command("enable <name>")
    .description("give out its tokens again")
    .action(handle(cli, switchConnection(false)));
  example(enable, "connections enable acme-orders");
}

function defineGrants(connections: Command, cli: Cli): void {
  const refresh = connections
    .command("refresh <name>")
    .description("get a new token now, or say what the provider does not about the end of its grant")
    .option("--retry-ended", "the grant has ended, or so the provider says: try its refresh token once more")
    .option("--force", "with --retry-ended: though that may end other connections of the same account")
    .option("--end", "it is probably_dead: end it")
    .action(handle(cli, refreshConnection));
  example(refresh, "connections refresh acme-orders");
  const code = connections
    .command("code <name>")
    .description("hand in an authorization code that a person copied from the provider's page")
    .option("--code-file <file>", "file that holds the code, - for stdin (default: a prompt)")
    .action(handle(cli, handInCode));
  example(code, "connections code acme-kitchen", "connections code acme-kitchen --code-file -");
  const confirm = connections
    .command("confirm <name>")
    .description("say whether the other account that it was reconnected with takes its place")
    .option("--accept", "it does")
    .option("--decline", "it does not: the connection keeps what it had")
    .action(handle(cli, confirmAccount));
  example(confirm, "connections confirm acme-crm --accept");
}

async function addConnection(
  session: Session,
  { args: [name = ""], options }: { args: string[]; options: ConnectionOptions },
) {
  const connection = await createConnection(session, { name, options, mayMakeClient: false });
  session.output.done(`Connection ${name} is ${textOf(connection["status"])}.${nextStep(connection)}`, connection);
}

function nextStep({ status, grant, last_error: failure, ...connection }: Resource): string {
  const name = textOf(connection["name"]);
  if (status !== "pending") return "";
  if (rulesOfGrant(textOf(grant)).consent !== null) return ` Connect it with: freshet connect ${name}`;
  if (grant === "import") return ` Hand over its tokens with: freshet import ${name}`;
  const why = isResource(failure) ? textOf(failure["detail"]) : "the provider is away";
  return ` It has no token yet, and the broker tries again by itself: ${why}.`;
}

type UpdateOptions = {
  scope?: string[];
  label?: Record<string, string>;
  labels: boolean;
  username?: string;
  passwordFile?: string;
} & InputOptions;

async function updateConnection(
  session: Session,
  { args: [name = ""], options }: { args: string[]; options: UpdateOptions },
) {
  const { scope, label, labels } = options;
  if (!labels && label !== undefined) throw new UsageError("Give --label or --no-labels, not both");
  const inputs = await readNewInputs(session, name, options);
  const changes = { scopes: scope, labels: labels ? label : {}, inputs };
  const credentials = await readNewCredentials(session, options);
  const body = { ...changes, credentials };
  requireChange(body, "--scope, --label, --no-labels, --input, --secret-input or --username");
  const connection = await session.api().patch(pathOf(name), body);
  session.output.done(`Connection ${name} is changed.`, connection);
}

async function readNewInputs(session: Session, name: string, options: InputOptions) {
  if (options.input !== undefined) {
    const api = session.api();
    const { provider } = await api.get(pathOf(name));
    refuseSecretArguments(options, await readProvider(api, textOf(provider)));
  }
  const questions = createQuestions(session);
  const inputs = await readInputs(questions, options);
  questions.requireAll();
  return inputs;
}

function switchConnection(disabled: boolean) {
  return async ({ api, output }: Session, { args: [name = ""] }: { args: string[] }) => {
    const connection = await api().patch(pathOf(name), { disabled });
    output.done(`Connection ${name} is ${textOf(connection["status"])}.`, connection);
  };
}

async function showEvents(
  { api, output }: Session,
  { args: [name = ""], options }: { args: string[]; options: { limit?: number } },
) {
  const page = await api().get(`${pathOf(name)}/events`, { limit: options.limit });
  output.list({ ...page, items: resourcesIn(page["items"]) }, eventColumns);
}

async function handInCode(
  session: Session,
  { args: [name = ""], options }: { args: string[]; options: { codeFile?: string } },
) {
  const code = await readCode(session, options.codeFile);
  const connection = await session.api().post(`${pathOf(name)}/code`, { code });
  session.output.done(`Connection ${name} is ${textOf(connection["status"])}.`, connection);
}

/** A code works until somebody uses it. So it is not an argument, like a secret. */
async function readCode(session: Session, file: string | undefined): Promise<string> {
  const { terminal } = session;
  if (file !== undefined) return (await readInput(file, terminal)).trim();
  if (terminal.interactive) return (await terminal.askHidden("Code (not shown): ")).trim();
  throw new UsageError("Missing: --code-file <file>, - for stdin");
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
