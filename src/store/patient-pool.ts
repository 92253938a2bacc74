import { callbackify } from "node:util";
import { Pool, type PoolClient, type PoolConfig } from "pg";
import { createGate, type Gate } from "../gate.ts";

type Callback = (error: Error | undefined, client: PoolClient | undefined, release: (reason?: unknown) => void) => void;

const mostPatienceMs = 10_000;

/**
 * A pool in whose queue nobody's time to connect runs out: its `connectionTimeoutMillis` counts for connecting alone. A burst
 * of work is then not taken for an absent database.
 */
export class PatientPool extends Pool {
  readonly #gate: Gate;

  constructor(config: PoolConfig & { max: number }) {
    super(config);
    this.#gate = createGate(config.max);
    this.on("release", () => this.#gate.leave());
    // Between the pool and who gets a connection nobody else listens; an error without a listener would end the process.
    this.on("connect", (client) => client.on("error", () => {}));
  }

  override connect(): Promise<PoolClient>;
  override connect(callback: Callback): void;
  override connect(callback?: Callback): Promise<PoolClient> | void {
    if (callback === undefined) return this.#enter();
    callbackify(() => this.#enter())((error, client) =>
      callback(error ?? undefined, client, (reason) => client.release(reason as Error)),
    );
  }

  async #enter(): Promise<PoolClient> {
    if (!(await this.#gate.enter(mostPatienceMs))) throw new Error("no connection of the pool became free");
    try {
      return await super.connect();
    } catch (error) {
      this.#gate.leave();
      throw error;
    }
  }
}
