import { BrokerError, connectionNotFound } from "../errors.ts";
import { type ConnectionGrant, fixedClientId, type ProviderDefinition } from "../providers/format/definition.ts";
import type { TemplateValues } from "../providers/format/template.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import {
  type AuthorizationRequest,
  buildPushedRequest,
  type CodeDestination,
  codeDestinationOf,
  readPushedAnswer,
  redirectUriOf,
} from "../providers/oauth/authorization-request.ts";
import type { Discovery } from "../providers/oauth/discovery.ts";
import type { ExpectedIdToken } from "../providers/oauth/token-response.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { Clients } from "../store/clients.ts";
import type { Connections } from "../store/connections.ts";
import type { TokenRows } from "../store/token-rows.ts";
import { readableName } from "../text.ts";
import type { Establish } from "../tokens/connect.ts";
import type { DeviceCode } from "../tokens/devices.ts";
import type { LimitKeeper } from "../tokens/limits.ts";
import { askedInVain, openClientSecrets, type Sender } from "../tokens/request.ts";
import { endsWithItsToken, lacksRefreshToken } from "../tokens/row-rules.ts";
import type { TokenVault } from "../vault/vault.ts";

/** What a consent needs to know of a connection. */
export type AuthorizationContext = {
  connectionId: string;
  connectionName: string;
  definition: ProviderDefinition;
  clientId: string;
  /** Opens the client's secret, for callbacks that are signed with it, and the one before as long as that may count. */
  clientSecrets: () => readonly string[];
  /** Those of connection and client together. */
  inputs: Record<string, string>;
  scopes: string[];
  disabled: boolean;
  /** How its tokens are got: by a code, or by a user code that is typed in elsewhere. */
  grant: string;
  /** Who it is connected as; null: nobody, or nobody knows. */
  account: string | null;
  /** It is connected without a refresh token: the access ends with its first token. */
  endsSoon: boolean;
  /** Where the provider sends the browser back to. */
  redirectUri: string;
  destination: CodeDestination;
};

/** @throws BrokerError `connection_not_found`, `client_rejected` (no client) */
export type LoadAuthorizationContext = (connectionId: string) => Promise<AuthorizationContext>;

/**
 * Exchanges a code (RFC 6749, section 4.1.3) and stores what it gave.
 * @throws BrokerError `provider_rejected`, `provider_unavailable`, `client_rejected`, `connection_disabled`, `duplicate_grant`,
 * `storage_unavailable`, `conflict` (client or inputs have changed since the consent began)
 */
export type ExchangeCode = (given: {
  connectionId: string;
  code: string;
  codeVerifier: string | null;
  redirectUri: string | null;
  captured: Record<string, string>;
  destination: CodeDestination;
  idToken: ExpectedIdToken;
  /** Nobody can bring this code again: limits count it and do not hold it back. */
  cannotWait: boolean;
}) => Promise<ExchangedCode>;

/** `held`: the account is another one than the connection's; nothing changes before the person has confirmed it. */
/** `endsSoon`: no refresh token came, so that the access ends with its first token. */
export type ExchangedCode = { connectionName: string; held: OtherAccount | null; endsSoon: boolean };
export type OtherAccount = { attemptId: string; account: string | null; label: string | null };

/** A person's word on another account. @throws BrokerError `not_found` when it waits no more */
export type DecideAccount = (
  attemptId: string,
  accepted: boolean,
) => Promise<{ connectionName: string; providerName: string; account: string | null; endsSoon: boolean }>;

/** A grant of another account that waits for a person's word: the newest of a link, or a certain one. `accepted`: it has it. `label` is for people.
 */
export type FindHeld = (
  of: { connectionId: string; linkId: string } | { attemptId: string },
) => Promise<(OtherAccount & { connectionId: string; accepted: boolean }) | null>;

/** Sends an authorization request ahead of the person (RFC 9126); the address to go to. */
export type PushRequest = (
  context: AuthorizationContext,
  request: Omit<AuthorizationRequest, "definition">,
) => Promise<string>;

/** Asks for, or looks up, the user code of a connection (RFC 8628). */
export type DeviceCalls = {
  /** @throws BrokerError `conflict` where the scopes are no longer those that the link's page showed */
  begin(connectionId: string, link: { id: string; scopes: readonly string[] } | null): Promise<DeviceCode>;
  pending(connectionId: string): Promise<(DeviceCode & { linkId: string | null }) | null>;
};

/** Adds to a connection's history. */
export type RecordConsentEvent = (event: {
  connectionId: string;
  type: "consent_link_created" | "consent_denied" | "consent_failed";
  detail: Record<string, string>;
}) => Promise<void>;

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
