import { LRUCache } from "lru-cache";
import type { Clock } from "../clock.ts";
import { UnreadableSecretError } from "../errors.ts";
import { createReadCache } from "../store/read-cache.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { callerTimes } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { Alarms } from "./core.ts";
import { isUsable, placeOf } from "./seal.ts";

/** A connection as this replica last read it, with its access token in plain text. */
export type KnownConnection = {
  /** In memory its sealed access token is left out, since it has been opened: bytes that open nowhere stand for it. */
  row: TokenRow;
  accessToken: string | null;
  /** Why the row's access token does not open. It counts as absent. So does one that no header can carry. */
  unreadable: UnreadableSecretError | null;
  /** A sequence number: the order in which this cache asks Postgres and learns of ends. */
  askedAt: number;
  /** Which version of the row it is; null: a statement that changed it returned it, and did not say. */
  asOf: string | null;
};

export type TokenCache = {
  /** @throws BrokerError storage_unavailable when it is not known here and Postgres is gone. */
  read(name: string, options?: { bypass?: boolean }): Promise<KnownConnection | null>;
  /** As it was last read or returned, however long ago; null: it is not known here, or has ended since. */
  peek(name: string): KnownConnection | null;
  /** What `read` would return without asking anybody; null: it has to ask. */
  trusted(name: string): KnownConnection | null;
  /** Takes a row that a statement of this process has just returned. */
  learn(row: TokenRow): KnownConnection;
  /** The connection changed: the next read asks Postgres. */
  expire(name: string): void;
  /** Whether Postgres leaves queries unanswered. Cached rows are handed out without waiting then. */
  isSilent(): boolean;
  /** A peer stored a newer generation. */
  expireOlder(connectionId: string, generation: number): void;
  /**
   * The connection was deleted or disabled, with its further tokens, so rows read before that are not handed out any more. `atMs`: a time
   * after the end, by Postgres's clock. A row that was read long after it is newer: the message is a repeated one.
   */
  end(connectionId: string, atMs: number): void;
  /** Whether the connection was disabled or deleted after this was read. */
  hasEnded(found: KnownConnection): boolean;
  /** From here on nothing is confirmed, so each row is read again when its trust ends. */
  stop(): void;
};

type Options = {
  rows: Pick<TokenStatements, "readByName" | "changedSince">;
  vault: TokenVault;
  clock: Clock;
  databaseClock: DatabaseClock;
  alarms: Pick<Alarms, "unreadable">;
};

const maxConnections = 100_000;
/** The limit for tokens and scopes: a provider may issue tokens of hundreds of kilobytes. */
const maxBytes = 128 * 1024 * 1024;
const maxEnds = 10_000;
/** Beyond so many different ones nothing more is shared: a provider may make up token types. */
const maxShared = 10_000;
const longestShared = 100;
const none: ReadonlySet<string> = new Set();
const leftOut = new Uint8Array();

/** What is kept. Values that are the same in most rows are kept once: a hundred thousand rows are to fit. */
function slim(found: KnownConnection, shared: (text: string) => string): KnownConnection {
  const { row } = found;
  const kept: TokenRow = {
    ...row,
    provider: shared(row.provider),
    clientRef: row.clientRef && shared(row.clientRef),
    grant: shared(row.grant),
    tokenType: row.tokenType && shared(row.tokenType),
    accessToken: row.accessToken && leftOut,
    inputs: sharedIfEmpty(row.inputs),
    inputsInForce: sharedIfEmpty(row.inputsInForce),
    labels: sharedIfEmpty(row.labels),
    captured: sharedIfEmpty(row.captured),
    accountCaptured: sharedIfEmpty(row.accountCaptured),
  };
  return { ...found, row: kept };
}

const nothing: Record<string, string> = Object.freeze({});

/** A row that somebody else has written may hold null. */
function sharedIfEmpty(texts: Record<string, string>): Record<string, string> {
  return typeof texts === "object" && texts !== null && Object.keys(texts).length === 0 ? nothing : texts;
}

