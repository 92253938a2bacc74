import type { ConsentService } from "../consent/consent-service.ts";
import type { ExchangeCode, LoadAuthorizationContext, RecordConsentEvent } from "../consent/context.ts";
import { BrokerError } from "../errors.ts";
import type { Catalog } from "../providers/catalog.ts";
import { fixedClientId, type ConnectionGrant } from "../providers/definition.ts";
import type { Clients } from "../store/clients.ts";
import type { Connections } from "../store/connections.ts";
import type { Establish } from "../tokens/establish.ts";
import { connectionNotFound } from "../tokens/token-service.ts";
import type { ConnectionService } from "./connection-service.ts";
import type { Principal } from "./principal.ts";

export type ConsentContextParts = {
  connections: Pick<ConnectionService, "get">;
  records: Pick<Connections, "findById" | "addEvent">;
  clients: Pick<Clients, "findById">;
  catalog: Catalog;
  establish: Pick<Establish, "exchangeCode">;
};

/** What consent needs to know of connections, and how its links are asked for. */
export function createConsentContext({ connections, records, clients, catalog, establish }: ConsentContextParts) {
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

  type Wanted = { expiresInSeconds?: number; returnTo?: string; manual?: boolean };
  /** A link for a connection that the caller may see and that a person connects. */
  const linkCreator = (consent: Pick<ConsentService, "createLink">) => async (principal: Principal, name: string, wanted: Wanted) => {
    const { id, grant } = await connections.get(principal, name);
    if (grant !== "authorization_code") {
      const detail = `A ${grant} connection is not connected by consent.`;
      throw new BrokerError("grant_not_applicable", detail, { connection: name });
    }
    return await consent.createLink({ ...wanted, connectionId: id, createdBy: principal.keyId });
  };

  return { loadContext, exchangeCode, recordEvent, linkCreator };
}
