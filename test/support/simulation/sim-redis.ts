import type { Leases, RefreshNews } from "../../../src/coordination/leases.ts";
import { deletedGeneration, type Mark, type Marks } from "../../../src/coordination/marks.ts";
import { nameOf, type SpoolEntry, type SpoolPlace } from "../../../src/coordination/spool.ts";
import { call, type Moments, type Remote } from "./remote.ts";
import type { Actor, Scheduler } from "./scheduler.ts";

type Options = { scheduler: Scheduler; moments: Moments; onLostReply: (actor: Actor) => void };

/** `stopped`: connections end at once; `silent`: commands run into their time limit. */
export type RedisState = "up" | "stopped" | "silent";

/** One Redis for all replicas. */
export class SimRedis {
  state: RedisState = "up";
  dropsMessages = false;
  /** How often it has come back, as its clients see it. */
  epoch = 1;
  readonly repliesToLose = new Map<string, number>();
  readonly spool = new Map<string, SpoolEntry>();
  readonly #locks = new Map<string, { owner: symbol; untilMs: number }>();
  readonly #marks = new Map<string, Mark>();
  #listeners: { actor: Actor; listener: (news: RefreshNews) => void }[] = [];
  readonly #remote: Remote;

  constructor({ scheduler, moments, onLostReply }: Options) {
    this.#remote = {
      scheduler,
      moments,
      latencyMs: () => scheduler.between(0.2, 2),
      refuses: () => {
        if (this.state === "up") return null;
        return { afterMs: this.state === "silent" ? 250 : 1, error: new Error("redis does not answer") };
      },
      losesReply: (actor) => {
        const left = this.repliesToLose.get(actor.name) ?? 0;
        if (left === 0) return false;
        this.repliesToLose.set(actor.name, left - 1);
        onLostReply(actor);
        return true;
      },
    };
  }

  flush(): void {
    this.#locks.clear();
    this.#marks.clear();
    this.spool.clear();
  }

  async #do<Result>(actor: Actor, name: string, effect: () => Result): Promise<Result> {
    return await call(this.#remote, actor, { name, writes: true, effect });
  }

  leasesOf(actor: Actor): Leases {
    const release = (key: string, owner: symbol) => {
      const compareAndDelete = () => void (this.#locks.get(key)?.owner === owner && this.#locks.delete(key));
      this.#do(actor, "unlock", compareAndDelete).catch(() => undefined);
    };
    return {
      acquire: async (key, leaseMs) => {
        const owner = Symbol(key);
        try {
          const isOurs = await this.#do(actor, "lock", () => this.#lock(key, owner, leaseMs));
          return isOurs ? { state: "owned", release: () => release(key, owner) } : { state: "held" };
        } catch {
          release(key, owner);
          return { state: "unavailable" };
        }
      },
      announce: (news) => void this.#do(actor, "publish", () => this.#publish(news)).catch(() => undefined),
      listen: (listener) => void this.#listeners.push({ actor, listener }),
      available: async () => this.state === "up",
      close: async () => {},
    };
  }

  #lock(key: string, owner: symbol, leaseMs: number): boolean {
    const { nowMs } = this.#remote.scheduler;
    if ((this.#locks.get(key)?.untilMs ?? 0) > nowMs) return false;
    this.#locks.set(key, { owner, untilMs: nowMs + leaseMs });
    return true;
  }

  #publish(news: RefreshNews): void {
    const { scheduler } = this.#remote;
    if (this.dropsMessages) return;
    this.#listeners = this.#listeners.filter(({ actor }) => actor.isAlive);
    for (const { actor, listener } of this.#listeners) {
      scheduler.after(scheduler.between(0.2, 2), actor, () => listener(news));
    }
  }

  spoolOf(actor: Actor): SpoolPlace {
    const all = (fits: (entry: SpoolEntry) => boolean) => [...this.spool.values()].filter(fits);
    return {
      name: "redis",
      put: async (entry) => void (await this.#do(actor, "spool", () => this.spool.set(nameOf(entry), entry))),
      remove: async (key) => void (await this.#do(actor, "unspool", () => this.spool.delete(nameOf(key)))),
      list: async () => await this.#do(actor, "list spool", () => all(() => true)),
      find: async ({ connectionId: id, generation }) =>
        await this.#do(actor, "find in spool", () =>
          all((one) => one.connectionId === id && one.generation === generation),
        ),
    };
  }

  marksOf(actor: Actor): Marks {
    const raise = (id: string, mark: Mark): Mark => {
      const known = this.#marks.get(id);
      if (known !== undefined && known.generation >= mark.generation) return known;
      this.#marks.set(id, { generation: mark.generation, version: mark.version });
      return mark;
    };
    const compare = (marks: ReadonlyMap<string, Mark>) => {
      const known = [...marks].map(([id, mark]) => ({ id, mark, stands: raise(id, mark) }));
      const higher = known.filter(({ mark, stands }) => stands.generation > mark.generation);
      return new Map(higher.map(({ id, stands }) => [id, stands]));
    };
    const ask = async <Result>(name: string, effect: () => Result) =>
      await this.#do(actor, name, effect).catch(() => null);
    return {
      raise: (id, mark) => void ask("raise mark", () => raise(id, mark)),
      compare: async (marks) => await ask("compare marks", () => compare(marks)),
      read: async (id) => await ask("read mark", () => this.#marks.get(id) ?? null),
      close: (id, version) =>
        void ask("close mark", () => this.#marks.set(id, { generation: deletedGeneration, version })),
    };
  }
}
