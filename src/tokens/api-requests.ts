import type { Clock } from "../clock.ts";
import { BrokerError, connectionNotFound, UnreadableSecretError } from "../errors.ts";
import { capturedValues } from "../providers/format/template.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import { type ApiRequest, describeApiRequest } from "../providers/oauth/side-requests.ts";
import type { ClientRow, Clients } from "../store/clients.ts";
import { createReadCache } from "../store/read-cache.ts";
import { callerTimes, refreshTimes } from "../time.ts";
import type { TokenCache } from "./cache.ts";

type Options = { cache: TokenCache; catalog: Catalog; clients: Clients; clock: Clock };

/**
 * For `include=request`: what to send with an API call, so that callers need to know nothing about the provider. It decides where they send
 * the token, so it is filled only with values that have a valid MAC or that a token opens with.
 */
export function createRequestDescriber({ cache, catalog, clients, clock }: Options) {
  const clientCache = createReadCache<ClientRow>({
    load: async (ids) => new Map((await clients.findMany(ids)).map((client) => [client.id, client])),
    clock,
    trustMs: callerTimes.cacheTrustMs,
    outageMs: Infinity,
    maxEntries: 10_000,
    supersedes: () => true,
  });

  return async (connection: string, accessToken: string): Promise<ApiRequest> => {
    const found = await cache.read(connection);
    const definition = found === null ? undefined : catalog.get(found.row.provider);
    if (found === null || definition === undefined) throw connectionNotFound(connection);
    const { row, unreadable } = found;
    if (unreadable !== null) throw unreadable;
    if (found.accessToken === null) throw justChanged(connection); // without an access token that opens, the captured values cannot be trusted
    const client = row.clientRef === null ? null : await clientCache.read(row.clientRef);
    if (row.clientRef !== null && client === null) throw unreadableClient(row.clientRef).of(connection);
    const inputs = { ...row.inputs, ...client?.inputs };
    return describeApiRequest({
      definition,
      values: {
        client: client && { id: client.clientId },
        accessToken,
        inputs,
        ...capturedValues(definition, { captured: row.captured, account: row.accountCaptured, inputs }),
      },
    });
  };
}

function unreadableClient(id: string): UnreadableSecretError {
  return new UnreadableSecretError(
    { table: "clients", row: id, column: "mac" },
    { keyId: null, reason: "does_not_open" },
  );
}

function justChanged(connection: string): BrokerError {
  const detail = "The connection was changed while its token was read; ask again.";
  return new BrokerError("refresh_in_progress", detail, {
    connection,
    retryAfterSeconds: refreshTimes.retryAfterMinSeconds,
  });
}
