import type { Clock } from "../clock.ts";
import { createReadCache } from "../store/read-cache.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenRows } from "../store/token-rows.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { UnreadableSecretError } from "../unreadable.ts";
import { budgets } from "./budgets.ts";
import { placeOf } from "./destination.ts";
import { isUsable } from "./sealed-set.ts";
import type { DatabaseClock } from "./database-clock.ts";
import type { Alarms } from "./observer.ts";

/** A connection as this replica last saw it, its access token in the clear. */
export type KnownConnection = {
  row: TokenRow;
  accessToken: string | null;
  /** Why the access token that stands in the row does not open: it counts as not being there, for this connection alone. One that no header can carry counts so, too. */
  unreadable: UnreadableSecretError | null;
};

export type TokenCache = {
  /** @throws BrokerError storage_unavailable when it is not known here and Postgres is gone. */
  read(name: string, options?: { bypass?: boolean }): Promise<KnownConnection | null>;
  /** What a statement of this process just returned. */
  learn(row: TokenRow): KnownConnection;
  /** The connection changed: the next read asks Postgres. */
  expire(name: string): void;
  /** Postgres leaves questions unanswered: what is known is handed out without waiting. */
  isSilent(): boolean;
  /** A peer stored a newer generation. */
  expireOlder(connectionId: string, generation: number): void;
};

type Options = {
  rows: TokenRows;
  vault: TokenVault;
  clock: Clock;
  databaseClock: DatabaseClock;
  alarms: Pick<Alarms, "unreadable">;
};

const maxConnections = 100_000;
/** Of tokens and scopes, sealed and plain: a provider may give tokens of hundreds of kilobytes. */
const maxBytes = 128 * 1024 * 1024;

export function createTokenCache({ rows, vault, clock, databaseClock, alarms }: Options): TokenCache {
  const known = new Map<string, { name: string; generation: number }>();

  const openRow = (row: TokenRow): KnownConnection => {
    known.set(row.id, { name: row.name, generation: row.generation });
    if (known.size > maxConnections) known.delete(known.keys().next().value as string);
    try {
      vault.connections.check(row);
      const accessToken = row.accessToken && vault.openAccessToken(row.accessToken, placeOf(row));
      return { row, accessToken: accessToken !== null && isUsable(accessToken) ? accessToken : null, unreadable: null };
    } catch (error) {
      if (!(error instanceof UnreadableSecretError)) throw error;
      alarms.unreadable(error.of(row.name));
      return { row, accessToken: null, unreadable: error };
    }
  };

  const cache = createReadCache<KnownConnection>({
    load: async (names) => {
      const asked = databaseClock.ask();
      const found = await rows.readByName(names);
      if (found[0] !== undefined) databaseClock.observe(found[0].now, asked);
      return new Map(found.map((row) => [row.name, openRow(row)]));
    },
    clock,
    trustMs: budgets.cacheTrustMs,
    outageMs: Infinity, // while Postgres is gone, a token is served until it runs out
    maxEntries: maxConnections,
    maxBytes,
    bytesOf,
    supersedes: ({ row }, { row: current }) =>
      row.id === current.id && row.generation !== current.generation
        ? row.generation > current.generation
        : row.now >= current.now,
  });

  return {
    read: (name, options) => cache.read(name, options),
    expire: (name) => cache.expire(name),
    isSilent: () => cache.isSilent(),
    learn(row) {
      const connection = openRow(row);
      cache.put(row.name, connection);
      return connection;
    },
    expireOlder(connectionId, generation) {
      const entry = known.get(connectionId);
      if (entry !== undefined && entry.generation <= generation) cache.expire(entry.name);
    },
  };
}

/** What of a connection may be long. */
function bytesOf({ row, accessToken }: KnownConnection): number {
  const { grantedScopes, captured } = row;
  const texts = [accessToken ?? "", ...grantedScopes, ...Object.values(captured)];
  const sealed = [row.accessToken, row.refreshToken];
  return [...texts, ...sealed].reduce((sum, one) => sum + (one?.length ?? 0), 0);
}
