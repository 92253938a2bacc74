import type { ConnectionGrant, ProviderDefinition } from "../../providers/definition.ts";
import { needsClientSecret, requiredCredentials, requiredInputs } from "../../providers/requirements.ts";
import { exchangeFor } from "../../providers/token-request.ts";
import { secretFault } from "../../providers/client-assertion.ts";
import { UsageError } from "../errors.ts";
import { variableOf } from "../secret-inputs.ts";
import { readSecret } from "../secrets.ts";
import type { Session } from "../session.ts";
import type { SecretVariable } from "../settings.ts";
import type { TryOptions } from "./options.ts";

type Wanted = { session: Session; definition: ProviderDefinition; grant: ConnectionGrant; options: TryOptions };

/** The client's secret, or its key as PEM or JWK; undefined where none is used and none was named. */
export async function readClientSecret({ session, definition, grant, options }: Wanted): Promise<string | undefined> {
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
export async function readCredentials({
  session,
  definition,
  grant,
  options,
}: Wanted): Promise<Record<string, string>> {
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
export async function readSecretInputs({
  session,
  definition,
  grant,
  options,
}: Wanted): Promise<Record<string, string>> {
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
export async function readRefreshToken({ session, options }: Pick<Wanted, "session" | "options">): Promise<string> {
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
