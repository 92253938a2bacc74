import type { Command } from "commander";
import { rulesOfGrant } from "../../grant-types.ts";
import { cliTimes } from "../../time.ts";
import { type ApiClient, segment } from "../api-client.ts";
import { CliError, UsageError } from "../errors.ts";
import { type ConnectionOptions, createConnection } from "../making.ts";
import { choice, example, wholeNumber } from "../options.ts";
import { printable } from "../output.ts";
import { readProvider } from "../provider.ts";
import { refuseSecretArguments } from "../questions.ts";
import { isResource, type Resource, resourcesIn, textOf } from "../resource.ts";
import { type Cli, handle, type Session } from "../session.ts";
import { addConnectionOptions } from "./connections.ts";

type ConnectOptions = {
  wait: boolean;
  timeout?: number;
  expiresIn?: number;
  returnTo?: string;
  manual?: boolean;
  purpose?: string;
  completion?: string;
  endUser?: string;
} & ConnectionOptions;

/** `freshet connect NAME` */
export function addConnectCommand(program: Command, cli: Cli): void {
  const command = program
    .command("connect <connection>")
    .description(
      "print a link, or a code to type in, for the person whose account it is, and wait until they have connected it; " +
        "with --provider it makes the connection first, and its client, and asks at a terminal for what is missing",
    );
  addConnectionOptions(command)
    .option(
      "--client-id <id>",
      "the id that the provider gave the client, to make one (named by --client or its provider)",
    )
    .option("--client-secret-file <file>", "file that holds its secret, - for stdin (or FRESHET_CLIENT_SECRET)")
    .option("--no-wait", "print it and leave")
    .option("--timeout <seconds>", "how long to wait (default: as long as it works)", wholeNumber)
    .option("--expires-in <seconds>", "how long the link works (default: an hour)", wholeNumber)
    .option("--return-to <url>", "where the browser goes afterwards; one of RETURN_ORIGINS")
    .option("--manual", "the provider shows a code, which the person copies into the page")
    .addOption(
      choice(
        "--completion <who>",
        "app: your app completes it, with the key that this command uses; needs --end-user and --return-to",
        ["app"],
      ),
    )
    .option("--end-user <id>", "the app's user for whom the link is")
    .option("--purpose <text>", "what the account is connected for, shown to the person; at most 200 characters")
    .action(handle(cli, connect));
  example(
    command,
    "connect acme-crm",
    "connect acme-crm --provider sandbox --scope read",
    "connect acme-orders --provider sandbox --grant client_credentials --client-id 1234 --client-secret-file secret.txt",
  );
}

type Connecting = { name: string; path: string; connection: Resource; options: ConnectOptions };

async function connect(session: Session, { args: [name = ""], options }: { args: string[]; options: ConnectOptions }) {
  const path = `/connections/${segment(name)}`;
  const connection = await findOrMake(session, path, { name, options });
  const connecting = { name, path, connection, options };
  const { grant, status } = connection;
  const { consent, needsPerson } = rulesOfGrant(textOf(grant));
  if (consent === "user_code") await connectByCode(session, connecting);
  else if (needsPerson && grant !== "import") await connectByLink(session, connecting);
  else if (status === "connected") session.output.done(`Connection ${name} is connected.`, connection);
  else throw stillWaiting(name, connection);
}

type Wanted = { name: string; options: ConnectOptions };

/** The connection of this name. With `--provider` it is made if there is none, so that the same line can be given again. */
async function findOrMake(session: Session, path: string, { name, options }: Wanted): Promise<Resource> {
  const api = session.api();
  const makes = options.provider !== undefined;
  const stray = makes ? undefined : makingOptions.find((option) => options[option] !== undefined);
  if (stray !== undefined) {
    throw new UsageError(
      `--${stray.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} goes with --provider`,
    );
  }
  try {
    const connection = await api.get(path);
    await requireSame(session, connection, { name, options });
    return connection;
  } catch (error) {
    if (!(error instanceof CliError) || error.code !== "connection_not_found") throw error;
    if (!makes) throw new CliError(`${error.message} To make it: freshet connect ${name} --provider ID`, error.code);
  }
  return await createConnection(session, { name, options, mayMakeClient: true });
}

const makingOptions = [
  "client",
  "clientId",
  "clientSecretFile",
  "grant",
  "scope",
  "input",
  "secretInput",
  "label",
  "username",
  "passwordFile",
] as const;

