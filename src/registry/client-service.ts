import { randomUUID } from "node:crypto";
import { BrokerError } from "../errors.ts";
import type { Catalog } from "../providers/catalog.ts";
import { secretFault } from "../providers/client-assertion.ts";
import type { ProviderDefinition } from "../providers/definition.ts";
import { resolveClientInputs } from "../providers/inputs.ts";
import type { ClientRow, Clients } from "../store/clients.ts";
import { isUniqueViolation } from "../store/database-errors.ts";
import type { PageRequest } from "../store/page.ts";
import type { TokenVault } from "../vault/token-vault.ts";

type NewClientRequest = {
  name: string;
  provider: string;
  clientId: string;
  clientSecret: string | null;
  scopes: string[];
  inputs: Record<string, unknown>;
};

type ClientPatch = {
  clientId?: string;
  clientSecret?: string;
  scopes?: string[];
  inputs?: Record<string, unknown>;
};

/** OAuth clients, as registered at providers. All throw BrokerError. */
export type ClientService = {
  create(request: NewClientRequest): Promise<ClientRow>;
  get(name: string): Promise<ClientRow>;
  list(page: PageRequest, filter: { provider?: string }): Promise<ClientRow[]>;
  /** A new secret keeps the one before as a second choice until the new one has worked. */
  patch(name: string, patch: ClientPatch): Promise<ClientRow>;
  /** Refused while connections use it. */
  delete(name: string): Promise<void>;
};

type Options = { clients: Clients; catalog: Catalog; vault: TokenVault };

export function createClientService({ clients, catalog, vault }: Options): ClientService {
  const get = async (name: string): Promise<ClientRow> => {
    const client = await clients.findByName(name);
    if (client === null) throw new BrokerError("not_found", `There is no client named "${name}".`);
    return client;
  };

  const replaceSecret = async (client: ClientRow, secret: string): Promise<ClientRow> => {
    const sealed = vault.sealClientSecret(secret, { clientId: client.id, revision: client.secretRevision + 1 });
    const replaced = await clients.replaceSecret(client.id, { revision: client.secretRevision, secret: sealed });
    if (replaced === null) throw new BrokerError("conflict", `The secret of "${client.name}" was just changed.`);
    return replaced;
  };

  return {
    get,

    async create({ name, provider, clientId, clientSecret, scopes, inputs }) {
      const definition = await usableDefinition(catalog, provider);
      const checkedInputs = resolveClientInputs({ definition, given: inputs });
      if (clientSecret !== null) checkSecret(definition, clientSecret);
      const id = randomUUID();
      const secret = clientSecret === null ? null : vault.sealClientSecret(clientSecret, { clientId: id, revision: 0 });
      try {
        const fields = { id, name, provider, clientId, scopes, secret, secretRevision: 0 };
        return await clients.insert({ ...fields, inputs: checkedInputs });
      } catch (error) {
        if (!isUniqueViolation(error)) throw error;
        throw new BrokerError("conflict", `name: there is already a client named "${name}".`);
      }
    },

    list: (page, filter) => clients.list(page, filter),

    async patch(name, { clientSecret, inputs, ...changes }) {
      let client = await get(name);
      const definition = await usableDefinition(catalog, client.provider);
      const checked =
        inputs === undefined
          ? {}
          : { inputs: { ...client.inputs, ...resolveClientInputs({ definition, given: inputs }) } };
      if (clientSecret !== undefined) checkSecret(definition, clientSecret);
      if (clientSecret !== undefined) client = await replaceSecret(client, clientSecret);
      const updated = await clients.update(client.id, { ...changes, ...checked });
      await clients.retryConnections(client.id);
      return updated;
    },

    async delete(name) {
      const client = await get(name);
      const count = await clients.countConnections(client.id);
      if (count > 0) {
        throw new BrokerError(
          "conflict",
          `The client "${name}" is in use by ${count} connection(s); delete those first.`,
        );
      }
      await clients.delete(client.id);
    },
  };
}

/** A client whose secret is a key has one that can be read. @throws BrokerError naming the field, never its value */
function checkSecret({ exchanges, refreshes }: ProviderDefinition, secret: string): void {
  const ways = [...Object.values(exchanges), ...Object.values(refreshes)].map(({ clientAuth }) => clientAuth);
  const fault = ways.map((way) => secretFault(way, secret)).find((found) => found !== null);
  if (fault) throw new BrokerError("invalid_request", `client_secret: ${fault}.`);
}

/** The definition of a provider that connections can be made at. @throws BrokerError naming the field `provider` */
export async function usableDefinition(catalog: Catalog, id: string): Promise<ProviderDefinition> {
  const definition = catalog.get(id);
  if (definition?.usable) return definition;
  const known = (await catalog.list()).filter(({ usable }) => usable).map((each) => each.id);
  const why = definition === undefined ? "is not known" : "is only there to be extended, it names no token endpoint";
  throw new BrokerError("invalid_request", `provider: "${id}" ${why}; known are ${known.join(", ")}.`);
}
