import { type ApiClient, collectItems, segment, withSuggestion } from "./api-client.ts";
import { CliError, UsageError } from "./errors.ts";
import { type Provider, readProvider } from "./provider.ts";
import {
  askForSecretInput,
  createQuestions,
  type InputOptions,
  type Misfit,
  type Questions,
  readInputs,
  readSecret,
  refuseSecretArguments,
} from "./questions.ts";
import { isResource, type Resource, textOf } from "./resource.ts";
import type { Session } from "./session.ts";

/** Options that say which connection there is to be. */
export type ConnectionOptions = {
  provider?: string;
  client?: string;
  grant?: string;
  scope?: string[];
  label?: Record<string, string>;
  username?: string;
  passwordFile?: string;
} & ClientOptions &
  InputOptions;

type Wish = { name: string; options: ConnectionOptions; mayMakeClient: boolean };

/** What is to be sent. `newClient`: to be stored first, and deleted again if the broker refuses the connection. */
type Plan = { newClient?: Resource; connection: Resource };

/**
 * Creates a connection, and its client if `mayMakeClient` and there is none. At a terminal it asks for what is missing; elsewhere it names
 * everything that is missing. It stores nothing before it has all of it.
 */
export async function createConnection(session: Session, wish: Wish): Promise<Resource> {
  const { options } = wish;
  requireUsername(options);
  const api = session.api();
  const questions = createQuestions(session);
  const id = await questions.text(options.provider, providerWanted);
  // A key without `admin` cannot read definitions. Its options are sent as they are, and the broker says what is missing.
  const provider = id === "" ? null : await readProvider(api, id);
  if (id !== "" && provider === null && options.clientId !== undefined) {
    throw new UsageError("--client-id makes a client, which takes a key with admin; name one that is there: --client");
  }
  refuseSecretArguments(options, provider);
  const plan = await planConnection(session, questions, { ...wish, id, provider });
  questions.requireAll();
  const { newClient } = plan;
  if (newClient !== undefined) {
    const stored = await api.post("/clients", newClient);
    session.output.note(`Client ${textOf(newClient["name"])} is stored.`);
    // At a terminal this was printed before the question for the client id.
    const isTold = session.terminal.interactive && options.clientId === undefined;
    const isUsed = grantOf(options, provider) === "authorization_code";
    if (isUsed && !isTold) session.output.note(redirectUriOf(stored));
  }
  try {
    const connection = await api.post("/connections", plan.connection);
    if (options.grant === undefined) tellGrant(session, connection, provider);
    return connection;
  } catch (error) {
    const client = textOf(plan.connection["client"]);
    if (newClient === undefined) throw await withSuggestion(api, error, { name: client, path: "/clients" });
    await undoClient(session, client);
    throw error;
  }
}

/** The error to report is why the connection could not be made. If its new client cannot be deleted, that is only a remark. */
async function undoClient({ api, output }: Session, client: string): Promise<void> {
  try {
    await api().delete(`/clients/${client}`);
    output.note(`Client ${client} is deleted again, since its connection could not be made.`);
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    output.note(`Client ${client} stays: ${error.message}`);
  }
}

function grantOf(options: ConnectionOptions, provider: Provider | null): string {
  return options.grant ?? provider?.defaultGrant ?? "";
}

/** Says which of several grant types was taken, if no option named one. */
function tellGrant({ output }: Session, { grant }: Resource, provider: Provider | null): void {
  if (provider?.grants.length === 1) return;
  const others = provider?.grants.filter((offered) => offered !== grant).join(", ");
  const more = others === undefined ? "" : `; ${provider?.id} offers ${others} too: --grant chooses`;
  output.note(`Grant: ${textOf(grant)}${more}.`);
}

type Facts = Wish & { id: string; provider: Provider | null };

async function planConnection(session: Session, questions: Questions, facts: Facts): Promise<Plan> {
  const { name, options, id, provider, mayMakeClient } = facts;
  const grant = grantOf(options, provider);
  const needs = provider?.needs(grant);
  const given = Object.entries((await readInputs(questions, options, provider)) ?? {});
  const isOfClient = ([input]: [string, string]) => mayMakeClient && needs?.clientInputs.includes(input) === true;
  let client: ClientPlan | undefined = options.client === undefined ? undefined : { name: options.client };
  if (provider !== null && needs?.client === true) {
    const inputs = Object.fromEntries(given.filter(isOfClient));
    const wish = { provider, grant, name: options.client, options, inputs, mayMake: mayMakeClient };
    client = await planClient(session, questions, wish);
  }
  const inputs = Object.fromEntries(given.filter((entry) => !isOfClient(entry)));
  for (const input of needs?.inputs ?? []) {
    if (provider !== null) inputs[input] ??= await askForInput(questions, provider, input);
  }
  const connection = {
    name,
    provider: id,
    client: client?.name,
    grant: options.grant,
    scopes: options.scope,
    inputs: Object.keys(inputs).length === 0 ? undefined : inputs,
    labels: options.label,
    credentials: await readCredentials(questions, options, needs?.credentials ?? []),
  };
  return { connection, ...(client?.body && { newClient: client.body }) };
}

