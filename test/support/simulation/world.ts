import type { RefreshObserver } from "../../../src/tokens/core.ts";
import { seededRandom } from "../seeded-random.ts";
import { Holdings } from "./holdings.ts";
import { InvariantWatch } from "./invariants.ts";
import type { Moments } from "./remote.ts";
import { Replica } from "./replica.ts";
import { type Actor, Scheduler } from "./scheduler.ts";
import type { SendFault } from "./sends.ts";
import { createSimCatalog, type SimLimits } from "./sim-catalog.ts";
import { SimDatabase } from "./sim-database.ts";
import { SimProvider } from "./sim-provider.ts";
import { SimRedis } from "./sim-redis.ts";
import { createSimStore, StoreFaults } from "./sim-store.ts";
import { Troubles } from "./troubles.ts";

/** A fault that strikes when a replica comes to a moment. */
export type Trap = { moment: string; spring: (replica: Replica) => void };

type Options = { seed: number; replicas: number; traced?: boolean; limits?: SimLimits };

/** Replicas of the core, and all that they touch, in virtual time. The same seed and commands give the same run. */
export class World {
  readonly scheduler: Scheduler;
  readonly database: SimDatabase;
  readonly storeFaults = new StoreFaults();
  readonly redis: SimRedis;
  readonly provider: SimProvider;
  readonly replicas: Replica[];
  readonly troubles = new Troubles();
  readonly holdings: Holdings;
  readonly watch: InvariantWatch;
  readonly traps: Trap[] = [];
  readonly trace: string[] = [];
  readonly violations: string[] = [];
  readonly observed = { lost: 0, commitDelayed: 0, candidates: 0, promoted: 0, drained: 0, held: 0 };
  readonly #isTraced: boolean;
  readonly #startedMs: number;

  constructor({ seed, replicas, traced = false, limits }: Options) {
    this.scheduler = new Scheduler(seededRandom(seed));
    this.#startedMs = this.scheduler.nowMs;
    this.#isTraced = traced;
    const { scheduler } = this;
    const moments: Moments = (actor, moment) => this.#reached(actor, moment);
    this.database = new SimDatabase(() => scheduler.nowMs);
    this.redis = new SimRedis({
      scheduler,
      moments,
      onLostReply: ({ name }) => this.troubles.strike("lost reply", name, scheduler.nowMs),
    });
    this.provider = new SimProvider({ scheduler, moments });
    const store = createSimStore({ scheduler, moments, database: this.database, faults: this.storeFaults });
    const { redis, provider } = this;
    const observer = this.#observer();
    const onError = (name: string, error: unknown) => this.#backgroundError(name, error);
    const catalog = createSimCatalog(limits);
    const around = { scheduler, moments, store, redis, provider, catalog, observer, onError };
    this.replicas = Array.from({ length: replicas }, (_, index) => new Replica(`r${index + 1}`, around));
    this.store = store;
    this.holdings = new Holdings(this);
    this.watch = new InvariantWatch(this);
  }

  readonly store: ReturnType<typeof createSimStore>;

  start(): void {
    for (const replica of this.replicas) replica.start();
  }

