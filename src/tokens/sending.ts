import { BrokerError } from "../errors.ts";
import type { Catalog } from "../providers/catalog.ts";
import type { ConnectionGrant, ProviderDefinition } from "../providers/definition.ts";
import type { TokenAnswer } from "../providers/grant.ts";
import type { OAuthClient } from "../providers/oauth-client.ts";
import { joinScopes } from "../providers/scopes.ts";
import { fillUrl, type TemplateValues } from "../providers/template.ts";
import { buildRevocationRequest, buildTokenRequest, type TokenGrant } from "../providers/token-request.ts";
import type { ClientRow, Clients } from "../store/clients.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenVault } from "../vault/token-vault.ts";

/** What a token request of one connection is made from. Holds plain secrets. */
export type Sendable<Row = TokenRow> = {
  row: Row;
  definition: ProviderDefinition;
  client: ClientRow | null;
  /** The client's secret, and behind it the one before while the new one has not worked yet. */
  clientSecrets: readonly string[];
};

/** A single request: which grant, and with which of the client's secrets. */
export type SendPlan = { grant: TokenGrant; secretIndex: number };

export type Sender = {
  /** Reads the client and opens its secrets. @throws BrokerError when the provider's definition is gone. */
  prepare<Row extends Owner>(row: Row): Promise<Sendable<Row>>;
  /** The host that a row's token request goes to; the provider's id where that cannot be told. */
  tokenHost(row: TokenRow): Promise<string>;
  /** Sends once. Never rejects: what cannot even be built is `not_sent`. */
  send(sendable: Sendable, plan: SendPlan, given: SendGiven): Promise<TokenAnswer>;
  /** Best effort (RFC 7009), where the provider has a way to revoke. Never rejects. */
  revokeGrant(sendable: Sendable<Place>, tokens: { refreshToken?: string; accessToken?: string }): Promise<void>;
};

/** Of a connection, or of what is left of a deleted one. */
type Owner = Pick<TokenRow, "name" | "provider" | "clientRef">;
type Place = Pick<TokenRow, "inputs" | "captured">;

type SendGiven = { values?: TemplateValues; mayStillSend: () => boolean };

type Options = {
  catalog: Pick<Catalog, "get">;
  oauth: Pick<OAuthClient, "requestToken" | "revoke">;
  clients: Pick<Clients, "findById">;
  vault: TokenVault;
};

export function createSender({ catalog, oauth, clients, vault }: Options): Sender {
  const prepare: Sender["prepare"] = async (row) => {
    const definition = catalog.get(row.provider);
    if (definition === undefined) {
      throw new BrokerError(
        "provider_unavailable",
        `This broker has no definition of the provider "${row.provider}" any more; see PROVIDERS_DIR.`,
        { connection: row.name, retryAfterSeconds: 60 },
      );
    }
    const client = row.clientRef === null ? null : await clients.findById(row.clientRef);
    return { row, definition, client, clientSecrets: client === null ? [] : openSecrets(vault, client) };
  };

  return {
    prepare,

    async tokenHost(row) {
      const { definition, ...rest } = await prepare(row);
      const grant = row.grant as ConnectionGrant;
      const url = (definition.refreshes[grant] ?? definition.exchanges[grant])?.url ?? "";
      try {
        return new URL(fillUrl(url, valuesOf({ definition, ...rest }, 0))).host;
      } catch {
        return row.provider;
      }
    },

    async send(sendable, { grant, secretIndex }, { values, mayStillSend }) {
      const { row, definition } = sendable;
      try {
        const request = buildTokenRequest({
          definition,
          grant,
          obtainedBy: row.grant as ConnectionGrant,
          values: {
            ...valuesOf(sendable, secretIndex),
            scope: joinScopes(definition, row.scopes),
            ...ownSecrets(vault, row, grant),
            ...values,
          },
        });
        return await oauth.requestToken({ definition, request, mayStillSend });
      } catch (error) {
        // Only building the request throws, so nothing has left.
        const detail = error instanceof BrokerError ? error.message : "the request could not be made";
        return { kind: "failed", failure: { class: "not_sent", code: "connect_failed", detail } };
      }
    },

    async revokeGrant(sendable, { refreshToken, accessToken }) {
      await revoke(oauth, sendable, { value: refreshToken, hint: "refresh_token" });
      await revoke(oauth, sendable, { value: accessToken, hint: "access_token" });
    },
  };
}

/** All but the scopes and the secret of the connection that a request spends. */
function valuesOf({ row, client, clientSecrets }: Sendable<Place>, secretIndex: number): TemplateValues {
  const secret = clientSecrets[secretIndex];
  return {
    client: client === null ? null : { id: client.clientId, ...(secret === undefined ? {} : { secret }) },
    inputs: { ...row.inputs, ...client?.inputs },
    callback: row.captured,
    response: row.captured,
  };
}

function openSecrets(vault: TokenVault, client: ClientRow): string[] {
  const open = (record: Uint8Array | null, revision: number) =>
    record === null ? [] : [vault.openClientSecret(record, { clientId: client.id, revision })];
  return [...open(client.secret, client.secretRevision), ...open(client.previousSecret, client.secretRevision - 1)];
}

/** The one secret of the connection that this kind of request spends. */
function ownSecrets(vault: TokenVault, row: TokenRow, grant: TokenGrant): TemplateValues {
  if (grant === "refresh_token" && row.refreshToken !== null) {
    const place = { connectionId: row.id, generation: row.generation };
    return { refreshToken: vault.openRefreshToken(row.refreshToken, place) };
  }
  if (grant === "password" && row.credentials !== null) {
    const place = { connectionId: row.id, revision: row.credentialsRevision };
    return { credentials: vault.openCredentials(row.credentials, place) };
  }
  return {};
}

type RevocableToken = { value: string | undefined; hint: "access_token" | "refresh_token" };

async function revoke(
  oauth: Pick<OAuthClient, "revoke">,
  sendable: Sendable<Place>,
  { value, hint }: RevocableToken,
): Promise<void> {
  if (value === undefined) return;
  const { definition } = sendable;
  const request = revocationOf(sendable, value, hint);
  if (request !== null) await oauth.revoke({ definition, request });
}

/** Null also where a value that the request needs is lacking: then there is nothing to be done. */
function revocationOf(sendable: Sendable<Place>, token: string, tokenTypeHint: RevocableToken["hint"]) {
  const { definition } = sendable;
  try {
    return buildRevocationRequest({ definition, token, tokenTypeHint, values: valuesOf(sendable, 0) });
  } catch {
    return null;
  }
}
