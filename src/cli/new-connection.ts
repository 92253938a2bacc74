import {
  inputWanted,
  planClient,
  providerWanted,
  redirectUriOf,
  type ClientOptions,
  type ClientPlan,
} from "./client-maker.ts";
import { CliError, UsageError } from "./errors.ts";
import { readProvider, type Provider } from "./provider.ts";
import { createQuestions, type Questions } from "./questions.ts";
import { textOf, type Resource } from "./resource.ts";
import { askForSecretInput, readInputs, refuseSecretArguments, type InputOptions } from "./secret-inputs.ts";
import type { Session } from "./session.ts";
import { withSuggestion } from "./suggest.ts";

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
 * Creates a connection, and its client too where `mayMakeClient` and there is none. At a terminal it asks for what is missing, elsewhere
 * it says what is. All of it is known before anything is stored.
 */
export async function createConnection(session: Session, wish: Wish): Promise<Resource> {
  const { options } = wish;
  requireUsername(options);
  const api = session.api();
  const questions = createQuestions(session);
  const id = await questions.text(options.provider, providerWanted);
  // A key without `admin` does not see definitions: what it gives is sent as it is, and the broker says what is missing.
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
    // At a terminal it was said before the client id was asked for.
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

/** What is to be told is why the connection could not be made: a client that cannot be deleted is only noted. */
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

/** Which of several was taken, where nobody has said which. */
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

/** Credentials of the connection. `needed`: as far as it is known. */
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

/** The credentials that are to take the place of those of a connection; undefined: none are given. */
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
