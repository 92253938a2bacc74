import type net from "node:net";
import { BrokerError } from "../../errors.ts";
import {
  type ConnectionGrant,
  defaultGrant,
  fixedClientId,
  type ProviderDefinition,
} from "../../providers/format/definition.ts";
import {
  needsClientSecret,
  requiredCredentials,
  requiredInputs,
  resolveInputs,
  scopesFor,
  splitInputs,
} from "../../providers/format/requirements.ts";
import { createEgress, type Egress, parseNetworks } from "../../providers/http/egress.ts";
import { readProxies } from "../../providers/http/outbound-proxy.ts";
import { readDefinition } from "../../providers/load/catalog.ts";
import { exchangeFor, secretFault } from "../../providers/oauth/token-request.ts";
import { CliError, UsageError } from "../errors.ts";
import { readSecret, variableOf } from "../questions.ts";
import type { Session } from "../session.ts";
import type { SecretVariable, Settings } from "../settings.ts";
import type { Trial } from "./trial.ts";
import type { Masker } from "./recorder.ts";

type Parts = Pick<Trial, "session" | "options" | "report" | "masker" | "recorder">;

/** The definition in a file, checked. @throws CliError after printing each fault */
export function loadDefinition(session: Session, file: string, builtinFolder: string): ProviderDefinition {
  const { settings } = session;
  const surroundings = { builtinFolder, extraFolder: settings.providersDir, networks: readNetworks(settings) };
  const read = readDefinition(file, surroundings);
  if ("problems" in read) throw endOnFaults(file, read.problems, session.output.note);
  const { definition } = read;
  if (definition === null) throw new UsageError("The sandbox is part of a broker: connect it there");
  if (!definition.usable) throw new UsageError(`${file} is only there to be extended: it has no token endpoint`);
  return definition;
}

/** Which addresses may be reached, and through which proxy, as at the broker. @throws UsageError */
export function openEgress({ settings }: Session, masker: Masker): Egress {
  const proxies = asUsage("", () => readProxies(settings.proxy()));
  masker.learn(proxies.secrets);
  return createEgress({ networks: readNetworks(settings), proxies, trustedOrigin: null });
}

function asUsage<Value>(prefix: string, read: () => Value): Value {
  try {
    return read();
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(prefix + error.message) : error;
  }
}

/** The grant to try. @throws UsageError when the definition does not offer it */
export function chooseGrant(definition: ProviderDefinition, options: TryOptions): ConnectionGrant {
  const grant = options.grant ?? defaultGrant(definition);
  if (!definition.grants.includes(grant)) {
    throw new UsageError(`${definition.id} does not offer ${grant}: it offers ${definition.grants.join(", ")}`);
  }
  checkForGrant(options, grant);
  return grant;
}

/** Collects everything that requests are made from. From then on the secrets among it are masked in the output. */
export async function prepareTrial(
  parts: Parts,
  given: { definition: ProviderDefinition; grant: ConnectionGrant; redirectUri: string | null },
): Promise<Trial> {
  const { session, options, masker } = parts;
  const { definition, grant } = given;
  const clientId = options.clientId ?? fixedClientId(definition, grant);
  if (clientId === null) throw new UsageError("This needs the client: --client-id");
  const wanted = { session, definition, grant, options };
  const secretInputs = await readSecretInputs(wanted);
  const inputs = splitGivenInputs(definition, grant, { ...options.input, ...secretInputs });
  const credentials = await readCredentials(wanted);
  const secret = await readClientSecret(wanted);
  const refreshToken = grant === "import" ? await readRefreshToken(wanted) : undefined;
  masker.learn([secret, refreshToken, ...Object.values(inputs.secret), ...Object.values(credentials)]);
  return {
    ...parts,
    ...given,
    scopes: scopesFor(definition, grant, options.scope ?? null),
    client: { id: clientId, secret },
    inputs: inputs.open,
    secretInputs: inputs.secret,
    credentials,
    tokens: { captured: {}, ...(refreshToken !== undefined && { refreshToken }) },
    furtherTokens: {},
    account: {},
  };
}

