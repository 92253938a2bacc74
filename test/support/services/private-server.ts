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

const attempts = 300;
const pauseMs = 50;

/** Asks until the server answers. @throws the last refusal after 15 seconds. */
export async function untilAnswering(ask: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (attempt === attempts) throw error;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}
