import type { Clock } from "../clock.ts";
import { shareReads } from "../concurrency.ts";
import type { Leases } from "../coordination/leases.ts";
import type { Marks } from "../coordination/marks.ts";
import type { SpoolPlace } from "../coordination/spool.ts";
import type { UnreadableSecretError } from "../errors.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import type { Discovery } from "../providers/oauth/discovery.ts";
import type { Failure } from "../providers/oauth/token-answer.ts";
import type { OAuthClient } from "../providers/oauth/oauth-client.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { ClientRow, Clients } from "../store/clients.ts";
import type { ConsentLinks } from "../store/consents.ts";
import type { DatabaseHealth } from "../store/database.ts";
import type { DeviceAuthorizations } from "../store/devices.ts";
import type { Tombstones } from "../store/token-sets.ts";
import type { RequestLimits } from "../store/request-limits.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { refreshTimes } from "../time.ts";
import type { KeyList } from "../vault/keyring.ts";
import type { TokenVault } from "../vault/vault.ts";
import { createAccounts } from "./accounts.ts";
import { createDatabaseClock, createTokenCache } from "./cache.ts";
import { createAuthorizations, createPersonGrants } from "./person-grant.ts";
import { createDevices, type DeviceParts } from "./devices.ts";
import { createGrantEnds } from "./grant-ends.ts";
import { createRequestLimiter } from "./limits.ts";
import { createAnswerStore } from "./persist.ts";
import { createReads, createTokenService } from "./read.ts";
import { createRecovery, createSpools } from "./recovery.ts";
import { createRefresh, createPostponedPlans } from "./refresh.ts";
import { createSender, type RequestContext } from "./request.ts";
import { createSweeper } from "./sweeper.ts";
import { createWaiting } from "./waiting.ts";

/** `isDraining`: this process shuts down and begins nothing new. */
export type Lifecycle = { readonly isDraining: boolean };

/** Everything outside that the core uses. The simulation passes its own. */
export type TokenCoreParts = {
  rows: TokenStatements;
  accounts: AccountRows;
  deviceCodes: DeviceAuthorizations;
  links: Pick<ConsentLinks, "reserve">;
  clients: Pick<Clients, "findById" | "forgetPreviousSecret" | "noteOldSecret">;
  tombstones: Tombstones;
  catalog: Pick<Catalog, "get" | "list">;
  discovery: Discovery;
  /** Where a provider sends browsers back to. */
  redirectUri: (provider: string) => string;
  oauth: Pick<OAuthClient, "requestToken" | "ask">;
  requestLimits: RequestLimits;
  leases: Leases;
  spoolPlaces: readonly SpoolPlace[];
  marks: Marks;
  vault: TokenVault;
  keys: KeyList;
  health: DatabaseHealth;
  /** Called for each connection whose token is handed out. */
  onServed: (connectionId: string) => void;
  /** Whether no other replica can be expected to refresh what this one does not. */
  isAlone: () => boolean;
  /** Changes whenever Redis comes back after an outage. */
  redisEpoch: () => number;
  clock: Clock;
  /** For jitter. */
  random: () => number;
  observer: RefreshObserver;
  alarms: Alarms;
  completion: DeviceParts["completion"];
  /** Writes into the audit what comes of user codes. */
  audited: DeviceParts["audited"];
  onSpoolError: (place: SpoolPlace["name"], error: unknown) => void;
  /** Called for errors in work that nobody waits for. */
  onBackgroundError: (error: unknown) => void;
};

export type TokenCore = ReturnType<typeof createTokenCore>;