function splitGivenInputs(definition: ProviderDefinition, grant: ConnectionGrant, given: Record<string, string>) {
  try {
    const all = resolveInputs({ definition, grant, given, clientInputs: null });
    return splitInputs(definition, all);
  } catch (error) {
    throw error instanceof BrokerError ? new UsageError(error.message) : error;
  }
}

type Wanted = { session: Session; definition: ProviderDefinition; grant: ConnectionGrant; options: TryOptions };

/** The client's secret, or its key as PEM or JWK; undefined where none is used and none was named. */
async function readClientSecret({ session, definition, grant, options }: Wanted): Promise<string | undefined> {
  const isNeeded = needsClientSecret(definition, grant) || isSignatureRead(definition, grant);
  const secret = await readSecret(
    {
      file: options.clientSecretFile,
      variable: "FRESHET_CLIENT_SECRET",
      ...(isNeeded && { question: "Client secret (not shown): " }),
    },
    session,
  );
  if (secret === undefined && isNeeded) {
    throw new UsageError("This needs the client's secret: --client-secret-file or FRESHET_CLIENT_SECRET");
  }
  const fault = secret === undefined ? null : faultOf(definition, grant, secret);
  if (fault !== null) throw new UsageError(`The client's secret ${fault}`);
  return secret;
}

/** Signed callbacks are checked with the client's secret, too. */
function isSignatureRead({ authorization }: ProviderDefinition, grant: ConnectionGrant): boolean {
  return grant === "authorization_code" && typeof authorization?.callback.verify === "string";
}

function faultOf(definition: ProviderDefinition, grant: ConnectionGrant, secret: string): string | null {
  const wanted = { definition, grant: grant === "import" ? ("refresh_token" as const) : grant, obtainedBy: grant };
  return secretFault(exchangeFor(wanted).clientAuth, secret);
}

/** What the definition calls credentials: `username` may be an option, all others are secrets. */
async function readCredentials({ session, definition, grant, options }: Wanted): Promise<Record<string, string>> {
  const credentials: Record<string, string> = {};
  for (const name of requiredCredentials(definition, grant)) {
    const isPassword = name === "password";
    const variable = isPassword ? "FRESHET_PASSWORD" : (`FRESHET_CREDENTIAL_${name.toUpperCase()}` as const);
    const file = isPassword ? options.passwordFile : undefined;
    const given = name === "username" ? options.username : undefined;
    credentials[name] = given ?? (await demand(session, { name, variable, file }));
  }
  return credentials;
}

/** The inputs that are secrets, as far as the grant needs them and they have no default. */
async function readSecretInputs({ session, definition, grant, options }: Wanted): Promise<Record<string, string>> {
  const isSecret = (name: string) => definition.inputs[name]?.secret === true;
  const asArgument = Object.keys(options.input ?? {}).find(isSecret);
  if (asArgument !== undefined) {
    throw new UsageError(`The input ${asArgument} is a secret: set ${variableOf(asArgument)}, or type it when asked`);
  }
  const inputs: Record<string, string> = {};
  for (const name of requiredInputs(definition, grant).filter(isSecret)) {
    const { default: usual, generate, optional } = definition.inputs[name] ?? {};
    const canDoWithout = usual !== undefined || generate !== undefined || optional === true;
    const given = session.settings.secret(variableOf(name));
    if (given !== undefined) inputs[name] = given;
    else if (!canDoWithout) inputs[name] = await demand(session, { name, variable: variableOf(name), file: undefined });
  }
  return inputs;
}

/** The refresh token to import. @throws UsageError without one */
async function readRefreshToken({ session, options }: Pick<Wanted, "session" | "options">): Promise<string> {
  const { refreshTokenFile: file } = options;
  return await demand(session, { name: "refresh token", variable: "FRESHET_REFRESH_TOKEN", file });
}

