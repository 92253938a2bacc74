import type { Clock } from "../clock.ts";
import type { Leases } from "../leases/lease.ts";
import type { Marks } from "../marks/marks.ts";
import type { Catalog } from "../providers/catalog.ts";
import type { OAuthClient } from "../providers/oauth-client.ts";
import type { SpoolPlace } from "../spool/spool.ts";
import type { Clients } from "../store/clients.ts";
import type { DatabaseHealth } from "../store/database-health.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenRows } from "../store/token-rows.ts";
import type { Tombstones } from "../store/tombstones.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { budgets } from "./budgets.ts";
import { createDatabaseClock } from "./database-clock.ts";
import { createEstablish } from "./establish.ts";
import { createKeeper } from "./keeping.ts";
import type { RefreshObserver } from "./observer.ts";
import { createReads } from "./reads.ts";
import { createRecovery } from "./recovery.ts";
import { createRefresh } from "./refresh.ts";
import { createSender } from "./sending.ts";
import { createSpools } from "./spools.ts";
import { createSweeper } from "./sweeper.ts";
import { createTokenCache } from "./token-cache.ts";
import { createTokenService } from "./token-service.ts";
import { createWaiting } from "./waiting.ts";

/** Everything of the outside that the core touches: a simulation gives its own. */
export type TokenCoreParts = {
  rows: TokenRows;
  clients: Pick<Clients, "findById" | "forgetPreviousSecret">;
  tombstones: Tombstones;
  catalog: Pick<Catalog, "get">;
  oauth: Pick<OAuthClient, "requestToken" | "revoke">;
  leases: Leases;
  spoolPlaces: readonly SpoolPlace[];
  marks: Marks;
  vault: TokenVault;
  health: DatabaseHealth;
  /** Moves when Redis, which was away, has come back. */
  redisEpoch: () => number;
  clock: Clock;
  /** For jitter. */
  random: () => number;
  observer: RefreshObserver;
  onSpoolError: (place: SpoolPlace["name"], error: unknown) => void;
  /** Told of errors in work that nobody waits for. */
  onBackgroundError: (error: unknown) => void;
};

export type TokenCore = ReturnType<typeof createTokenCore>;

/** The refresh core of one replica. It does nothing by itself until `sweeper.start()`. */
export function createTokenCore(parts: TokenCoreParts) {
  const { rows, leases, clock, health, observer, onBackgroundError } = parts;
  const lifecycle = { draining: false };
  const isDraining = () => lifecycle.draining;
  const databaseClock = createDatabaseClock(clock);
  const sender = createSender(parts);
  const common = { ...parts, databaseClock, sender, isDraining };
  const cache = createTokenCache(common);
  const learn = (row: TokenRow) => void cache.learn(row);
  const spools = createSpools({ places: parts.spoolPlaces, onError: parts.onSpoolError });
  const keeper = createKeeper({ ...common, spools, learn });
  const recovery = createRecovery({ ...common, spools, keeper, learn, onError: onBackgroundError });
  const refresh = createRefresh({ ...common, keeper, recovery, waiting: createWaiting({ rows, leases, clock }) });
  const reads = createReads();
  const tokens = createTokenService({ ...common, cache, refresh, reads });
  const establish = createEstablish({ ...common, cache, keeper });
  const recover = onComeback(
    () => `${health.losses()} ${parts.redisEpoch()}`,
    () => recovery.run(),
    clock,
  );
  const sweeper = createSweeper({
    ...common,
    reads,
    refreshAhead: async (row) => await tokens.refreshAhead(row),
    tokenHost: async (row) => await sender.tokenHost(row),
    recover,
    onError: onBackgroundError,
  });

  return {
    cache,
    tokens,
    establish,
    sender,
    sweeper,
    recovery,
    /** What is to be done before the first caller comes. */
    recover,
    marks: parts.marks,
    nowMs: () => databaseClock.nowMs(),
    /** No new permits and no sweeping from here on; what is under way goes on. */
    drain() {
      lifecycle.draining = true;
      sweeper.stop();
      void sweeper.noteReads();
    },
    /** Resolves when no refresh runs here any more and every answer is stored. */
    async settled() {
      await sweeper.noteReads();
      await tokens.settled();
      await keeper.settled();
    },
    spoolAll: () => keeper.spoolAll(),
    observer,
  };
}

/** Runs `work` again when `epoch` has moved since it last succeeded, and a while after it was not complete. */
function onComeback(epoch: () => string, work: () => Promise<boolean>, clock: Clock): () => Promise<void> {
  let done: string | null = null;
  let againAtMs = Infinity;
  return async () => {
    const now = epoch();
    if (now === done && clock.monotonicMs() < againAtMs) return;
    const isComplete = await work();
    done = now;
    againAtMs = isComplete ? Infinity : clock.monotonicMs() + budgets.recoverAgainMs;
  };
}
