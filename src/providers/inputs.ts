import { BrokerError } from "../errors.ts";
import type { ConnectionGrant, InputDefinition, ProviderDefinition } from "./definition.ts";
import { clientInputs, inputOwners, whyUnsendable } from "./requirements.ts";

type Given = Readonly<Record<string, unknown>>;

const longestInput = 2_000;

/**
 * The inputs of a new connection, to be stored with it: those given, checked, and for those that a template in force uses
 * and nobody gave, the generated or default value. Inputs that belong to its client are not among them.
 * @throws BrokerError `invalid_request` naming the input and what is allowed
 */
export function resolveInputs(options: {
  definition: ProviderDefinition;
  grant: ConnectionGrant;
  given: Given;
  /** The inputs of the connection's client; null: it has no client. */
  clientInputs: Readonly<Record<string, string>> | null;
  randomBytes: (size: number) => Uint8Array;
}): Record<string, string> {
  const { definition, grant, given, clientInputs: onClient, randomBytes } = options;
  const owners = inputOwners({ definition, grant, hasClient: onClient !== null });
  const inputs = checkInputs({ definition, given, onClient: onClient ? clientInputs(definition) : [] });
  for (const name of owners.client) {
    if (!onClient?.[name]) {
      throw invalid(name, `is missing on the client, where it is set${hint(definition.inputs[name])}`);
    }
  }
  for (const name of owners.connection) inputs[name] ??= standIn({ definition, name, randomBytes });
  return inputs;
}

/**
 * The inputs of a client, checked: only those that decide a host and are not pinned to a domain, none of them required.
 * @throws BrokerError `invalid_request`
 */
export function resolveClientInputs(options: { definition: ProviderDefinition; given: Given }): Record<string, string> {
  const { definition, given } = options;
  const allowed = clientInputs(definition);
  for (const name of Object.keys(given)) {
    if (allowed.includes(name)) continue;
    const known =
      allowed.length > 0 ? `only ${allowed.join(", ")} is set there` : "this provider has none that is set there";
    throw invalid(name, `is not an input of a client: ${known}`);
  }
  return checkInputs({ definition, given, onClient: [] });
}

/**
 * Inputs to change on a connection, checked; nothing is added to them.
 * @throws BrokerError `invalid_request`
 */
export function checkInputChanges(options: {
  definition: ProviderDefinition;
  given: Given;
  hasClient: boolean;
}): Record<string, string> {
  const { definition, given, hasClient } = options;
  return checkInputs({ definition, given, onClient: hasClient ? clientInputs(definition) : [] });
}

/** Inputs apart from those that are secrets, which are kept sealed. */
export function splitInputs(
  definition: ProviderDefinition,
  inputs: Readonly<Record<string, string>>,
): { open: Record<string, string>; secret: Record<string, string> } {
  const isSecret = ([name]: [string, string]) => definition.inputs[name]?.secret === true;
  const entries = Object.entries(inputs);
  return {
    open: Object.fromEntries(entries.filter((entry) => !isSecret(entry))),
    secret: Object.fromEntries(entries.filter(isSecret)),
  };
}

function checkInputs(options: {
  definition: ProviderDefinition;
  given: Given;
  onClient: readonly string[];
}): Record<string, string> {
  const { definition, given, onClient } = options;
  const inputs: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    const known = Object.hasOwn(definition.inputs, name) ? definition.inputs[name] : undefined;
    if (!known) throw unknownInput(definition, name);
    if (onClient.includes(name)) {
      throw invalid(name, "decides where the client's secret is sent: set it on the client, not here");
    }
    const checked = checkValue({ name, value, known });
    const why = whyUnsendable(definition, `inputs.${name}`, checked);
    if (why !== null) throw invalid(name, why);
    inputs[name] = checked;
  }
  return inputs;
}

function checkValue({ name, value, known }: { name: string; value: unknown; known: InputDefinition }): string {
  if (typeof value !== "string" || value === "") throw invalid(name, "must be a string that is not empty");
  if (value.length > longestInput) throw invalid(name, `must not be longer than ${longestInput} characters`);
  if (/\p{Cc}/u.test(value) || !value.isWellFormed()) throw invalid(name, "must not hold control characters");
  if (known.enum && !known.enum.includes(value)) throw invalid(name, `must be one of: ${known.enum.join(", ")}`);
  if (known.pattern && !new RegExp(known.pattern, "u").test(value)) {
    throw invalid(name, `must match ${known.pattern}${hint(known)}`);
  }
  return value;
}

function standIn(options: {
  definition: ProviderDefinition;
  name: string;
  randomBytes: (size: number) => Uint8Array;
}): string {
  const { definition, name, randomBytes } = options;
  const known = definition.inputs[name];
  if (known?.default !== undefined) return known.default;
  if (known?.generate === "uuid") return uuid(randomBytes(16));
  if (known?.optional === true) return "";
  const allowed = known?.enum ? `, one of: ${known.enum.join(", ")}` : "";
  throw invalid(name, `is required by provider ${definition.id}${allowed}${hint(known)}`);
}

/** A version 4 UUID (RFC 9562, section 5.4) of 16 random bytes. */
function uuid(random: Uint8Array): string {
  const bytes = Buffer.from(random);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function unknownInput(definition: ProviderDefinition, name: string): BrokerError {
  const names = Object.keys(definition.inputs);
  const known = names.length > 0 ? `it has ${names.join(", ")}` : "it has none";
  return new BrokerError(
    "invalid_request",
    `inputs: provider ${definition.id} has no input ${JSON.stringify(name.slice(0, 80))}; ${known}`,
  );
}

function invalid(name: string, text: string): BrokerError {
  return new BrokerError("invalid_request", `inputs.${name} ${text}`);
}

function hint(known: InputDefinition | undefined): string {
  return known?.description ? ` (${known.description})` : "";
}
