import { relative, resolve } from "node:path";
import type { Logger } from "pino";
import manifest from "../../package.json" with { type: "json" };
import type { AuditAction } from "../audit/entries.ts";
import type { Broker } from "../broker.ts";
import { systemClock, withDeadline } from "../clock.ts";
import type { Config, Environment } from "../config.ts";
import { BrokerError } from "../errors.ts";
import type { Principal } from "../callers/principal.ts";
import { processTimes } from "../time.ts";

/** Who makes the sandbox's client and connection at the first start. */
const starter: Principal = {
  callerId: "first start",
  actor: { kind: "system", id: null, name: "first start" },
  abilities: ["connections", "admin"],
  connections: ["*"],
  labels: {},
  expiresAt: null,
};

/**
 * What there is to try. `link`: where to connect the sandbox's account; null: it is connected. `obstacle`: why there is nothing to try.
 * `needsApp`: only an app may make the link.
 */
type Sandbox = { link: string | null } | { obstacle: string } | { needsApp: true };

/**
 * Makes sure that there is something to try, and says in plain text how. Never rejects: if somebody has put another connection or
 * client in the place of the sandbox's, the broker still serves.
 */
export async function firstSteps(
  broker: Broker,
  { config, given, log }: { config: Config; given: Environment; log: Pick<Logger, "warn"> },
): Promise<string> {
  if (broker.sandbox === null) return "";
  const sandbox = await prepare(broker, broker.sandbox, config).catch((err: unknown) => {
    const why = err instanceof BrokerError ? err.message : "What was wrong is not known.";
    const obstacle = `the sandbox cannot be tried. ${why} ${remedy}`;
    log.warn({ err }, obstacle);
    return { obstacle };
  });
  return describe({ sandbox, keyFile: broker.adminKeyFile, given, config });
}

const remedy =
  'Delete the connection "sandbox" and the client "sandbox" and start again, which makes both anew; or set SANDBOX=false.';

async function prepare(
  { connections, clients, records, consent, audit, hasOldSandboxSecret }: Broker,
  { clientId, clientSecret }: { clientId: string; clientSecret: () => string },
  { consentCompletion }: Pick<Config, "consentCompletion">,
): Promise<Sandbox> {
  /** Writes down what this start makes, as the same request with a key would be. */
  const audited = async <Done>(
    action: AuditAction,
    work: () => Promise<Done>,
    detailOf: (done: Done) => Record<string, unknown> = () => ({}),
  ): Promise<Done> => {
    const target = { kind: action.startsWith("clients.") ? "client" : "connection", name } as const;
    const entry = { actor: starter.actor, action, target, address: null };
    const begun = await audit.begin(entry, { mustNotFail: true });
    try {
      const done = await work();
      await audit.end(begun, { result: "ok", detail: detailOf(done) });
      return done;
    } catch (error) {
      await audit.end(begun, { result: error instanceof BrokerError ? error.code : "internal_error" });
      throw error;
    }
  };
  const { status } = await ensureSandbox(
    {
      findConnection: (name) => records.findByName(name),
      createClient: async (client) => {
        const whole = { ...client, scopes: [], patterns: [], inputs: {} };
        return await audited("clients.create", async () => await clients.create(starter, whole));
      },
      createConnection: async (connection) => {
        const whole = { ...connection, grant: null, scopes: null, inputs: {}, credentials: null, labels: {} };
        return await audited("connections.create", () => connections.create(starter, whole));
      },
    },
    { clientId, clientSecret: clientSecret() },
  );
  // The stored one ends with the encryption key that made it.
  if (await hasOldSandboxSecret()) {
    const anew = { clientSecret: clientSecret() };
    await audited("clients.update", async () => await clients.patch(starter, name, anew));
  }
  if (status !== "pending" && status !== "needs_reauthorization") return { link: null };
  if (consentCompletion === "app") return { needsApp: true };
  const create = async () => await consent.links.create(starter, name, {});
  return { link: (await audited("links.create", create, ({ id }) => ({ link: id }))).url };
}

