import type { Clock } from "../../../src/clock.ts";
import { createDatabaseHealth, type DatabaseHealth } from "../../../src/store/database.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import { createTokenCore, type RefreshObserver, type TokenCore } from "../../../src/tokens/core.ts";
import { noAccounts, noAlarms, noDeviceCodes, noDiscovery, noOtherKeys } from "../unasked.ts";
import { createPlainVault } from "./plain-vault.ts";
import type { Moments } from "./remote.ts";
import { type Actor, createActor, type Scheduler } from "./scheduler.ts";
import { type createSimCatalog, simClientOf } from "./sim-catalog.ts";
import { SimFolder } from "./sim-folder.ts";
import type { SimProvider } from "./sim-provider.ts";
import type { SimRedis } from "./sim-redis.ts";
import type { SimStore } from "./sim-store.ts";

/** What all replicas share. */
export type Surroundings = {
  scheduler: Scheduler;
  moments: Moments;
  store: SimStore;
  redis: SimRedis;
  provider: SimProvider;
  catalog: ReturnType<typeof createSimCatalog>;
  observer: RefreshObserver;
  onError: (replica: string, error: unknown) => void;
};

/** One broker, over all of its processes. */
export class Replica {
  readonly name: string;
  readonly folder = new SimFolder();
  wallOffsetMs = 0;
  monotonicLagMs = 0;
  /** When Postgres last failed it, or it was frozen. */
  troubledMs = -Infinity;
  /** To be called when it runs again. */
  endTrouble: (nowMs: number) => void = () => {};
  actor: Actor;
  core: TokenCore;
  health: DatabaseHealth;
  readonly #around: Surroundings;

  constructor(name: string, around: Surroundings) {
    this.name = name;
    this.#around = around;
    this.actor = createActor(name);
    this.health = this.#newHealth();
    this.core = this.#newCore();
  }

  get rows(): TokenStatements {
    return this.#around.store.rowsOf(this);
  }

  get isRunning(): boolean {
    return this.actor.isAlive && !this.actor.isFrozen;
  }

  start(): void {
    this.actor = createActor(this.name);
    this.health = this.#newHealth();
    this.core = this.#newCore();
    this.core.sweeper.start();
  }

  /** SIGKILL. */
  crash(): void {
    this.actor.isAlive = false;
    this.actor.held = [];
  }

  #newHealth(): DatabaseHealth {
    const { scheduler } = this.#around;
    const health = createDatabaseHealth(() => scheduler.nowMs - this.monotonicLagMs);
    const lost = () => {
      this.troubledMs = scheduler.nowMs;
      health.lost();
    };
    return { ...health, lost };
  }

  #clock(actor: Actor): Clock {
    const { scheduler } = this.#around;
    return {
      wallMs: () => scheduler.nowMs + this.wallOffsetMs,
      monotonicMs: () => scheduler.nowMs - this.monotonicLagMs,
      sleep: (ms, signal) =>
        new Promise((resolve) => {
          if (signal?.aborted) return resolve();
          const wake = () => {
            timer.cancel();
            signal?.removeEventListener("abort", wake);
            resolve();
          };
          const timer = scheduler.after(ms, actor, wake);
          signal?.addEventListener("abort", wake);
        }),
    };
  }

  #newCore(): TokenCore {
    const { actor, health } = this;
    const { scheduler, store, redis, provider, catalog, observer, onError } = this.#around;
    const places = [this.folder.placeOf(actor, this.#around), redis.spoolOf(actor)];
    return createTokenCore({
      rows: store.rowsOf({ actor, health }),
      clients: {
        findById: async (id) =>
          await store.transact({ actor, health }, { name: "readById", effect: () => simClientOf(id) }),
        forgetPreviousSecret: async () => {},
        noteOldSecret: async () => false,
      },
      accounts: noAccounts,
      deviceCodes: noDeviceCodes,
      links: { reserve: async () => true },
      discovery: noDiscovery,
      redirectUri: (id) => `https://broker.example/callback/${id}`,
      tombstones: store.tombstonesOf({ actor, health }),
      requestLimits: store.limitsOf({ actor, health }),
      catalog,
      oauth: provider.clientOf(actor),
      leases: redis.leasesOf(actor),
      spoolPlaces: places,
      marks: redis.marksOf(actor),
      vault: createPlainVault(),
      keys: noOtherKeys,
      alarms: noAlarms,
      completion: "any",
      audited: async () => async () => {},
      health,
      onServed: () => {},
      isAlone: () => false,
      redisEpoch: () => redis.epoch,
      clock: this.#clock(actor),
      random: scheduler.random,
      observer,
      onSpoolError: () => {},
      onBackgroundError: (error) => onError(this.name, error),
    });
  }
}
