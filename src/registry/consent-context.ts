import type {
  DecideAccount,
  FindHeld,
  ExchangeCode,
  LoadAuthorizationContext,
  PushRequest,
  RecordConsentEvent,
} from "../consent/context.ts";
import { BrokerError, connectionNotFound } from "../errors.ts";
import type { Catalog } from "../providers/catalog.ts";
import { fixedClientId, type ConnectionGrant } from "../providers/definition.ts";
import { codeDestinationOf } from "../providers/code-destination.ts";
import type { Discovery } from "../providers/discovery.ts";
import { buildPushedRequest, readPushedAnswer } from "../providers/pushed-request.ts";
import { redirectUriOf } from "../providers/redirect-uri.ts";
import type { TemplateValues } from "../providers/template.ts";
import type { AccountRows } from "../store/account-rows.ts";
import type { Clients } from "../store/clients.ts";
import type { Connections } from "../store/connections.ts";
import type { TokenRows } from "../store/token-rows.ts";
import { readableName } from "../readable.ts";
import { endsWithItsToken, lacksRefreshToken } from "../tokens/refresh-token.ts";
import type { LimitKeeper } from "../tokens/limits.ts";
import { askedInVain } from "../tokens/refusal.ts";
import { openClientSecrets, type Sender } from "../tokens/sending.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import type { Establish } from "../tokens/establish.ts";

export type ConsentContextParts = {
  records: Pick<Connections, "findById" | "addEvent">;
  clients: Pick<Clients, "findById">;
  catalog: Catalog;
  establish: Pick<Establish, "exchangeCode" | "decide">;
  vault: TokenVault;
  rows: Pick<TokenRows, "readById">;
  accounts: Pick<AccountRows, "findHeld">;
  sender: Pick<Sender, "prepare" | "ask">;
  limits: Pick<LimitKeeper, "beside">;
  discovery: Discovery;
  publicUrl: string;
};

/** What consent needs to know of connections. */
export function createConsentContext(parts: ConsentContextParts) {
  const { records, clients, catalog, establish, vault, sender, limits, discovery, publicUrl } = parts;
  const loadContext: LoadAuthorizationContext = async (connectionId) => {
    const record = await records.findById(connectionId);
    if (record === null) throw connectionNotFound("");
    vault.connections.check(record);
    const known = catalog.get(record.provider);
    if (known === undefined) {
      throw new BrokerError("conflict", `This broker has no definition of the provider "${record.provider}" any more.`);
    }
    const client = record.clientRef === null ? null : await clients.findById(record.clientRef);
    const clientId = client?.clientId ?? fixedClientId(known, record.grant as ConnectionGrant);
    if (clientId === null) throw new BrokerError("conflict", "This connection has no client.");
    const destination = codeDestinationOf(record, client);
    const { inputs } = destination;
    return {
      connectionId,
      connectionName: record.name,
      definition: await discovery.complete(known, { client: { id: clientId }, inputs }),
      clientId,
      clientSecrets: () => (client === null ? [] : openClientSecrets(vault, client)),
      inputs,
      scopes: record.scopes,
      disabled: record.status === "disabled",
      grant: record.grant,
      account: readableName(record.accountLabel ?? record.account),
      endsSoon: !record.holdsRefresh && lacksRefreshToken(record),
      redirectUri: redirectUriOf(publicUrl, {
        provider: record.provider,
        client: client?.ownRedirectUri ? client.name : null,
      }),
      destination,
    };
  };

  const exchangeCode: ExchangeCode = async (given) => {
    const established = await establish.exchangeCode(given);
    return {
      connectionName: established.row.name,
      held: established.kind === "held" ? established.held : null,
      endsSoon: endsWithItsToken(established.row),
    };
  };

  const decideAccount: DecideAccount = async (attemptId, accepted) => {
    const row = await establish.decide({ attemptId }, accepted);
    const providerName = catalog.get(row.provider)?.name ?? row.provider;
    const record = await records.findById(row.id).catch(() => null); // only a name: what was decided stays decided
    const account = readableName(record?.accountLabel ?? record?.account ?? null);
    return { connectionName: row.name, providerName, account, endsSoon: endsWithItsToken(row) };
  };

  const findHeld: FindHeld = async (of) => {
    const held = await parts.accounts.findHeld(of);
    if (held === null) return null;
    const { attemptId, connectionId, account, accountLabel, accepted } = held;
    return { attemptId, connectionId, account, label: readableName(accountLabel ?? account), accepted };
  };

  const pushRequest: PushRequest = async ({ connectionId, definition }, request) => {
    const row = await parts.rows.readById(connectionId);
    if (row === null) throw connectionNotFound("");
    const sendable = await sender.prepare(row);
    const { redirectUri } = request.values;
    const build = (values: TemplateValues) =>
      buildPushedRequest({ ...request, definition, values: { ...values, redirectUri } });
    const asked = await sender.ask(sendable, {
      request: definition.authorization?.pushed ?? null,
      build,
      sends: limits.beside(sendable),
    });
    if (asked?.ok === false) throw askedInVain("The provider does not take the authorization request", asked);
    return readPushedAnswer({ definition, values: request.values, body: asked?.body });
  };

  const recordEvent: RecordConsentEvent = async ({ connectionId, type, detail }) =>
    await records.addEvent(connectionId, type, detail);

  return {
    loadContext,
    findDefinition: (provider: string) => catalog.get(provider),
    exchangeCode,
    decideAccount,
    findHeld,
    pushRequest,
    recordEvent,
  };
}
