/** What happens to the next requests instead of the usual. */
export type Interference = {
  /** `token` unless named. */
  endpoint?: string;
  /** How many requests it hits; 1 unless named. */
  times?: number;
  /** True: the server first does what the request asks, so that tokens are spent and issued. Only the answer is affected. */
  afterCommit?: boolean;
} & (
  | { kind: "answer"; status: number; body: unknown; headers?: Record<string, string> }
  /** No answer, ever. */
  | { kind: "hang" }
  /** The connection breaks. */
  | { kind: "reset" }
);

/** A queue of interferences, first in, first out. */
export class Interferences {
  #queue: (Interference & { left: number })[] = [];

  add(interference: Interference): void {
    this.#queue.push({ ...interference, left: interference.times ?? 1 });
  }

  take(endpoint: string): Interference | undefined {
    const found = this.#queue.find((entry) => (entry.endpoint ?? "token") === endpoint);
    if (!found) return undefined;
    found.left--;
    if (found.left <= 0) this.#queue = this.#queue.filter((entry) => entry !== found);
    return found;
  }

  clear(): void {
    this.#queue = [];
  }
}