  note(text: string): void {
    if (!this.#isTraced) return;
    const passed = ((this.scheduler.nowMs - this.#startedMs) / 1000).toFixed(3);
    this.trace.push(`${passed.padStart(9)}  ${text}`);
  }

  violation(text: string): void {
    this.note(`VIOLATION ${text}`);
    this.violations.push(text);
  }

  replica(index: number): Replica {
    const replica = this.replicas[index % this.replicas.length];
    if (replica === undefined) throw new Error("a world without replicas");
    return replica;
  }

  /** Turns something on, and off again after `ms`. */
  during(ms: number, text: string, turn: (isOn: boolean) => void): void {
    this.note(`${text}, for ${Math.round(ms)} ms`);
    turn(true);
    this.scheduler.after(ms, null, () => {
      this.note(`no more: ${text}`);
      turn(false);
    });
  }

  crash(replica: Replica, downMs: number): void {
    if (!replica.actor.isAlive) return;
    this.note(`${replica.name} is killed`);
    replica.crash();
    replica.endTrouble = this.troubles.begin("replica", replica.name, this.scheduler.nowMs);
    this.scheduler.after(downMs, null, () => this.restart(replica));
  }

  restart(replica: Replica): void {
    if (replica.actor.isAlive) return;
    this.note(`${replica.name} starts`);
    replica.start();
    replica.endTrouble(this.scheduler.nowMs);
  }

  startAll(): void {
    for (const replica of this.replicas) this.restart(replica);
  }

  /** A suspended machine's monotonic clock stands still; a stopped process's goes on. */
  freeze(replica: Replica, { ms, isSuspended }: { ms: number; isSuspended: boolean }): void {
    const { actor } = replica;
    if (!replica.isRunning) return;
    this.note(`${replica.name} is frozen for ${Math.round(ms)} ms`);
    this.scheduler.freeze(actor);
    const endTrouble = this.troubles.begin("replica", replica.name, this.scheduler.nowMs);
    this.scheduler.after(ms, null, () => {
      if (isSuspended) replica.monotonicLagMs += Math.round(ms);
      endTrouble(this.scheduler.nowMs);
      this.thaw(actor);
    });
  }

  thaw(actor: Actor): void {
    if (!actor.isFrozen) return;
    this.note(`${actor.name} thaws`);
    // What happened meanwhile it cannot know.
    const replica = this.replicas.find((one) => one.actor === actor);
    if (replica !== undefined) replica.troubledMs = this.scheduler.nowMs;
    this.scheduler.thaw(actor);
  }

  cut(replica: Replica, ms: number): void {
    const { cutOff } = this.storeFaults;
    const endTrouble = this.troubles.begin("replica", replica.name, this.scheduler.nowMs);
    this.during(ms, `${replica.name} is cut off from Postgres`, (isOn) => {
      if (isOn) cutOff.add(replica.name);
      else cutOff.delete(replica.name);
      if (!isOn) endTrouble(this.scheduler.nowMs);
    });
  }

  /** SIGTERM: what runs is finished, or spooled when the patience is over. */
  drain(replica: Replica, downMs: number): void {
    const { actor, core } = replica;
    if (!replica.isRunning) return;
    this.note(`${replica.name} drains`);
    core.drain();
    const end = async () => {
      await core.spoolAll();
      this.scheduler.after(0, actor, () => this.crash(replica, downMs));
    };
    const patience = this.scheduler.after(this.scheduler.between(1000, 30_000), actor, () => void end());
    const settle = async () => {
      await core.idle();
      patience.cancel();
      this.scheduler.after(0, actor, () => this.crash(replica, downMs));
    };
    void settle();
  }

  flushRedis(): void {
    this.redis.flush();
    this.redisFailed();
  }

  /** For a moment, or in what it held. */
  redisFailed(): void {
    this.troubles.strike("redis", "", this.scheduler.nowMs);
  }

  /** Most requests meet this fault for a while. */
  failProvider(fault: SendFault, ms: number): void {
    this.during(ms, `the provider's fault is ${fault}`, (isOn) => {
      this.provider.faultOf = () => (isOn && this.scheduler.chance(0.8) ? fault : "none");
    });
  }

  /** All that was broken works, and everybody runs. */
  heal(): void {
    this.note("all heals");
    this.traps.length = 0;
    this.provider.faultOf = () => "none";
    const { storeFaults, redis } = this;
    if (storeFaults.isSlow) storeFaults.slowMs = this.scheduler.nowMs;
    Object.assign(storeFaults, { isUp: true, isReadOnly: false, isSlow: false });
    storeFaults.cutOff.clear();
    storeFaults.repliesToLose.clear();
    redis.repliesToLose.clear();
    redis.dropsMessages = false;
    if (redis.state === "stopped") redis.epoch += 1;
    redis.state = "up";
    this.troubles.endAll(this.scheduler.nowMs);
    for (const replica of this.replicas) this.#healReplica(replica);
  }

  #healReplica(replica: Replica): void {
    replica.folder.isFull = false;
    this.thaw(replica.actor);
    this.restart(replica);
  }

  #reached(actor: Actor, moment: string): void {
    const replica = this.replicas.find((one) => one.actor === actor);
    if (replica === undefined) return;
    if (moment === "spool done" || moment === "write file done") this.#noteSpooled(replica, moment);
    const index = this.traps.findIndex((trap) => trap.moment === moment);
    const trap = index < 0 ? undefined : this.traps[index];
    if (trap === undefined) return;
    this.traps.splice(index, 1);
    this.note(`${replica.name} at "${moment}":`);
    trap.spring(replica);
  }

  #noteSpooled(replica: Replica, moment: string): void {
    const [entries, place] =
      moment === "spool done" ? ([this.redis.spool, "redisMs"] as const) : ([replica.folder.files, "fileMs"] as const);
    const newest = [...entries.values()].at(-1);
    if (newest !== undefined) this.holdings.noteRecord(newest.record, place);
    this.note(`${replica.name} spooled to ${place === "redisMs" ? "Redis" : "its folder"}`);
  }

  #observer(): RefreshObserver {
    const { observed } = this;
    return {
      probablyDead: ({ name }) => this.note(`${name} is probably dead`),
      oldSecretUsed: () => {},
      succeeded: () => {},
      failed: (context, { failure }) =>
        this.note(`refresh of ${context.row.name} failed: ${failure.class} ${failure.code}`),
      commitDelayed: (row, error) => {
        observed.commitDelayed += 1;
        this.#expect(`storing an answer for ${row.name}`, error);
      },
      durable: () => {},
      cameLate: (row, placement) => {
        this.note(`an answer for ${row.name} came late: ${placement}`);
        if (placement === "candidate") observed.candidates += 1;
        if (placement === "promoted") observed.promoted += 1;
      },
      drained: (row) => {
        observed.drained += 1;
        this.note(`an answer for ${row.name} was drained`);
      },
      lost: (row) => {
        observed.lost += 1;
        this.note(`${row.name} is lost`);
      },
      suspendedAfterRestore: (row) => {
        observed.held += 1;
        this.violation(`${row.name} is held as gone back in time, and no database was restored`);
      },
    };
  }

  #backgroundError(name: string, error: unknown): void {
    this.#expect(`in the background of ${name}`, error);
  }

  /** Storage may be away; all else is a fault of the core's own. */
  #expect(what: string, error: unknown): void {
    const { name, message } = error as Error;
    if (name === "BrokerError") return;
    this.violation(`${what}: ${name}: ${message}`);
  }
}