async function askForInput(questions: Questions, provider: Provider, input: string): Promise<string> {
  const { isSecret, misfit } = provider.input(input);
  if (isSecret) return await askForSecretInput(questions, input, misfit);
  return await questions.text(undefined, inputWanted(provider, input));
}

/** Credentials of the connection. `needed`: those that the definition names, if it can be read. */
async function readCredentials(
  questions: Questions,
  { username, passwordFile }: ConnectionOptions,
  needed: readonly string[],
): Promise<Record<string, string> | undefined> {
  const names = new Set([...needed, ...(username === undefined ? [] : ["username", "password"])]);
  const credentials: Record<string, string> = {};
  for (const name of names) {
    credentials[name] =
      name === "username"
        ? await questions.text(username, { option: "--username <name>", question: "User name: " })
        : await readCredential(questions, name, { passwordFile, username: credentials["username"] });
  }
  return names.size === 0 ? undefined : credentials;
}

async function readCredential(
  questions: Questions,
  name: string,
  { passwordFile, username }: { passwordFile: string | undefined; username: string | undefined },
): Promise<string> {
  if (name !== "password") {
    const variable = `FRESHET_CREDENTIAL_${name.toUpperCase()}` as const;
    return await questions.secret({ file: undefined, variable, option: variable, question: `${name} (not shown): ` });
  }
  const question = `Password${username ? ` of ${username}` : ""} (not shown): `;
  const option = "--password-file <file> (or FRESHET_PASSWORD)";
  return await questions.secret({ file: passwordFile, variable: "FRESHET_PASSWORD", option, question });
}

function requireUsername({ username, passwordFile }: Pick<ConnectionOptions, "username" | "passwordFile">): void {
  if (passwordFile !== undefined && username === undefined) throw new UsageError("--password-file needs --username");
}

/** The credentials that replace those of a connection; undefined: none are given. */
export async function readNewCredentials(
  session: Session,
  options: Pick<ConnectionOptions, "username" | "passwordFile">,
): Promise<Record<string, string> | undefined> {
  requireUsername(options);
  const questions = createQuestions(session);
  const credentials = await readCredentials(questions, options, []);
  questions.requireAll();
  return credentials;
}

/** Options that say which client there is to be. */
export type ClientOptions = { clientId?: string; clientSecretFile?: string; public?: boolean };

export const providerWanted = { option: "--provider <id>", question: "Provider (freshet providers list names all): " };
export const clientIdWanted = { option: "--client-id <id>", question: "Client id, as the provider gave it: " };

/** How an input is asked for. */
export function inputWanted(provider: Provider, name: string): { option: string; question: string; misfit: Misfit } {
  const { description, allowed, misfit } = provider.input(name);
  const meaning = allowed.length > 0 ? `one of ${allowed.join(", ")}` : description;
  const hint = meaning === "" ? "" : ` (${meaning})`;
  return { option: `--input ${name}=…${hint}`, question: `${name}${hint}: `, misfit };
}

/** Says what to do at the provider before it gives a client id: its own words, and the address to register. */
export function tellRegistration(
  { output }: Session,
  provider: Provider,
  { grant, client }: { grant: string; client: string },
): void {
  if (provider.register !== "") output.note(provider.register);
  if (grant !== "authorization_code") return;
  output.note(`Redirect URI to register there: ${provider.redirectUri.replace("{client}", client)}`);
}

/** What is to be registered at the provider. */
export function redirectUriOf(client: Resource): string {
  return `Register this redirect URI at its provider: ${textOf(client["redirect_uri"])}`;
}

/** The secret of a new client. `need`: whether one is asked for; `none`: only a file that is named is read. */
export async function readClientSecret(
  session: Session,
  questions: Questions,
  { options, need }: { options: ClientOptions; need: "required" | "possible" | "none" },
): Promise<string | undefined> {
  const file = options.clientSecretFile;
  if (options.public || (need === "none" && file === undefined)) return undefined;
  const source = { file, variable: "FRESHET_CLIENT_SECRET" } as const;
  if (need === "possible") {
    return await readSecret({ ...source, question: "Client secret (empty for none, not shown): " }, session);
  }
  const option = "--client-secret-file <file> (or FRESHET_CLIENT_SECRET)";
  return await questions.secret({ ...source, option, question: "Client secret (not shown): " });
}

