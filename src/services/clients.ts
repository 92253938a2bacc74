import { randomUUID } from "node:crypto";
import { BrokerError, openedOrNull } from "../errors.ts";
import type { ProviderDefinition } from "../providers/format/definition.ts";
import { resolveClientInputs, whyUnsendable } from "../providers/format/requirements.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import { wantsOwnRedirectUri } from "../providers/oauth/authorization-request.ts";
import { secretFault } from "../providers/oauth/token-request.ts";
import type { ClientRow, Clients } from "../store/clients.ts";
import type { PageRequest } from "../store/connections.ts";
import { isUniqueViolation } from "../store/database-errors.ts";
import { didYouMean } from "../text.ts";
import { clientDestination } from "../tokens/seal.ts";
import type { TokenVault } from "../vault/vault.ts";
import { likePatterns, type Principal, requireMayCover, requireUnbound } from "../callers/principal.ts";

type NewClientRequest = {
  name: string;
  provider: string;
  clientId: string;
  clientSecret: string | null;
  scopes: string[];
  /** Names of connections that keys without `admin` may use it for. */
  patterns: string[];
  inputs: Record<string, unknown>;
};

type ClientPatch = {
  clientId?: string;
  clientSecret?: string;
  scopes?: string[];
  patterns?: string[];
  inputs?: Record<string, unknown>;
  ownRedirectUri?: boolean;
};

export type ClientService = ReturnType<typeof createClientService>;

type Options = { clients: Clients; catalog: Catalog; vault: TokenVault };

/**
 * OAuth clients, as registered at providers. A key with `admin` sees all of them. It can open them only for connections within its own
 * patterns, and cannot change one that serves connections beyond them, or names none. A key that is bound to labels changes none, since clients
 * carry no labels. All throw BrokerError.
 */
