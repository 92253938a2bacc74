import type { Command } from "commander";
import { collectItems, segment } from "../api-client.ts";
import { UsageError } from "../errors.ts";
import { collect, collectPair } from "../options.ts";
import type { Column } from "../output.ts";
import { readSecret } from "../secrets.ts";
import { handle, type Cli, type Session } from "../session.ts";

type AddOptions = {
  provider: string;
  clientId: string;
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
  clients
    .command("add <name>")
    .description("store a client; its secret comes from a file, FRESHET_CLIENT_SECRET or a prompt")
    .requiredOption("--provider <id>", "the provider it is registered at")
    .requiredOption("--client-id <id>", "the id that the provider gave it")
    .option("--client-secret-file <file>", "file that holds its secret, - for stdin")
    .option("--public", "it has no secret: do not ask for one")
    .option("--scope <scope>", scopeHelp, collect)
    .option("--connections <pattern>", patternHelp, collect)
    .option("--input <key=value>", "an input of the provider; repeatable", collectPair)
    .action(handle(cli, addClient));
  clients
    .command("list")
    .description("all clients, newest first")
    .action(handle(cli, async ({ api, output }) => output.list(await collectItems(api(), "/clients"), columns)));
  clients
    .command("show <name>")
    .description("one client, without its secret")
    .action(
      handle(cli, async ({ api, output }, { args: [name = ""] }) =>
        output.show(await api().get(`/clients/${segment(name)}`)),
      ),
    );
  clients
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
  clients
    .command("delete <name>")
    .description("delete a client that no connection uses")
    .action(handle(cli, deleteClient));
}

async function addClient(session: Session, { args: [name], options }: { args: string[]; options: AddOptions }) {
  const api = session.api();
  const secret = options.public
    ? undefined
    : await readSecret(
        {
          file: options.clientSecretFile,
          variable: "FRESHET_CLIENT_SECRET",
          question: "Client secret (empty for none, not shown): ",
        },
        session,
      );
  const client = await api.post("/clients", {
    name,
    provider: options.provider,
    client_id: options.clientId,
    client_secret: secret,
    scopes: options.scope,
    connections: options.connections,
    inputs: options.input,
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
  const client = await api.patch(`/clients/${segment(name)}`, {
    client_id: options.clientId,
    client_secret: secret,
    scopes: options.scope,
    connections: options.adminOnly ? [] : options.connections,
    inputs: options.input,
    own_redirect_uri: options.ownRedirectUri,
  });
  const moved = options.ownRedirectUri === undefined ? "" : ` ${redirectUriOf(client)}`;
  session.output.done(`Client ${name} is changed.${moved}`, client);
}

/** What is to be registered at the provider. */
function redirectUriOf(client: unknown): string {
  const { redirect_uri: uri } = client as { redirect_uri: string };
  return `Register this redirect URI at its provider: ${uri}`;
}

async function deleteClient({ api, output }: Session, { args: [name = ""] }: { args: string[] }) {
  await api().delete(`/clients/${segment(name)}`);
  output.done(`Client ${name} is deleted.`, { deleted: name });
}