/** The client that a new connection is to have, as the command line names it. */
type ClientWish = {
  provider: Provider;
  grant: string;
  /** The name of a client, or of the one to be made. */
  name: string | undefined;
  options: ClientOptions;
  /** The given inputs that belong to the client. */
  inputs: Record<string, string>;
  /** False: an existing client is needed. */
  mayMake: boolean;
};

/** The client that was found, or the one to be made: `body` is what to send. */
type ClientPlan = { name: string; body?: Resource };

/**
 * Finds the client of a new connection: the named one, or the only one of the provider with these inputs. If there is none, it plans a
 * new one and asks for what that needs. It stores nothing.
 */
async function planClient(session: Session, questions: Questions, wish: ClientWish): Promise<ClientPlan> {
  const { name, provider, mayMake } = wish;
  const api = session.api();
  if (name !== undefined) {
    if (!mayMake) return { name }; // the broker says whether it exists and fits
    const named = await findClient(api, name);
    return named === undefined ? await planNew(session, questions, { ...wish, name }) : useNamed(session, named, wish);
  }
  const there = (await collectItems(api, "/clients", { provider: provider.id })).items;
  const fitting = there.filter((client) => fits(client, wish));
  const [only, ...others] = fitting;
  if (others.length > 0) {
    throw new UsageError(`${provider.id} has several clients: name one with --client ${namesOf(fitting).join("|")}`);
  }
  if (only !== undefined) return use(session, only, wish);
  if (mayMake) return await planNew(session, questions, { ...wish, name: freeName(provider.id, namesOf(there)) });
  return { name: await questions.text(undefined, noClient(provider.id)) };
}

function noClient(provider: string): { option: string; question: string } {
  const option = `--client <name> (make one first: freshet clients add NAME --provider ${provider})`;
  return { option, question: "Name of the client to use: " };
}

async function planNew(
  session: Session,
  questions: Questions,
  { provider, grant, name, options, inputs: given }: ClientWish & { name: string },
): Promise<ClientPlan> {
  const needs = provider.needs(grant);
  if (session.terminal.interactive && options.clientId === undefined) {
    tellRegistration(session, provider, { grant, client: name });
  }
  const client_id = await questions.text(options.clientId, clientIdWanted);
  const need = needs.clientSecret ? "required" : "none";
  const client_secret = await readClientSecret(session, questions, { options, need });
  const inputs = { ...given };
  for (const input of needs.clientInputs) {
    inputs[input] ??= await questions.text(undefined, inputWanted(provider, input));
  }
  return { name, body: { name, provider: provider.id, client_id, client_secret, inputs } };
}

async function findClient(api: ApiClient, name: string): Promise<Resource | undefined> {
  try {
    return await api.get(`/clients/${segment(name)}`);
  } catch (error) {
    if (error instanceof CliError && error.code === "not_found") return undefined;
    throw error;
  }
}

/** An existing client with this name must be as the options describe it. */
function useNamed(session: Session, client: Resource, wish: ClientWish): ClientPlan {
  if (fits(client, wish)) return use(session, client, wish);
  const { name, provider, client_id: id } = client;
  const fact = `There is already a client "${textOf(name)}", of ${textOf(provider)} with the client id ${textOf(id)}`;
  throw new CliError(`${fact}: leave out --client-id and its inputs to use it, or give another --client`, "conflict");
}

/** Uses an existing client, and says so unless the options name just that client. */
function use({ output }: Session, client: Resource, { name: named, options }: ClientWish): ClientPlan {
  const name = textOf(client["name"]);
  const isNews = named === undefined || options.clientId !== undefined;
  if (isNews) output.note(`Using the client ${name}, which is there.`);
  if (options.clientSecretFile !== undefined) {
    output.note(`It keeps its secret. To change it: freshet clients update ${name} --client-secret-file FILE`);
  }
  return { name };
}

/** Whether no option contradicts the client. */
function fits(client: Resource, { provider, options, inputs }: ClientWish): boolean {
  const own = isResource(client["inputs"]) ? client["inputs"] : {};
  return (
    client["provider"] === provider.id &&
    (options.clientId === undefined || client["client_id"] === options.clientId) &&
    Object.entries(inputs).every(([name, value]) => own[name] === value)
  );
}

function namesOf(clients: readonly Resource[]): string[] {
  return clients.map((client) => textOf(client["name"]));
}

/** The provider's id, with the first number that makes it a free name if it is taken. */
function freeName(id: string, taken: readonly string[]): string {
  let name = id;
  for (let count = 2; taken.includes(name); count++) name = `${id}-${count}`;
  return name;
}