/** An existing connection must be as the options describe it. Otherwise the options would be ignored without a word. */
async function requireSame(session: Session, connection: Resource, { name, options }: Wanted): Promise<void> {
  const client = await readOwnClient(session, connection, options);
  const labels = mapOf(connection["labels"]);
  const scopes = Array.isArray(connection["scopes"]) ? connection["scopes"].map(textOf) : [];
  const differing = [
    ["provider", options.provider, connection["provider"]],
    ["client", options.client, connection["client"]],
    ["client id", client === null ? undefined : options.clientId, client?.["client_id"]],
    ["grant", options.grant, connection["grant"]],
    ["scope", options.scope?.toSorted().join(" "), scopes.toSorted().join(" ")],
    ...Object.entries(options.label ?? {}).map(([label, value]) => [`label ${label}`, value, labels[label]] as const),
  ].find(([, wanted, is]) => wanted !== undefined && wanted !== is);
  if (differing !== undefined) {
    const [what, wanted, is] = differing.map(textOf);
    const difference = `${is ? `the ${what} "${is}"` : `no ${what}`}, not "${wanted}"`;
    throw otherConnection(name, difference, remedyOf(connection, textOf(what)));
  }
  await requireSameInputs(session, connection, { name, options, inputsOfClient: mapOf(client?.["inputs"]) });
  const given = [options.secretInput, options.clientSecretFile, options.username, options.passwordFile];
  const used = textOf(connection["client"]);
  if (given.some((secret) => secret !== undefined)) {
    const ofClient = used === "" ? "" : `freshet clients update ${used}, or `;
    const update = `${ofClient}freshet connections update ${name}`;
    session.output.note(`${name} is there, and keeps its secrets. To change them: ${update}`);
  }
  if (used !== "") session.output.note(`Using the client ${used}, which is there.`);
}

/** Names no value: the broker shows no secret, and a key without `admin` does not see which inputs are secrets. */
async function requireSameInputs(
  { api, output }: Session,
  connection: Resource,
  { name, options, inputsOfClient }: Wanted & { inputsOfClient: Resource },
): Promise<void> {
  if (options.input === undefined) return;
  const inputs = { ...inputsOfClient, ...mapOf(connection["inputs"]) };
  const provider = await readProvider(api(), textOf(connection["provider"]));
  refuseSecretArguments(options, provider);
  for (const [input, value] of Object.entries(options.input)) {
    if (inputs[input] === value) continue;
    if (provider === null && inputs[input] === undefined) {
      output.note(`${name} is there, and its input ${input} is not shown to this key: it stays as it is`);
      continue;
    }
    const difference = `${inputs[input] === undefined ? "no value" : "another value"} of the input ${input}`;
    const owner = input in inputsOfClient ? "client input" : "input";
    throw otherConnection(name, difference, remedyOf(connection, owner));
  }
}

/** The command that can change what differs. A connection keeps its provider, its client and its grant. */
function remedyOf({ name, client }: Resource, what: string): string {
  const ofConnection = `freshet connections update ${textOf(name)}`;
  const ofClient = `freshet clients update ${textOf(client)}`;
  if (what === "client id") return `${ofClient} --client-id ID changes it`;
  if (what === "client input") return `${ofClient} --input KEY=VALUE changes it`;
  if (what === "input") return `${ofConnection} --input KEY=VALUE changes it`;
  if (what === "scope") return `${ofConnection} --scope SCOPE changes it`;
  if (what.startsWith("label ")) return `${ofConnection} --label KEY=VALUE changes it`;
  return `give another name, or delete it first: freshet connections delete ${textOf(name)}`;
}

function otherConnection(name: string, difference: string, remedy: string): CliError {
  const fact = `There is already a connection "${name}", with ${difference}`;
  return new CliError(`${fact}: freshet connect ${name} connects it as it is; ${remedy}`, "conflict");
}

/** The connection's client, if an option is about it; null: none is, or this key may not see clients. */
async function readOwnClient(
  { api }: Session,
  connection: Resource,
  { clientId, input }: ConnectOptions,
): Promise<Resource | null> {
  const name = textOf(connection["client"]);
  if (name === "" || (clientId === undefined && input === undefined)) return null;
  try {
    return await api().get(`/clients/${segment(name)}`);
  } catch (error) {
    if (error instanceof CliError && error.code === "forbidden") return null;
    throw error;
  }
}

function mapOf(value: unknown): Resource {
  return isResource(value) ? value : {};
}

/** A connection that nobody has to consent to, and that has no token. */
function stillWaiting(name: string, { grant, status, last_error: failure }: Resource): CliError {
  const is = `${name} is ${textOf(status)}`;
  if (grant === "import") return new CliError(`${is}: hand its tokens over: freshet import ${name}`, "not_connected");
  const why = isResource(failure) ? `: ${textOf(failure["detail"])}` : "";
  const later = `see later: freshet connections show ${name}`;
  return new CliError(`${is}; the broker gets its tokens by itself, and tries again${why}; ${later}`, "not_connected");
}

