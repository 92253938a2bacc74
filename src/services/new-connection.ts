import { BrokerError } from "../errors.ts";
import {
  type ConnectionGrant,
  defaultGrant,
  fixedClientId,
  type ProviderDefinition,
} from "../providers/format/definition.ts";
import {
  askedScopes,
  needsClientSecret,
  requiredCredentials,
  resolveInputs,
  scopesFor,
  splitInputs,
  whyUnsendable,
} from "../providers/format/requirements.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import type { ClientRow, Clients } from "../store/clients.ts";
import { usableDefinition } from "./clients.ts";
import { isAdmin, mayUseClient, type Principal, unknownClient } from "../callers/principal.ts";

export type NewConnectionRequest = {
  name: string;
  provider: string;
  client: string | null;
  grant: string | null;
  scopes: string[] | null;
  inputs: Record<string, unknown>;
  credentials: Record<string, string> | null;
  labels: Record<string, string>;
};

/** A request that has been checked against its provider's definition. Holds credentials in plain text. */
export type ConnectionPlan = {
  name: string;
  provider: string;
  client: ClientRow | null;
  grant: ConnectionGrant;
  scopes: string[];
  inputs: Record<string, string>;
  /** The inputs that are secrets. */
  secretInputs: Record<string, string>;
  labels: Record<string, string>;
  credentials: Record<string, string> | null;
};

export type PlanParts = { catalog: Catalog; clients: Clients };

/** @throws BrokerError invalid_request naming the field and what is allowed */
export async function planConnection(
  { catalog, clients }: PlanParts,
  principal: Principal,
  request: NewConnectionRequest,
): Promise<ConnectionPlan> {
  const { name, labels } = request;
  const definition = await usableDefinition(catalog, request.provider);
  const grant = offeredGrant(definition, request.grant);
  const find = async (own: string) =>
    isAdmin(principal) ? await clients.findByName(own) : await clients.findServing(own, name);
  const client = request.client === null ? null : await find(request.client);
  const scopes = scopesFor(definition, grant, request.scopes ?? client?.scopes ?? null);
  requireClient(principal, client, {
    definition,
    grant,
    request,
    scopes,
    isOurs: catalog.get(client?.provider ?? "") === definition,
  });
  const credentials = requireCredentials(definition, grant, request.credentials);
  const resolved = resolveInputs({
    definition,
    grant,
    given: request.inputs,
    clientInputs: client?.inputs ?? null,
  });
  const { open: inputs, secret: secretInputs } = splitInputs(definition, resolved);
  // A client keeps the provider id that it was made with, and so do its redirect URI and its connections.
  const provider = client?.provider ?? definition.id;
  return { name, provider, client, grant, scopes, inputs, secretInputs, labels, credentials };
}

function offeredGrant(definition: ProviderDefinition, given: string | null): ConnectionGrant {
  if (given === null) return defaultGrant(definition);
  const offered = definition.grants.find((grant) => grant === given);
  if (offered !== undefined) return offered;
  throw invalid("grant", `"${given}" is not offered by ${definition.id}; it offers ${definition.grants.join(", ")}`);
}

type Choice = {
  definition: ProviderDefinition;
  grant: ConnectionGrant;
  request: Pick<NewConnectionRequest, "name" | "client">;
  scopes: readonly string[];
  /** Whether the client belongs to this definition, also under a former id. */
  isOurs: boolean;
};

/** Checks that the named client exists for this caller and fits. @throws BrokerError */
function requireClient(principal: Principal, client: ClientRow | null, choice: Choice): void {
  const { definition, grant, request, scopes, isOurs } = choice;
  if (request.client === null) {
    if (fixedClientId(definition, grant) !== null) return;
    throw invalid("client", `is required: the name of a client of ${definition.id}`);
  }
  // This check comes first: no earlier error may show the difference between a client of others and one that does not exist.
  const use = { connection: request.name, scopes, required: askedScopes(definition, grant).required };
  if (client === null || !mayUseClient(principal, client, use)) throw unknownClient(request.client);
  if (!isOurs) {
    throw invalid("client", `"${client.name}" is a client of ${client.provider}, not of ${definition.id}`);
  }
  if (client.secret === null && needsClientSecret(definition, grant)) {
    throw invalid("client", `"${client.name}" has no client_secret, which ${definition.id} needs for ${grant}`);
  }
}

/** Exactly the credentials that the grant type needs; null: none. @throws BrokerError invalid_request */
export function requireCredentials(
  definition: ProviderDefinition,
  grant: ConnectionGrant,
  given: Record<string, string> | null,
): Record<string, string> | null {
  const needed = requiredCredentials(definition, grant);
  const superfluous = Object.keys(given ?? {}).find((name) => !needed.includes(name));
  if (superfluous !== undefined) {
    const allowed = needed.length === 0 ? "none" : needed.join(", ");
    throw invalid(`credentials.${superfluous}`, `is not used by ${grant} of ${definition.id}; it takes ${allowed}`);
  }
  const missing = needed.find((name) => !given?.[name]);
  if (missing !== undefined) throw invalid(`credentials.${missing}`, `is required for ${grant} of ${definition.id}`);
  for (const name of needed) {
    const why = whyUnsendable(definition, `credentials.${name}`, given?.[name] ?? "");
    if (why !== null) throw invalid(`credentials.${name}`, why);
  }
  return needed.length === 0 ? null : given;
}

function invalid(field: string, problem: string): BrokerError {
  return new BrokerError("invalid_request", `${field}: ${problem}.`);
}
