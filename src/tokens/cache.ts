import { LRUCache } from "lru-cache";
import type { Clock } from "../clock.ts";
import { UnreadableSecretError } from "../errors.ts";
import type { Labels } from "../labels.ts";
import { createReadCache } from "../store/read-cache.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { callerTimes } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { Alarms } from "./core.ts";
import { packRow, unpackRow } from "./packed-row.ts";
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
};

/** `asOf`: which version of the row it is; null: a statement that changed it returned it, and did not say. */
type Opened = KnownConnection & { asOf: string | null };

/**
 * A connection in memory. A hundred thousand are to fit, so what a fresh read needs stands here, and all else of its row is packed: `row` makes
 * it anew each time.
 */
export class KeptConnection implements KnownConnection {
  readonly id: string;
  readonly name: string;
  readonly parentId: string | null;
  readonly generation: number;
  readonly version: number;
  readonly labels: Labels;
  readonly inUse: boolean;
  /** Postgres's clock when the row was read. */
  readonly nowMs: number;
  /** Infinity: its token does not expire. */
  readonly expiresAtMs: number;
  readonly accessToken: string | null;
  readonly unreadable: UnreadableSecretError | null;
  readonly askedAt: number;
  readonly asOf: string | null;
  /** Until when it is handed out as it is, and whether a refresh ends its token: read.ts finds both out, once. NaN: not yet. */
  freshUntilMs = NaN;
  endsByRefresh = false;
  /** What http/fresh-read.ts has made of it, and how it has written the end of its token; empty: not yet. */
  answer: unknown = null;
  writtenEnd = "";
  readonly #own: string;
  readonly #common: string;

  /** @param share returns one copy of a text that many connections have in common */
  constructor({ row, accessToken, unreadable, askedAt, asOf }: Opened, share: (text: string) => string) {
    this.id = row.id;
    this.name = row.name;
    this.parentId = row.parentId;
    this.generation = row.generation;
    this.version = row.version;
    this.labels = isEmpty(row.labels) ? noLabels : row.labels;
    this.inUse = row.inUse;
    this.nowMs = row.now.getTime();
    this.expiresAtMs = row.expiresAt?.getTime() ?? Infinity;
    this.accessToken = accessToken;
    this.unreadable = unreadable;
    this.askedAt = askedAt;
    this.asOf = asOf;
    const { own, common } = packRow({ ...row, accessToken: row.accessToken && leftOut });
    this.#own = own;
    this.#common = share(common);
  }

