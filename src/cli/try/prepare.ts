import { randomBytes } from "node:crypto";
import { BrokerError } from "../../errors.ts";
import {
  defaultGrant,
  fixedClientId,
  type ConnectionGrant,
  type ProviderDefinition,
} from "../../providers/definition.ts";
import { createEgress, type Egress } from "../../providers/egress.ts";
import { resolveInputs, splitInputs } from "../../providers/inputs.ts";
import { readProxies } from "../../providers/outbound-proxy.ts";
import { readDefinition } from "../../providers/read-definition.ts";
import { scopesFor } from "../../providers/scopes.ts";
import { UsageError } from "../errors.ts";
import type { Session } from "../session.ts";
import { endOnFaults } from "./faults.ts";
import { readNetworks } from "./networks.ts";
import { checkForGrant, type TryOptions } from "./options.ts";
import { readClientSecret, readCredentials, readRefreshToken, readSecretInputs } from "./secrets.ts";
import type { Masker } from "./mask.ts";
import type { Trial } from "./trial.ts";

type Parts = Pick<Trial, "session" | "options" | "report" | "masker" | "witness">;

/** The definition that a file holds, checked. @throws CliError after telling each fault */
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

/** What may be reached, and through which proxy: as at the broker. @throws UsageError */
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

/** Collects everything that requests are made from, secrets included, and has them masked from then on. */
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
  const inputs = settleInputs(definition, grant, { ...options.input, ...secretInputs });
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
    extras: {},
    account: {},
  };
}

function settleInputs(definition: ProviderDefinition, grant: ConnectionGrant, given: Record<string, string>) {
  try {
    const all = resolveInputs({ definition, grant, given, clientInputs: null, randomBytes });
    return splitInputs(definition, all);
  } catch (error) {
    throw error instanceof BrokerError ? new UsageError(error.message) : error;
  }
}
