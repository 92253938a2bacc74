/**
 * Locks that keep replicas from crowding, and messages that wake who waits. Neither is relied on for correctness: a lock
 * may be lost at any moment and a message may never arrive.
 */
export type Leases = {
  /**
   * Asks for the lock of a key, once.
   * - `owned`: nobody else has it for `leaseMs`; `release` gives it back, and only if it is still ours.
   * - `held`: somebody else has it.
   * - `unavailable`: the lock service does not answer; go on without it.
   */
  acquire(key: string, leaseMs: number): Promise<LeaseResult>;
  announce(news: RefreshNews): void;
  /** Calls back for every message, those of this process included. */
  listen(listener: (news: RefreshNews) => void): void;
  /** Whether locks and what else is written can be had right now. Never rejects. */
  available(): Promise<boolean>;
  close(): Promise<void>;
};

type LeaseResult = { state: "owned"; release: () => void } | { state: "held" } | { state: "unavailable" };

/** What became of a refresh. Holds no token. */
export type RefreshNews = {
  connection: string;
  generation: number;
  attempt: string;
  outcome: "started" | "stored" | "failed";
};