  get row(): TokenRow {
    const { id, name, parentId, generation, version, labels, nowMs } = this;
    const beside = { id, name, parentId, generation, version, labels, now: new Date(nowMs) };
    return unpackRow({ own: this.#own, common: this.#common }, beside);
  }

  /** Of the texts that may be long. */
  get bytes(): number {
    return (this.accessToken?.length ?? 0) + this.#own.length + this.#common.length;
  }
}

export type TokenCache = {
  /** @throws BrokerError storage_unavailable when it is not known here and Postgres is gone. */
  read(name: string, options?: { bypass?: boolean }): Promise<KnownConnection | null>;
  /** As it was last read or returned, however long ago; null: it is not known here, or has ended since. */
  peek(name: string): KnownConnection | null;
  /** What `read` would return without asking anybody, as it is kept; null: it has to ask. */
  trusted(name: string): KeptConnection | null;
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
/** The limit for texts: a provider may issue tokens of hundreds of kilobytes. */
const maxBytes = 128 * 1024 * 1024;
const maxEnds = 10_000;
const maxShared = 10_000;
const longestShared = 2000;
const none: ReadonlySet<never> = new Set<never>();
const leftOut = new Uint8Array();
const noLabels: Labels = Object.freeze({});

/** A row that somebody else has written may hold null. */
function isEmpty(texts: Record<string, string>): boolean {
  return typeof texts === "object" && texts !== null && Object.keys(texts).length === 0;
}

export function createTokenCache({ rows, vault, clock, databaseClock, alarms }: Options): TokenCache {
  /** What the cache holds, by id, and the ids of further tokens among it by that of their connection. */
  const kept = new Map<string, KeptConnection>();
  const furtherIds = new Map<string, ReadonlySet<string>>();
  /** Connections that have ended. Only a query after the end shows what exists since. */
  const endedAt = new LRUCache<string, number>({ maxSize: maxEnds, sizeCalculation: () => 1 });
  let turn = 0;
  let lastEnd = -1;
  const share = createSharing();

  const keep = (one: KeptConnection): void => {
    kept.set(one.id, one);
    if (one.parentId !== null) furtherIds.set(one.parentId, new Set([...furtherOf(one.parentId), one.id]));
  };
  const drop = ({ id, parentId }: KeptConnection): void => {
    kept.delete(id);
    if (parentId === null) return;
    const others = [...furtherOf(parentId)].filter((each) => each !== id);
    if (others.length > 0) furtherIds.set(parentId, new Set(others));
    else furtherIds.delete(parentId);
  };
  const furtherOf = (id: string): ReadonlySet<string> => furtherIds.get(id) ?? none;
  /** What is kept of a connection and its further tokens. */
  const familyOf = (id: string): KeptConnection[] =>
    [id, ...furtherOf(id)].map((each) => kept.get(each)).filter((each) => each !== undefined);

  const endOf = ({ id, parentId }: Pick<TokenRow, "id" | "parentId">): number =>
    Math.max(endedAt.get(id) ?? -Infinity, endedAt.get(parentId ?? "") ?? -Infinity);
  const isOver = (one: KeptConnection): boolean => lastEnd >= one.askedAt && endOf(one) >= one.askedAt;

  const openRow = (row: TokenRow, { askedAt, asOf }: Pick<Opened, "askedAt" | "asOf">): Opened => {
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

  const cache = createReadCache<KeptConnection>({
    load: async (names) => {
      const asked = databaseClock.ask();
      const askedAt = ++turn;
      const found = await rows.readByName(names);
      if (found[0] !== undefined) databaseClock.observe(found[0].row.now, asked);
      return new Map(
        found.map(({ row, asOf }) => [row.name, new KeptConnection(openRow(row, { askedAt, asOf }), share)]),
      );
    },
    confirming: {
      isPossible: ({ asOf }) => asOf !== null,
      changed: async (asked) => {
        const before = databaseClock.ask();
        const answer = await rows.changedSince(asked);
        databaseClock.observe(answer.now, before);
        if (answer.ids.length === 0) return none;
        const ids = new Set(answer.ids);
        return new Set(asked.filter(({ id }) => ids.has(id)));
      },
    },
    clock,
    trustMs: callerTimes.cacheTrustMs,
    outageMs: Infinity, // while Postgres is away, a token is served until it expires
    maxEntries: maxConnections,
    maxBytes,
    bytesOf: ({ bytes }) => bytes,
    onKept: keep,
    onDropped: drop,
    supersedes: (one, current) =>
      one.id === current.id && one.generation !== current.generation
        ? one.generation > current.generation
        : one.nowMs >= current.nowMs,
  });

  /** Whether the cache has a row of this connection from after its end. */
  const isThere = ({ id, name }: TokenRow): boolean => {
    const present = cache.peek(name);
    return present?.id === id && !isOver(present);
  };

  return {
    async read(name, options) {
      // What was read before the end of its connection is asked for again: the name may be another connection's by now.
      for (;;) {
        const found = await cache.read(name, options);
        if (found === null || !isOver(found)) return found && unpacked(found);
        cache.forget(name);
      }
    },
    peek(name) {
      const found = cache.peek(name);
      return found === null || isOver(found) ? null : unpacked(found);
    },
    trusted(name) {
      const found = cache.trusted(name);
      return found === null || isOver(found) ? null : found;
    },
    expire: (name) => cache.expire(name),
    isSilent: () => cache.isSilent(),
    learn(row) {
      const connection = openRow(row, { askedAt: ++turn, asOf: null });
      // A statement from before the end may return late. Rows from later queries take precedence.
      if (endOf(row) === -Infinity || isThere(row)) cache.put(row.name, new KeptConnection(connection, share));
      return connection;
    },
    expireOlder(connectionId, generation) {
      if ((kept.get(connectionId)?.generation ?? -1) > generation) return;
      // A new grant ends the further tokens that did not come with it.
      for (const { name } of familyOf(connectionId)) cache.expire(name);
    },
    hasEnded: ({ row, askedAt }) => endOf(row) >= askedAt,
    stop: () => cache.stop(),
    end(connectionId, atMs) {
      const family = familyOf(connectionId);
      if (family.some(({ nowMs }) => nowMs > atMs + callerTimes.endNewsMs)) return;
      lastEnd = ++turn;
      endedAt.set(connectionId, lastEnd);
      for (const { name } of family) cache.forget(name);
    },
  };
}

/** For whoever may look at all of the row, which is unpacked at the first look. */
function unpacked(found: KeptConnection): KnownConnection {
  const { accessToken, unreadable, askedAt } = found;
  let row: TokenRow | null = null;
  return {
    get row() {
      row ??= found.row;
      return row;
    },
    accessToken,
    unreadable,
    askedAt,
  };
}

/** Returns one copy of equal texts. There are few: rows of one client and status have one. */
function createSharing(): (text: string) => string {
  const texts = new LRUCache<string, string>({ maxSize: maxShared, sizeCalculation: () => 1 });
  return (text) => {
    if (text.length > longestShared) return text;
    const first = texts.get(text);
    if (first === undefined) texts.set(text, text);
    return first ?? text;
  };
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
