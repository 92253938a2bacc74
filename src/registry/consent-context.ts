import type { ExchangeCode, LoadAuthorizationContext, RecordConsentEvent } from "../consent/context.ts";
import { BrokerError, connectionNotFound } from "../errors.ts";
import type { Catalog } from "../providers/catalog.ts";
import { fixedClientId, type ConnectionGrant } from "../providers/definition.ts";
import type { Clients } from "../store/clients.ts";
import type { Connections } from "../store/connections.ts";
import type { Establish } from "../tokens/establish.ts";

export type ConsentContextParts = {
  records: Pick<Connections, "findById" | "addEvent">;
  clients: Pick<Clients, "findById">;
  catalog: Catalog;
  establish: Pick<Establish, "exchangeCode">;
};

/** What consent needs to know of connections. */
export function createConsentContext({ records, clients, catalog, establish }: ConsentContextParts) {
  const loadContext: LoadAuthorizationContext = async (connectionId) => {
    const record = await records.findById(connectionId);
    if (record === null) throw connectionNotFound("");
    const definition = catalog.get(record.provider);
    if (definition === undefined) {
      throw new BrokerError("conflict", `This broker has no definition of the provider "${record.provider}" any more.`);
    }
    const client = record.clientRef === null ? null : await clients.findById(record.clientRef);
    const clientId = client?.clientId ?? fixedClientId(definition, record.grant as ConnectionGrant);
    if (clientId === null) throw new BrokerError("conflict", "This connection has no client.");
    return {
      connectionId,
      connectionName: record.name,
      definition,
      clientId,
      inputs: { ...record.inputs, ...client?.inputs },
      scopes: record.scopes,
      disabled: record.status === "disabled",
    };
  };

  const exchangeCode: ExchangeCode = async (given) => {
    const { name } = await establish.exchangeCode(given);
    return { connectionName: name };
  };

  const recordEvent: RecordConsentEvent = async ({ connectionId, type, detail }) =>
    await records.addEvent(connectionId, type, detail);

  return { loadContext, exchangeCode, recordEvent };
}