/** The refresh core of one replica. It does nothing by itself until `sweeper.start()`. */
export function createTokenCore(parts: TokenCoreParts) {
  const { rows, leases, clock, health, observer, onBackgroundError } = parts;
  const lifecycle = { isDraining: false };
  const databaseClock = createDatabaseClock(clock);
  const subjectToken = async (name: string) => (await tokens.get(name, subjectWish)).accessToken;
  // Each request is made from the client as it is now. Those that are made at the same moment read it by one query.
  const clients = { ...parts.clients, findById: shareReads(async (id) => await parts.clients.findById(id)) };
  const sender = createSender({ ...parts, clients, subjectToken });
  const limits = createRequestLimiter({ limits: parts.requestLimits, sender, clock, onError: onBackgroundError });
  const lookups = createAccounts({ ...parts, sender });
  const common = { ...parts, databaseClock, sender, limits, lifecycle };
  const cache = createTokenCache(common);
  const learn = (row: TokenRow) => void cache.learn(row);
  const spools = createSpools({ places: parts.spoolPlaces, onError: parts.onSpoolError });
  const answerStore = createAnswerStore({ ...common, spools, learn });
  const recovery = createRecovery({ ...common, spools, answerStore, learn, onError: onBackgroundError });
  const personGrants = createPersonGrants({ ...common, cache, answerStore });
  const waiting = createWaiting({ rows, leases, clock });
  const refreshParts = {
    ...common,
    answerStore,
    recovery,
    lookups,
    learn,
    waiting,
    postponedPlans: createPostponedPlans(),
  };
  const refresh = createRefresh(refreshParts);
  const grantEnds = createGrantEnds({ ...refreshParts, cache });
  const reads = createReads();
  const tokens = createTokenService({ ...common, cache, refresh, waiting, reads });
  const authorizations = createAuthorizations({ ...common, cache, lookups, personGrants });
  const devices = createDevices({ ...common, authorizations });
  let forgetting: Promise<void> = Promise.resolve();
  const tidy = async () => {
    // Not inside of the sweeper's loop, since it waits for providers that revoke.
    forgetting = authorizations.forgetUnconfirmed().catch(onBackgroundError);
    await rows.tidy();
  };
  const recover = onComeback(
    () => `${health.losses()} ${parts.redisEpoch()}`,
    () => recovery.run(),
    clock,
  );
  const sweeper = createSweeper({
    ...common,
    rows: { ...rows, tidy },
    reads,
    pollDevices: async () => await devices.round(),
    refreshAhead: async (row) => await tokens.refreshAhead(row),
    tokenHost: async (row) => await sender.tokenHost(row),
    recover,
    lapseRetries: async () => await grantEnds.lapse(),
    onError: onBackgroundError,
  });

  return {
    cache,
    tokens,
    grantEnds,
    authorizations,
    devices,
    sender,
    limits,
    sweeper,
    recovery,
    /** Call it before the first caller comes. */
    recover,
    marks: parts.marks,
    nowMs: databaseClock.nowMs,
    /** No new permits and no sweeping from here on; what is under way goes on. */
    drain() {
      lifecycle.isDraining = true;
      sweeper.stop();
      cache.stop();
      void sweeper.markInUse();
    },
    /** Resolves when no refresh runs here any more and every answer is stored. */
    async idle() {
      await sweeper.markInUse();
      await tokens.idle();
      await grantEnds.idle();
      await devices.idle();
      await forgetting;
      await answerStore.idle();
    },
    spoolAll: () => answerStore.spoolAll(),
    unstored: () => answerStore.unstored(),
    observer,
  };
}

/** How to read a connection's own token, if a further token is exchanged for it. */
const subjectWish = {
  minTtlSeconds: refreshTimes.subjectTtlSeconds,
  rejectedVersion: null,
  labels: {},
  waitSeconds: refreshTimes.subjectWaitSeconds,
};

/** Runs `work` when `epoch` has changed since it last succeeded, and again a while after it was not complete. */
function onComeback(epoch: () => string, work: () => Promise<boolean>, clock: Clock): () => Promise<void> {
  let done: string | null = null;
  let againAtMs = Infinity;
  return async () => {
    const now = epoch();
    if (now === done && clock.monotonicMs() < againAtMs) return;
    const isComplete = await work();
    done = now;
    againAtMs = isComplete ? Infinity : clock.monotonicMs() + refreshTimes.recoverAgainMs;
  };
}

/** What telemetry learns of refreshes. Calls must not throw. Their arguments hold secrets, which must not be written anywhere. */
export type RefreshObserver = {
  succeeded(context: RequestContext, given: { replay: boolean; seconds: number }): void;
  failed(context: RequestContext, given: { failure: Failure; replay: boolean; seconds: number }): void;
  /** A received answer could not be stored yet. */
  commitDelayed(row: TokenRow, error: unknown): void;
  /** A received answer has its first durable copy; `seconds`: since it came. */
  durable(row: TokenRow, given: { seconds: number }): void;
  /** A received answer found its row changed. */
  cameLate(row: TokenRow, placement: "promoted" | "candidate" | "duplicate" | "unwanted"): void;
  /** An answer was found in a spool and placed. */
  drained(row: Pick<TokenRow, "name" | "provider">): void;
  /** A grant has ended because the answer to a rotation was lost. */
  lost(row: TokenRow): void;
  /** A connection is marked as probably dead. */
  probablyDead(row: TokenRow): void;
  /** The newest secret of a client is refused, and the one before works. Called once for each client and secret. */
  oldSecretUsed(row: TokenRow, client: Pick<ClientRow, "name">): void;
  /** A row of a restored database is suspended. */
  suspendedAfterRestore(row: TokenRow): void;
};

/** Alarms about values that somebody else may have written, or a disk has damaged. Calls must not throw. */
export type Alarms = {
  /** A sealed value does not open. */
  unreadable(error: UnreadableSecretError): void;
  /** A value in Redis that this broker did not write. `row`: the connection that it claims to belong to. */
  rejected(kind: "mark" | "spool" | "news" | "end", row: string | null): void;
};