async function demand(
  session: Session,
  wanted: { name: string; variable: SecretVariable; file: string | undefined },
): Promise<string> {
  const { name, ...source } = wanted;
  const secret = await readSecret({ ...source, question: `The ${name} (not shown): ` }, session);
  if (secret === undefined) throw new UsageError(`This needs the ${name}: set ${source.variable}`);
  return secret;
}

/** The options of `freshet providers try`. */
export type TryOptions = {
  grant?: ConnectionGrant;
  clientId?: string;
  clientSecretFile?: string;
  scope?: string[];
  input?: Record<string, string>;
  username?: string;
  passwordFile?: string;
  refreshTokenFile?: string;
  port?: number;
  redirectUri?: string;
  manual?: boolean;
  timeout?: number;
  /** False with `--no-refresh`. */
  refresh: boolean;
  revoke?: boolean;
};

/** How the authorization code comes back: to a listener here, or pasted by a person. */
export function isPasted({ redirectUri, manual }: TryOptions): boolean {
  return redirectUri !== undefined || manual === true;
}

/** Checks what needs no definition. @throws UsageError */
export function checkOptions(options: TryOptions): void {
  const { clientSecretFile, passwordFile, refreshTokenFile, redirectUri, manual, port } = options;
  const onStdin = [clientSecretFile, passwordFile, refreshTokenFile].filter((file) => file === "-").length;
  if (onStdin > 1) throw new UsageError("Only one secret can come from stdin");
  if (redirectUri !== undefined && manual) {
    throw new UsageError("--manual uses the redirect URI of the definition: leave out --redirect-uri");
  }
  if (port !== undefined && isPasted(options)) {
    throw new UsageError("--port is for the listener on this machine, which --redirect-uri and --manual do without");
  }
  if (port !== undefined && port > 65_535) throw new UsageError("--port must be 65535 at most");
  if (redirectUri !== undefined && !URL.canParse(redirectUri)) throw new UsageError("--redirect-uri must be a URI");
}

/** Checks the options against the definition's grant type. @throws UsageError */
function checkForGrant(options: TryOptions, grant: ConnectionGrant): void {
  const { port, manual, redirectUri, clientSecretFile, passwordFile, refreshTokenFile, username, refresh } = options;
  if (grant === "authorization_code" && isPasted(options) && clientSecretFile === "-") {
    throw new UsageError("The code is pasted on stdin: give the secret by a file, the environment or a prompt");
  }
  if (grant !== "authorization_code" && (manual || port !== undefined)) {
    throw new UsageError(`--port and --manual are for authorization_code, not for ${grant}`);
  }
  if (redirectUri !== undefined && grant !== "authorization_code" && grant !== "import") {
    throw new UsageError(`--redirect-uri is for authorization_code and import, not for ${grant}`);
  }
  if (grant !== "import" && refreshTokenFile !== undefined) {
    throw new UsageError("--refresh-token-file is for --grant import");
  }
  const isUntried = grant === "import" && !refresh;
  if (isUntried) throw new UsageError("--grant import is tried by a refresh: leave out --no-refresh");
  if (username === undefined && passwordFile !== undefined) throw new UsageError("--password-file needs --username");
}

/** The networks that every provider may reach beside public addresses, as at the broker; null: none. @throws UsageError */
export function readNetworks({ providerNetworks }: Pick<Settings, "providerNetworks">): net.BlockList | null {
  try {
    return providerNetworks === null ? null : parseNetworks(providerNetworks);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new UsageError(`PROVIDER_NETWORKS must be a comma list of CIDR blocks: ${error.message}`);
  }
}

/** The error for a definition file with these faults. `tell` prints each of them first. */
export function endOnFaults(file: string, problems: readonly string[], tell: (problem: string) => void): CliError {
  const [first = "", ...more] = problems;
  if (more.length === 0 && first.startsWith(`${file}: cannot be read`)) {
    return new CliError(first, "invalid_provider_file");
  }
  problems.forEach(tell);
  const places = `${problems.length} place${problems.length === 1 ? "" : "s"}`;
  return new CliError(`${file} is wrong in ${places}`, "invalid_provider_file");
}