export function createTokenCache({ rows, vault, clock, databaseClock, alarms }: Options): TokenCache {
  const known = new LRUCache<string, { name: string; generation: number; furtherIds: ReadonlySet<string> }>({
    maxSize: maxConnections,
    sizeCalculation: () => 1, // `max` would set aside the memory of all entries at once
  });
  /** Connections that have ended. Only a query after the end shows what exists since. */
  const endedAt = new LRUCache<string, number>({ maxSize: maxEnds, sizeCalculation: () => 1 });
  const texts = new Map<string, string>();
  /** One copy of a text that many rows hold. There are few: ids of providers and clients, grants, token types. */
  const shared = (text: string): string => {
    const first = texts.get(text);
    if (first !== undefined) return first;
    if (texts.size < maxShared && text.length <= longestShared) texts.set(text, text);
    return text;
  };
  let turn = 0;

  const knownOf = (id: string) => known.get(id) ?? { name: "", generation: -1, furtherIds: none };
  const note = ({ id, parentId, name, generation }: TokenRow): void => {
    known.set(id, { ...knownOf(id), name, generation });
    if (parentId !== null) {
      known.set(parentId, { ...knownOf(parentId), furtherIds: new Set([...knownOf(parentId).furtherIds, id]) });
    }
  };
  /** The cached names of a connection and its further tokens. */
  const familyOf = (id: string): string[] => [id, ...knownOf(id).furtherIds];

  const endOf = ({ id, parentId }: TokenRow): number =>
    Math.max(endedAt.get(id) ?? -Infinity, endedAt.get(parentId ?? "") ?? -Infinity);
  const hasEnded: TokenCache["hasEnded"] = ({ row, askedAt }) => endOf(row) >= askedAt;

  const openRow = (row: TokenRow, { askedAt, asOf }: Pick<KnownConnection, "askedAt" | "asOf">): KnownConnection => {
    note(row);
    try {
      vault.connections.check(row);
      const accessToken = row.accessToken && vault.openAccessToken(row.accessToken, placeOf(row));
      return {
        row,
        accessToken: accessToken !== null && isUsable(accessToken) ? accessToken : null,
        unreadable: null,
        askedAt,
        asOf,
      };
    } catch (error) {
      if (!(error instanceof UnreadableSecretError)) throw error;
      alarms.unreadable(error.of(row.name));
      return { row, accessToken: null, unreadable: error, askedAt, asOf };
    }
  };

  const cache = createReadCache<KnownConnection>({
    load: async (names) => {
      const asked = databaseClock.ask();
      const askedAt = ++turn;
      const found = await rows.readByName(names);
      if (found[0] !== undefined) databaseClock.observe(found[0].row.now, asked);
      return new Map(found.map(({ row, asOf }) => [row.name, slim(openRow(row, { askedAt, asOf }), shared)]));
    },
    confirming: {
      isPossible: ({ asOf }) => asOf !== null,
      changed: async (asked) => {
        const versions = asked.map(({ row, asOf }) => ({ id: row.id, asOf: asOf ?? "" }));
        const before = databaseClock.ask();
        const answer = await rows.changedSince(versions);
        databaseClock.observe(answer.now, before);
        const ids = new Set(answer.ids);
        return new Set(asked.filter(({ row }) => ids.has(row.id)));
      },
    },
    clock,
    trustMs: callerTimes.cacheTrustMs,
    outageMs: Infinity, // while Postgres is away, a token is served until it expires
    maxEntries: maxConnections,
    maxBytes,
    bytesOf,
    supersedes: ({ row }, { row: current }) =>
      row.id === current.id && row.generation !== current.generation
        ? row.generation > current.generation
        : row.now >= current.now,
  });

  /** Whether the cache has a row of this connection from after its end. */
  const isThere = ({ id, name }: TokenRow): boolean => {
    const present = cache.peek(name);
    return present?.row.id === id && !hasEnded(present);
  };

  return {
    async read(name, options) {
      // What was read before the end of its connection is asked for again: the name may be another connection's by now.
      for (;;) {
        const found = await cache.read(name, options);
        if (found === null || !hasEnded(found)) return found;
        cache.forget(name);
      }
    },
    peek(name) {
      const found = cache.peek(name);
      return found === null || hasEnded(found) ? null : found;
    },
    trusted(name) {
      const found = cache.trusted(name);
      return found === null || hasEnded(found) ? null : found;
    },
    expire: (name) => cache.expire(name),
    isSilent: () => cache.isSilent(),
    learn(row) {
      const connection = openRow(row, { askedAt: ++turn, asOf: null });
      // A statement from before the end may return late. Rows from later queries take precedence.
      if (endOf(row) === -Infinity || isThere(row)) cache.put(row.name, slim(connection, shared));
      return connection;
    },
    expireOlder(connectionId, generation) {
      const entry = known.get(connectionId);
      if (entry === undefined || entry.generation > generation) return;
      // A new grant ends the further tokens that did not come with it.
      for (const id of familyOf(connectionId)) if (knownOf(id).name !== "") cache.expire(knownOf(id).name);
    },
    hasEnded,
    stop: () => cache.stop(),
    end(connectionId, atMs) {
      const family = familyOf(connectionId).map((id) => ({ id, entry: cache.peek(knownOf(id).name)?.row }));
      const own = family.filter(({ id, entry }) => entry?.id === id);
      if (own.some(({ entry }) => (entry?.now.getTime() ?? 0) > atMs + callerTimes.endNewsMs)) return;
      endedAt.set(connectionId, ++turn);
      for (const { id } of family) cache.forget(knownOf(id).name);
    },
  };
}

