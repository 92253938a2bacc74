import { setTimeout as sleep } from "node:timers/promises";
import { hangMs } from "../patience.ts";

/** A server that one test owns: it may stop, kill and freeze it. Its URL stays the same through restarts. */
export type PrivateServer = AsyncDisposable & {
  url: string;
  /** Ends it in an orderly way; `restart` brings it back with its data. */
  stop(): Promise<void>;
  /** Ends it as a crash would: no farewell to its clients, nothing flushed. */
  kill(): Promise<void>;
  /** Starts it again, stopping it first where it runs. Resolves when it answers. */
  restart(): Promise<void>;
  /** Freezes it: connections stay open and nothing answers. */
  pause(): Promise<void>;
  resume(): Promise<void>;
};

const pauseMs = 50;

/**
 * Asks until the server answers; before each time `check` may say that it never will.
 * @throws the last refusal, when only a hang can explain it
 */
export async function untilAnswering(ask: () => Promise<void>, check = async () => {}): Promise<void> {
  const endMs = performance.now() + hangMs;
  for (;;) {
    await check();
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > endMs) throw error;
      await sleep(pauseMs);
    }
  }
}
