import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { FaultCounts, Faults, LostAnswers } from "./tcp-proxy.ts";

type Rules = { readonly faults: Faults; readonly counts: FaultCounts; untilFlowing(): Promise<void> };

/** If no further byte comes for so long, the server's answer counts as complete. */
const answeredMs = 20;

/** One connection through a `FaultProxy`. */
export class Link {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #proxy: Rules;
  /** The last characters that the client has sent, so that a text is found even if it comes in pieces. */
  #asked = "";
  #answeredBytes = 0;
  /** Set from the moment when this connection's answers are lost. */
  #lost: LostAnswers | null = null;
  #resetTimer: NodeJS.Timeout | undefined;
  #subscribed = false;

  constructor({ client, host, port, proxy }: { client: Socket; host: string; port: number; proxy: Rules }) {
    this.#client = client;
    this.#proxy = proxy;
    this.#server = connect({ port, host, allowHalfOpen: true });
    this.#server.on("error", () => {});
    this.#server.setNoDelay(true);
    client.setNoDelay(true);
    this.#pass(client, this.#server, { delayMs: () => proxy.faults.delayToServerMs, seen: (data) => this.#ask(data) });
    this.#pass(this.#server, client, {
      delayMs: () => proxy.faults.delayToClientMs,
      seen: (data) => this.#answer(data),
    });
  }

  reset(): void {
    this.#client.resetAndDestroy();
    this.#server.resetAndDestroy();
  }

  destroy(): void {
    clearTimeout(this.#resetTimer);
    this.#client.destroy();
    this.#server.destroy();
  }

  /** Bytes keep their order, and the end of one side comes after the last of them. */
  #pass(from: Socket, to: Socket, given: { delayMs: () => number; seen: (data: Buffer) => Buffer | null }): void {
    let last: Promise<void> = Promise.resolve();
    const inOrder = async (before: Promise<void>, dueMs: number, act: () => void) => {
      await before;
      if (dueMs > performance.now()) await sleep(dueMs - performance.now());
      await this.#proxy.untilFlowing();
      act();
    };
    const after = (delayMs: number, act: () => void) => {
      const dueMs = performance.now() + delayMs;
      last = inOrder(last, dueMs, act);
    };
    from.on("data", (data) => {
      after(given.delayMs(), () => {
        const rest = given.seen(data);
        if (rest !== null && !to.destroyed && !to.writableEnded) to.write(rest);
      });
    });
    from.on("end", () => after(given.delayMs(), () => void to.end()));
    from.on("close", (hadError) => after(given.delayMs(), () => (hadError ? this.reset() : void to.end())));
  }

  #ask(data: Buffer): Buffer {
    const { lostAnswers } = this.#proxy.faults;
    if (lostAnswers === null || this.#lost !== null) return data;
    const from = lostAnswers.from ?? "";
    const text = this.#asked + data.toString("latin1");
    this.#asked = from.length > 1 ? text.slice(1 - from.length) : "";
    if (!text.includes(from) || lostAnswers.times === 0) return data;
    if (lostAnswers.times !== undefined) lostAnswers.times--;
    this.#lost = { ...lostAnswers };
    this.#proxy.counts.lostAnswers++;
    return data;
  }

  /** What of an answer goes on to the client. */
  #answer(data: Buffer): Buffer | null {
    if (this.#lost !== null) return this.#lose(this.#lost);
    if (this.#subscribed && this.#proxy.faults.losesPushes) {
      this.#proxy.counts.lostPushes++;
      return null;
    }
    this.#subscribed ||= data.toString("latin1").includes("\r\nsubscribe\r\n");
    const limit = this.#proxy.faults.cutAnswersAfterBytes;
    const before = this.#answeredBytes;
    this.#answeredBytes += data.length;
    return limit === null || this.#answeredBytes < limit
      ? data
      : this.#cut(data.subarray(0, Math.max(0, limit - before)));
  }

  #lose({ ending }: LostAnswers): null {
    clearTimeout(this.#resetTimer);
    if (ending === "reset") this.#resetTimer = setTimeout(() => this.reset(), answeredMs);
    return null;
  }

  /** A normal end: a reset would discard what the client has not read yet. */
  #cut(rest: Buffer): null {
    if (this.#client.writableEnded) return null;
    this.#proxy.counts.cut++;
    this.#client.end(rest);
    this.#server.destroy();
    return null;
  }
}
