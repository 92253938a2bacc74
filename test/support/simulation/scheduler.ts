import { EventHeap, type TimedEvent } from "./event-heap.ts";
import { settleMicrotasks } from "./microtasks.ts";

/** Whose event it is. Events of a dead replica never happen; those of a frozen one happen when it goes on. */
export type Actor = { readonly name: string; isAlive: boolean; isFrozen: boolean; held: (() => void)[] };

type Event = TimedEvent & { owner: Actor | null; run: () => void };

export type Timer = { cancel(): void };

/** Virtual time. One event happens after the other, each with everything that follows from it at once. */
export class Scheduler {
  readonly random: () => number;
  /** The true time, in whole milliseconds since 1970. The clocks of simulated processes differ from it. */
  nowMs = Date.UTC(2026, 10, 20, 12);
  events = 0;
  readonly #heap = new EventHeap<Event>();
  #order = 0;

  /** @param random the source of all that is random, latencies first */
  constructor(random: () => number) {
    this.random = random;
  }

  /** `owner` null: it happens whichever replica is dead, as inside a server. */
  after(delayMs: number, owner: Actor | null, run: () => void): Timer {
    const event = {
      atMs: this.nowMs + Math.max(0, Math.round(delayMs)),
      order: this.#order++,
      cancelled: false,
      owner,
      run,
    };
    this.#heap.push(event);
    return { cancel: () => void (event.cancelled = true) };
  }

  async runUntil(untilMs: number): Promise<void> {
    await settleMicrotasks();
    for (let next = this.#heap.first; next !== undefined && next.atMs <= untilMs; next = this.#heap.first) {
      this.#heap.pop();
      this.nowMs = Math.max(this.nowMs, next.atMs);
      if (!happens(next)) continue;
      this.events += 1;
      next.run();
      await settleMicrotasks();
    }
    this.nowMs = Math.max(this.nowMs, untilMs);
  }

  async pass(ms: number): Promise<void> {
    await this.runUntil(this.nowMs + Math.round(ms));
  }

  /** SIGSTOP: nothing of it happens until `thaw`. */
  freeze(actor: Actor): void {
    actor.isFrozen = true;
  }

  thaw(actor: Actor): void {
    actor.isFrozen = false;
    for (const run of actor.held.splice(0)) this.after(0, actor, run);
  }

  between(low: number, high: number): number {
    return low + (high - low) * this.random();
  }

  /** A random time, evenly spread by magnitude: short times are as likely as long ones. */
  magnitude(low: number, high: number): number {
    return low * (high / low) ** this.random();
  }

  chance(share: number): boolean {
    return this.random() < share;
  }

  pick<Item>(items: readonly Item[]): Item {
    const item = items[Math.floor(this.random() * items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }
}

export function createActor(name: string): Actor {
  return { name, isAlive: true, isFrozen: false, held: [] };
}

function happens({ cancelled, owner, run }: Event): boolean {
  if (cancelled || owner?.isAlive === false) return false;
  if (owner === null || !owner.isFrozen) return true;
  owner.held.push(run);
  return false;
}