type FirstSteps = { sandbox: Sandbox; keyFile: Broker["adminKeyFile"]; given: Environment; config: Config };

function describe({ sandbox, keyFile, given, config }: FirstSteps): string {
  const ready = `Freshet is ready at ${config.publicUrl} (the API: ${config.publicUrl}/docs)`;
  return `\n${[ready, ...describeKey(keyFile), "", ...describeSandbox({ sandbox, keyFile, given, config })].join("\n")}\n\n`;
}

function describeSandbox({ sandbox, keyFile, given, config }: FirstSteps): string[] {
  if ("obstacle" in sandbox) return [`But ${sandbox.obstacle}`];
  if ("needsApp" in sandbox) return appOnly(config);
  const bearer = keyFile === null ? givenKey(given) : `$(cat ${shellWord(nearPath(keyFile.path))})`;
  const curl = `   curl -H "Authorization: Bearer ${bearer}" ${config.publicUrl}/tokens/sandbox`;
  if (sandbox.link === null) {
    return ["Get a token of the sandbox account (in a second terminal, in this folder):", curl];
  }
  return [
    "Try it with the built-in sandbox provider.",
    '1. Open this link in your browser, press "Continue", then "Authorize":',
    `   ${sandbox.link}`,
    "2. Get a token (in a second terminal, in this folder):",
    curl,
    "3. Run the same line again after 90 seconds: that token is over, and Freshet hands out the next one.",
  ];
}

/** With CONSENT_COMPLETION=app no link that is printed here could be opened. */
function appOnly({ publicUrl, returnOrigins }: Config): string[] {
  const origins =
    returnOrigins.length === 0
      ? "set RETURN_ORIGINS to the origin of your app and start again"
      : returnOrigins.join(", ");
  return [
    "No link to try the sandbox is printed: CONSENT_COMPLETION=app lets only an app connect accounts.",
    `1. Where the app may have browsers come back to (RETURN_ORIGINS): ${origins}.`,
    '2. Have it make a link: POST /connections/sandbox/consent-links with "completion": "app", end_user and return_to.',
    `3. What it does then: "Completion by your app" in docs/consent.md; the API: ${publicUrl}/docs`,
    "Or leave CONSENT_COMPLETION away to try the sandbox with a link of your own.",
  ];
}

/** How a shell in the same folder gets the first of the keys: from its environment, from `.env`, or from a file. */
export function givenKey({ env, file }: Environment): string {
  const inFile = file?.values["ADMIN_KEY"];
  if (file && inFile) return `$(${findKey(inFile)} ${shellWord(nearPath(file.path))} | tail -n 1)`;
  const trimmed = "tr -d '[:space:]' | cut -d, -f1";
  const keys = env["ADMIN_KEY"];
  const named = keys ? undefined : env["ADMIN_KEY_FILE"];
  if (named) return `$(cat ${shellWord(nearPath(resolve(named.trim())))} | ${trimmed})`;
  return keys === keys?.trim() ? "${ADMIN_KEY%%,*}" : `$(printf %s "$ADMIN_KEY" | ${trimmed})`;
}

/** Reads one variable from `.env` without running the file as a shell script. */
function findKey(keys: string): string {
  // A quote that is part of the keys is not the quote around them.
  const quotes = ['"', "'", "`"].filter((quote) => !keys.includes(quote)).join("");
  const [begin, equals] = ["^[^[:alnum:]_#]*(export[[:space:]]+)?", "[[:space:]]*=[[:space:]]*"];
  const first = `([^[:space:],${quotes}]+)`;
  return `sed -nE ${shellWord(`s/${begin}ADMIN_KEY${equals}[${quotes}[:space:]]*${first}.*/\\2/p`)}`;
}

/** Logs are stored and sent elsewhere, so only a person at a terminal sees the key itself. */
function describeKey(keyFile: Broker["adminKeyFile"]): string[] {
  if (keyFile === null) return [];
  const { path, value, isNew } = keyFile;
  if (isNew && process.stdout.isTTY) return [`Admin key, shown this once and kept in ${path}: ${value}`];
  return [`Admin key: in the file ${path}`];
}