async function connectByLink(session: Session, { name, path, connection, options }: Connecting) {
  const { api, output } = session;
  const asked = {
    expires_in: options.expiresIn,
    return_to: options.returnTo,
    manual: options.manual,
    purpose: options.purpose,
    completion: options.completion,
    end_user: options.endUser,
  };
  const link = await api()
    .post(`${path}/consent-links`, asked)
    .catch((error: unknown) => {
      throw error instanceof CliError ? withAppLine(error, name) : error;
    });
  // Read before the link is printed, so that everything that happens by the link comes after this.
  const shown = { connection, shown: "link", endingOf: endingOfLink(connection, link) };
  const watch = options.wait ? await watchConnection(api(), path, shown) : null;
  output.value(textOf(link["url"]), link);
  if (watch === null) return;
  tellConnected(session, name, watch);
  const whose =
    options.completion === "app"
      ? `of the user ${options.endUser}, who is signed in to your app`
      : `of whoever may connect ${name}`;
  output.note(printable(`Open the link in the browser ${whose}. Waiting until it is connected …`));
  await waitFor(session, { name, watch, endsAt: link["expires_at"], options });
}

/** Where only an app may connect accounts: the line that makes a link for it. */
function withAppLine(error: CliError, name: string): CliError {
  if (!error.message.includes("CONSENT_COMPLETION=app")) return error;
  const line = `freshet connect ${name} --completion app --end-user ID --return-to URL`;
  return new CliError(`${error.message} From here: ${line}; the app completes it with the same key`, error.code);
}

/** A code to type in at the provider (RFC 8628), which the broker asks about meanwhile. */
async function connectByCode(session: Session, { name, path, connection, options }: Connecting) {
  const { api, output } = session;
  const { expiresIn, returnTo, manual, purpose, completion, endUser } = options;
  if (manual || [expiresIn, returnTo, purpose, completion, endUser].some((given) => given !== undefined)) {
    const forLinks = "--expires-in, --return-to, --manual, --purpose, --completion and --end-user are for links";
    throw new UsageError(`${name} is connected with a code: ${forLinks}`);
  }
  // Read before the code is there: a quick person may have finished before this program looks again.
  const shown = { connection, shown: "code", endingOf: endingOfCode(name) };
  const watch = options.wait ? await watchConnection(api(), path, shown) : null;
  const code = await api().post(`${path}/device`, {});
  const complete = textOf(code["verification_uri_complete"]);
  output.value(printable(`${textOf(code["user_code"])}  ${textOf(code["verification_uri"])}`), code);
  output.note(
    `Open the address and type in the code${complete === "" ? "" : `, or open ${complete}`}, as whoever may connect ${name}.`,
  );
  if (watch === null) return;
  tellConnected(session, name, watch);
  output.note("Waiting until it is connected …");
  await waitFor(session, { name, watch, endsAt: code["expires_at"], options });
}

/** Says that the connection is connected already: a link alone does not show it to somebody who gives the line again. */
function tellConnected({ output }: Session, name: string, { connectedBefore, shown }: Watch): void {
  if (connectedBefore) output.note(`${name} is connected already; this ${shown} connects it anew.`);
}

/** A refused client cannot be corrected on the provider's page, so waiting ends. The link stays usable, as after a denial. */
function endingOfLink({ provider, client }: Resource, { expires_at: ends }: Resource): Watch["endingOf"] {
  const fact = `${textOf(provider)} refuses the client's id or secret`;
  const remedy = `freshet clients update ${textOf(client)} --client-secret-file FILE (or --client-id ID)`;
  const later = `Then open the same link again, in the same browser: it works until ${textOf(ends)}`;
  const refused = new CliError(`${fact}; correct it: ${remedy}. ${later}`, "client_rejected");
  return ({ type, detail }) =>
    type === "consent_failed" && mapOf(detail)["error"] === "client_rejected" ? refused : undefined;
}

/** A code works once, so these events end the wait. */
function endingOfCode(name: string): Watch["endingOf"] {
  const over = new CliError(`${name} has not been connected, and its code works no more`, "not_connected");
  const remedy = `freshet connections confirm ${name} --accept, or --decline`;
  const other = new CliError(`The code was typed in by another account's owner: ${remedy}`, "account_changed");
  const endings = new Map<unknown, CliError>([
    ["consent_denied", over],
    ["consent_failed", over],
    ["other_account_held", other],
  ]);
  return ({ type }) => endings.get(type);
}