/** The size of the parts of a connection that may be long. */
function bytesOf({ row, accessToken }: KnownConnection): number {
  const { grantedScopes, captured } = row;
  const texts = [accessToken ?? "", ...grantedScopes, ...Object.values(captured ?? {})];
  const sealed = [row.accessToken, row.refreshToken];
  return [...texts, ...sealed].reduce((sum, one) => sum + (one?.length ?? 0), 0);
}

/** This process's clocks at one moment. */
type AskedAt = { wallMs: number; monotonicMs: number };

/** This process's estimate of Postgres's clock. All expiry is judged by it. */
export type DatabaseClock = {
  /** Call it before a query that returns Postgres's time. */
  ask(): AskedAt;
  /** Call it with that time. */
  observe(now: Date, asked: AskedAt): void;
  /** True before the first time, and if this process's clocks have disagreed since the last: one was set, or the machine was suspended. */
  isDoubtful(): boolean;
  /** Milliseconds since 1970. Never behind Postgres; ahead by at most the time that the last query took. */
  nowMs: () => number;
};

/**
 * Keeps the last observed time and advances it by the larger of monotonic and wall time passed: a suspended machine stops
 * the first, somebody setting the clock back stops the second.
 */
export function createDatabaseClock(clock: Clock): DatabaseClock {
  let base = { databaseMs: clock.wallMs(), wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() };
  let isObserved = false;
  const passed = () => ({ wallMs: clock.wallMs() - base.wallMs, monotonicMs: clock.monotonicMs() - base.monotonicMs });
  return {
    isDoubtful() {
      const { wallMs, monotonicMs } = passed();
      return !isObserved || Math.abs(wallMs - monotonicMs) > callerTimes.clockDriftMs;
    },
    nowMs() {
      const { wallMs, monotonicMs } = passed();
      return base.databaseMs + Math.max(wallMs, monotonicMs);
    },
    ask: () => ({ wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() }),
    // Counted from when the query was sent, so that a late answer does not set the clock back.
    observe(now, asked) {
      isObserved = true;
      base = { databaseMs: now.getTime(), ...asked };
    },
  };
}