export function createClientService({ clients, catalog, vault }: Options) {
  /** The row as it is in the table. Check its MAC before you use anything of it. */
  const get = async (name: string): Promise<ClientRow> => {
    const client = await clients.asItStands(name);
    if (client === null) throw clientNotFound(name);
    return client;
  };

  /** The inputs after a change; undefined: they stay as they are, and so do the hosts. */
  const changedInputs = async (
    client: ClientRow,
    { inputs: given, clientSecret }: ClientPatch,
  ): Promise<Record<string, string> | undefined> => {
    const definition = await usableDefinition(catalog, client.provider);
    const changed = Object.entries(resolveClientInputs({ definition, given: given ?? {} }));
    const [name] = changed.find(([key, value]) => client.inputs[key] !== value) ?? [];
    if (name === undefined) return undefined;
    if (client.secret !== null && clientSecret === undefined) {
      const why = `inputs.${name} decides where the secret is sent, and the stored one is sent to no other host`;
      throw new BrokerError("invalid_request", `client_secret: a new one is required, since ${why}.`);
    }
    const holder = await clients.holder(client.id);
    if (holder !== null) {
      const detail = `inputs.${name}: decides the host, and the connection "${holder}" has tokens or credentials for the present one, or is about to get some; delete it first, or wait for its request or link to end.`;
      throw new BrokerError("conflict", detail);
    }
    return { ...client.inputs, ...Object.fromEntries(changed) };
  };

  /** If the newest secret is refused and the one before works, the one before is what stays beside another new one. */
  const keptSecret = (client: ClientRow): { keptSecret?: Uint8Array<ArrayBuffer> } => {
    const { id: clientId, secretRevision, previousSecret, oldSecretSince } = client;
    if (oldSecretSince === null || previousSecret === null) return {};
    const at = (revision: number) => ({ clientId, revision, destination: clientDestination(client) });
    const opened = openedOrNull(() => vault.openClientSecret(previousSecret, at(secretRevision - 1)));
    return opened === null ? {} : { keptSecret: vault.sealClientSecret(opened, at(secretRevision)) };
  };

  /**
   * @throws BrokerError forbidden for a client that serves, or is open to, connections beyond the principal's patterns, or is open to
   * none, and for a principal that is bound to labels; not_found if somebody has just deleted it
   */
  const requireOwn = async (principal: Principal, { id, name, patterns }: ClientRow): Promise<void> => {
    requireUnbound(principal);
    const within = await clients.isWithin(id, likePatterns(principal));
    if (within === null) throw clientNotFound(name);
    if (within) return;
    const own = principal.connections.join(", ");
    const detail =
      patterns.length === 0
        ? `This client names no connections: only a key whose patterns cover * changes it, and this key has ${own}.`
        : `This client is there for connections beyond the patterns of this key (${own}).`;
    throw new BrokerError("forbidden", detail);
  };

  return {
    get,

    async create(principal: Principal, request: NewClientRequest): Promise<ClientRow> {
      const { name, provider: given, clientId, clientSecret, scopes, patterns, inputs } = request;
      requireUnbound(principal);
      requireMayCover(principal, patterns);
      const definition = await usableDefinition(catalog, given);
      const { id: provider } = definition;
      const checkedInputs = resolveClientInputs({ definition, given: inputs });
      requireSendable(definition, { clientId, clientSecret });
      if (clientSecret !== null) checkSecret(definition, clientSecret);
      const id = randomUUID();
      const destination = clientDestination({ id, name, provider, inputs: checkedInputs });
      const place = { clientId: id, revision: 0, destination };
      const secret = clientSecret === null ? null : vault.sealClientSecret(clientSecret, place);
      try {
        const ownRedirectUri = wantsOwnRedirectUri(definition);
        const fields = { id, name, provider, clientId, scopes, patterns, secret, secretRevision: 0, ownRedirectUri };
        return await clients.insert({ ...fields, inputs: checkedInputs });
      } catch (error) {
        if (!isUniqueViolation(error)) throw error;
        throw new BrokerError("conflict", `name: there is already a client named "${name}".`);
      }
    },

    list: async (page: PageRequest, filter: { provider?: string }): Promise<ClientRow[]> =>
      await clients.list(page, filter),

    /**
     * With a new secret, the one before stays as a second choice until the new one has worked. Inputs decide hosts, so they change only
     * together with a new secret, which erases the old ones, and not while a connection has tokens or credentials.
     */
    async patch(principal: Principal, name: string, patch: ClientPatch): Promise<ClientRow> {
      const client = await get(name);
      await requireOwn(principal, client);
      vault.clients.check(client);
      const { clientSecret, inputs: _given, ...rest } = patch;
      if (rest.patterns !== undefined) requireMayCover(principal, rest.patterns);
      const definition = await usableDefinition(catalog, client.provider);
      requireSendable(definition, patch);
      if (clientSecret !== undefined) checkSecret(definition, clientSecret);
      const inputs = await changedInputs(client, patch);
      const destination = clientDestination({ ...client, ...(inputs && { inputs }) });
      const place = { clientId: client.id, revision: client.secretRevision + 1, destination };
      const changes = {
        ...rest,
        ...(inputs && { inputs }),
        ...(clientSecret !== undefined && {
          secret: vault.sealClientSecret(clientSecret, place),
          ...(inputs === undefined && keptSecret(client)),
        }),
      };
      const changed = await clients.change(client, changes, likePatterns(principal));
      if (changed === null) {
        throw new BrokerError(
          "conflict",
          `"${name}", or a connection of it, was just changed; look at it and try again.`,
        );
      }
      await clients.retryConnections(client.id);
      return changed;
    },

    /** Refused while connections use it. */
    async delete(principal: Principal, name: string): Promise<void> {
      const client = await get(name); // a row without a valid MAC can be deleted, too
      await requireOwn(principal, client);
      const count = await clients.countConnections(client.id);
      if (count > 0) {
        throw new BrokerError(
          "conflict",
          `The client "${name}" is in use by ${count} connection(s); delete those first.`,
        );
      }
      if (!(await clients.delete(client.id, likePatterns(principal)))) {
        throw new BrokerError("conflict", `"${name}" was just changed; look at it and try again.`);
      }
    },
  };
}

function clientNotFound(name: string): BrokerError {
  return new BrokerError("not_found", `There is no client named "${name}".`);
}

/** @throws BrokerError naming the field, never its value */
function requireSendable(
  definition: ProviderDefinition,
  { clientId, clientSecret }: { clientId?: string; clientSecret?: string | null },
): void {
  const fields = [
    ["client_id", "client.id", clientId],
    ["client_secret", "client.secret", clientSecret],
  ] as const;
  for (const [field, name, value] of fields) {
    const why = whyUnsendable(definition, name, value ?? "");
    if (why !== null) throw new BrokerError("invalid_request", `${field}: ${why}.`);
  }
}

/** Checks that a secret that must be a key can be read as one. @throws BrokerError naming the field, never its value */
function checkSecret({ exchanges, refreshes }: ProviderDefinition, secret: string): void {
  const ways = [...Object.values(exchanges), ...Object.values(refreshes)].map(({ clientAuth }) => clientAuth);
  const fault = ways.map((way) => secretFault(way, secret)).find((found) => found !== null);
  if (fault) throw new BrokerError("invalid_request", `client_secret: ${fault}.`);
}

/** The definition of a provider for which connections can be made. @throws BrokerError naming the field `provider` */
export async function usableDefinition(catalog: Catalog, id: string): Promise<ProviderDefinition> {
  const definition = catalog.get(id);
  if (definition?.usable) return definition;
  const known = (await catalog.list()).filter(({ usable }) => usable).map((each) => each.id);
  const why = definition === undefined ? "is not known" : "is only there to be extended, it names no token endpoint";
  const near = definition === undefined ? didYouMean(id, known) : "";
  throw new BrokerError("invalid_request", `provider: "${id}" ${why}; known are ${known.join(", ")}.${near}`);
}