async function waitFor(
  session: Session,
  { name, watch, endsAt, options }: { name: string; watch: Watch; endsAt: unknown; options: ConnectOptions },
) {
  const ends = textOf(endsAt);
  const endsMs = Date.parse(ends);
  const givesUpMs = options.timeout === undefined ? endsMs : session.nowMs() + options.timeout * 1000;
  const connection = await waitUntilConnected(session, { watch, deadlineMs: Math.min(givesUpMs, endsMs) });
  if (connection !== null) return session.output.done(`Connection ${name} is connected.`, connection);
  const what = watch.shown;
  const more =
    givesUpMs < endsMs
      ? `The ${what} still works, until ${ends}; see later: freshet connections show ${name}`
      : `The ${what} works no more; for another one: freshet connect ${name}`;
  const state = watch.connectedBefore
    ? `${name} has not been connected anew in time; it stays connected as it was`
    : `${name} has not been connected in time`;
  throw new CliError(`${state}. ${more}`, "not_connected");
}

/** The state before the link was shown. A connection that is reconnected was `connected` then. */
type Watch = {
  path: string;
  /** What the person was shown: `link` or `code`. */
  shown: string;
  connectedBefore: boolean;
  lastEventId: unknown;
  /** The text for an event that ends the wait; undefined: the wait goes on. */
  endingOf: (event: Resource) => CliError | undefined;
};

/** Failures that pass by themselves: a broker that restarts, or a replica that is being replaced. */
const passing = new Set([
  "broker_unreachable",
  "timeout",
  "unexpected_answer",
  "storage_unavailable",
  "issuer_unavailable",
  "encryption_key_missing",
  "rate_limited",
]);

/** Looks at a connection before its link or code is shown. `path` is the connection's own, `connection` what it answered. */
async function watchConnection(
  api: ApiClient,
  path: string,
  { connection, shown, endingOf }: Pick<Watch, "shown" | "endingOf"> & { connection: Resource },
): Promise<Watch> {
  const [newest] = await readEvents(api, path);
  const connectedBefore = connection["status"] === "connected";
  return { path, shown, connectedBefore, lastEventId: newest?.["id"], endingOf };
}

/**
 * Waits until somebody has connected it, reports on stderr what happens meanwhile, and returns the connection; null when `deadlineMs`
 * (by `nowMs`) has passed. @throws CliError when it is disabled or deleted, or after an event that ends the watch
 */
async function waitUntilConnected(
  session: Session,
  { watch, deadlineMs }: { watch: Watch; deadlineMs: number },
): Promise<Resource | null> {
  const api = session.api();
  while (session.nowMs() < deadlineMs) {
    const connected = await look(session, api, watch).catch(tolerate);
    if (connected) return connected;
    await session.sleep(cliTimes.pollMs);
  }
  return null;
}

async function look({ output }: Session, api: ApiClient, watch: Watch): Promise<Resource | undefined> {
  const events = eventsSince(await readEvents(api, watch.path), watch.lastEventId);
  const connection = await api.get(watch.path);
  if (connection["status"] === "disabled") throw new CliError("It has been disabled", "connection_disabled");
  watch.lastEventId = events[0]?.["id"] ?? watch.lastEventId;
  const reconnected = events.some(({ type }) => type === "connected" || type === "reconnected");
  if (connection["status"] === "connected" && (reconnected || !watch.connectedBefore)) return connection;
  for (const event of events.toReversed()) output.note(describeEvent(event));
  const ending = events.map(watch.endingOf).find((error) => error !== undefined);
  if (ending !== undefined) throw ending;
  return undefined;
}

function tolerate(error: unknown): undefined {
  if (error instanceof CliError && passing.has(error.code)) return undefined;
  throw error;
}

/** Newest first, as they came. */
function eventsSince(events: Resource[], lastEventId: unknown): Resource[] {
  const seenAt = events.findIndex(({ id }) => id === lastEventId);
  return seenAt === -1 ? events : events.slice(0, seenAt);
}

async function readEvents(api: ApiClient, path: string): Promise<Resource[]> {
  const page = await api.get(`${path}/events`);
  return resourcesIn(page["items"]);
}

function describeEvent({ at, type, detail }: Resource): string {
  const said = isResource(detail) ? Object.values(detail).map(textOf).filter(Boolean).join(", ") : textOf(detail);
  return `${textOf(at)} ${textOf(type)}${said === "" ? "" : `: ${said}`}`;
}