/** The path as seen from the folder in which the broker was started, if that is shorter. */
function nearPath(path: string): string {
  const near = relative(process.cwd(), path);
  return /^(\.\.|-)/.test(near) ? path : near;
}

/** One word of a POSIX shell, also inside `"$(…)"`. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

type Started = { config: Config; given: Environment; log: Pick<Logger, "info" | "warn"> };

/** The last line of a start: what serves, and with what. Before it, whether nobody can call. Never rejects. */
export async function tellStart(broker: Broker, { config, given, log }: Started): Promise<void> {
  const { hasAdmin, describeDatabase, describeRedis, catalog } = broker;
  const [mayCall, database, redis] = await Promise.all([
    answered(hasAdmin(), true),
    answered(describeDatabase(), "away"),
    answered(describeRedis(), "away"),
  ]);
  if (!mayCall) log.warn({ variable: "ADMIN_KEY" }, nobodyMayCall);
  const { port, publicUrl } = config;
  const { all, own } = catalog.count;
  const envFile = given.file?.path ?? null;
  const settings = envFile ?? "environment";
  const parts = [
    database === "away" ? "Postgres is away" : database,
    redis === "none" ? "no Redis" : redis === "away" ? "Redis is away" : redis,
    `${all} providers${own > 0 ? `, ${own} of them from PROVIDERS_DIR` : ""}`,
    `API and docs: ${publicUrl}/docs`,
    ...(envFile === null ? [] : [`settings: the environment, and ${envFile}`]),
  ];
  log.info(
    { version: manifest.version, database, redis, providers: all, settings, port, publicUrl },
    `ready: Freshet ${manifest.version} at ${publicUrl}; ${parts.join("; ")}`,
  );
}

const nobodyMayCall =
  "nobody can administer this broker: ADMIN_KEY is not set, and no key with the ability admin that works is in the database. " +
  "Set ADMIN_KEY to at least 32 characters, such as the output of openssl rand -hex 32, and start again";

/** If Postgres or Redis cannot be asked, the log has reported the outage already. */
async function answered<Answer>(asked: Promise<Answer>, otherwise: Answer): Promise<Answer> {
  const answer = await withDeadline(
    asked.catch(() => null),
    processTimes.firstStepsMs,
    systemClock,
  );
  return answer ?? otherwise;
}

const name = "sandbox";

/** The connection that has the sandbox's name. */
type FoundConnection = { id: string; provider: string; status: string };

/** What the first steps need of the broker. */
export type FirstStepServices = {
  /** Null: there is none. */
  findConnection(name: string): Promise<FoundConnection | null>;
  createClient(client: { name: string; provider: string; clientId: string; clientSecret: string }): Promise<unknown>;
  createConnection(connection: { name: string; provider: string; client: string }): Promise<unknown>;
};

/**
 * Makes sure that the client and the connection `sandbox` are there, so that a first start has something to try. A client or
 * connection of that name is left as it is. @throws BrokerError for one that is somebody's own, at another provider
 */
export async function ensureSandbox(
  services: FirstStepServices,
  credentials: { clientId: string; clientSecret: string },
): Promise<FoundConnection> {
  if ((await services.findConnection(name)) === null) {
    await unlessThere(services.createClient({ name, provider: name, ...credentials }));
    await unlessThere(services.createConnection({ name, provider: name, client: name })); // another replica may have made it first
  }
  const connection = await services.findConnection(name);
  if (connection === null) throw new BrokerError("conflict", `The connection "${name}" was just deleted.`);
  const { provider } = connection;
  if (provider === name) return connection;
  throw new BrokerError("conflict", `The connection "${name}" is one of the provider "${provider}".`);
}

async function unlessThere(created: Promise<unknown>): Promise<void> {
  try {
    await created;
  } catch (error) {
    if (!(error instanceof BrokerError && error.code === "conflict")) throw error;
  }
}
