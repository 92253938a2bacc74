import type { Command } from "commander";
import { collectItems, segment } from "../api-client.ts";
import { UsageError } from "../errors.ts";
import {
  clientIdWanted,
  inputWanted,
  providerWanted,
  readClientSecret,
  redirectUriOf,
  tellRegistration,
} from "../making.ts";
import { collect, collectPair, example, requireChange } from "../options.ts";
import type { Column } from "../output.ts";
import { readProvider } from "../provider.ts";
import { createQuestions, readSecret } from "../questions.ts";
import { type Cli, handle, type Session } from "../session.ts";

type AddOptions = {
  provider?: string;
  clientId?: string;
  clientSecretFile?: string;
  public?: boolean;
} & SharedOptions;

type SharedOptions = { scope?: string[]; connections?: string[]; input?: Record<string, string> };

type UpdateOptions = {
  clientId?: string;
  clientSecretFile?: string;
  adminOnly?: boolean;
  ownRedirectUri?: boolean;
} & SharedOptions;

const scopeHelp = "a scope to ask for by default, and all that keys without admin may ask for; repeatable";
const patternHelp = "connections that keys without admin may use it for, such as acme-*; repeatable";

const columns: readonly Column[] = [
  ["NAME", "name"],
  ["PROVIDER", "provider"],
  ["CLIENT ID", "client_id"],
  ["SECRET", "has_secret"],
  ["SCOPES", "scopes"],
  ["CONNECTIONS", "connections"],
  ["CREATED", "created_at"],
];

/** `freshet clients add|list|show|update|delete` */
export function addClientCommands(program: Command, cli: Cli): void {
  const clients = program.command("clients").description("OAuth clients registered at providers");
  example(clients, "clients list");
  defineAdd(clients, cli);
  const list = clients
    .command("list")
    .description("all clients, newest first")
    .option("--provider <id>", "of this provider")
    .action(
      handle<{ provider?: string }>(cli, async ({ api, output }, { options }) =>
        output.list(await collectItems(api(), "/clients", { ...options }), columns),
      ),
    );
  example(list, "clients list", "clients list --provider sandbox");
  const show = clients
    .command("show <name>")
    .description("one client, without its secret")
    .action(
      handle(cli, async ({ api, output }, { args: [name = ""] }) =>
        output.show(await api().get(`/clients/${segment(name)}`)),
      ),
    );
  example(show, "clients show orders-app");
  defineUpdate(clients, cli);
  const remove = clients
    .command("delete <name>")
    .description("delete a client that no connection uses")
    .action(handle(cli, deleteClient));
  example(remove, "clients delete orders-app");
}

function defineAdd(clients: Command, cli: Cli): void {
  const add = clients
    .command("add <name>")
    .description(
      "store a client, and say which redirect URI to register; asks at a terminal for what is missing, its secret too",
    )
    .option("--provider <id>", "the provider it is registered at")
    .option("--client-id <id>", "the id that the provider gave it")
    .option("--client-secret-file <file>", "file that holds its secret, - for stdin (or FRESHET_CLIENT_SECRET)")
    .option("--public", "it has no secret: do not ask for one")
    .option("--scope <scope>", scopeHelp, collect)
    .option("--connections <pattern>", patternHelp, collect)
    .option("--input <key=value>", "an input of the provider; repeatable", collectPair)
    .action(handle(cli, addClient));
  example(add, "clients add orders-app --provider sandbox --client-id 1234 --client-secret-file secret.txt");
}

function defineUpdate(clients: Command, cli: Cli): void {
  const update = clients
    .command("update <name>")
    .description("change what is given; a new secret comes from a file or FRESHET_CLIENT_SECRET")
    .option("--client-id <id>", "the id that the provider gave it")
    .option("--client-secret-file <file>", "file that holds its new secret, - for stdin")
    .option("--scope <scope>", scopeHelp, collect)
    .option("--connections <pattern>", patternHelp, collect)
    .option("--admin-only", "from now on no key without admin may use it; for a key whose patterns cover *")
    .option("--own-redirect-uri", "from now on it has a redirect URI of its own: register that one first")
    .option("--input <key=value>", "another host: needs a new secret, and connections that hold nothing", collectPair)
    .action(handle(cli, updateClient));
  example(
    update,
    "clients update orders-app --client-secret-file secret.txt",
    "clients update orders-app --connections 'acme-*'",
  );
}

async function addClient(session: Session, { args: [name = ""], options }: { args: string[]; options: AddOptions }) {
  const api = session.api();
  const questions = createQuestions(session);
  const id = await questions.text(options.provider, providerWanted);
  const provider = id === "" ? null : await readProvider(api, id);
  if (provider !== null && options.clientId === undefined && session.terminal.interactive) {
    tellRegistration(session, provider, { grant: provider.defaultGrant, client: name });
  }
  const client_id = await questions.text(options.clientId, clientIdWanted);
  const inputs = { ...options.input };
  for (const input of provider?.inputsOfEveryClient ?? []) {
    if (provider !== null) inputs[input] ??= await questions.text(undefined, inputWanted(provider, input));
  }
  questions.requireAll();
  const need = provider?.takesSecret === false ? "none" : "possible";
  const secret = await readClientSecret(session, questions, { options, need });
  const client = await api.post("/clients", {
    name,
    provider: id,
    client_id,
    client_secret: secret,
    scopes: options.scope,
    connections: options.connections,
    inputs: Object.keys(inputs).length === 0 ? undefined : inputs,
  });
  const stored = `Client ${name} is stored${secret === undefined ? ", without a secret" : ""}.`;
  session.output.done(`${stored} ${redirectUriOf(client)}`, client);
  if (options.connections) return;
  session.output.note(
    `Only keys with "admin" can use this client. To open it to others: freshet clients update ${name} --connections PATTERN`,
  );
}

async function updateClient(
  session: Session,
  { args: [name = ""], options }: { args: string[]; options: UpdateOptions },
) {
  if (options.adminOnly && options.connections) throw new UsageError("Give --connections or --admin-only, not both");
  const api = session.api();
  const secret = await readSecret({ file: options.clientSecretFile, variable: "FRESHET_CLIENT_SECRET" }, session);
  const changes = {
    client_id: options.clientId,
    client_secret: secret,
    scopes: options.scope,
    connections: options.adminOnly ? [] : options.connections,
    inputs: options.input,
    own_redirect_uri: options.ownRedirectUri,
  };
  requireChange(
    changes,
    "--client-id, --client-secret-file, --scope, --connections, --admin-only, --input or --own-redirect-uri",
  );
  const client = await api.patch(`/clients/${segment(name)}`, changes);
  const moved = options.ownRedirectUri === undefined ? "" : ` ${redirectUriOf(client)}`;
  session.output.done(`Client ${name} is changed.${moved}`, client);
}

async function deleteClient({ api, output }: Session, { args: [name = ""] }: { args: string[] }) {
  await api().delete(`/clients/${segment(name)}`);
  output.done(`Client ${name} is deleted.`, { deleted: name });
}
