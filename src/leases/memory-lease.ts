import { EventEmitter } from "node:events";
import type { Leases, RefreshNews } from "./lease.ts";

/** Locks and messages for one process: embedded and single-replica deployments. */
export function createMemoryLeases({ monotonicMs }: { monotonicMs: () => number }): Leases {
  const heldUntil = new Map<string, { owner: symbol; untilMs: number }>();
  const news = new EventEmitter();
  return {
    async acquire(key, leaseMs) {
      const current = heldUntil.get(key);
      if (current !== undefined && current.untilMs > monotonicMs()) return { state: "held" };
      const owner = Symbol(key);
      heldUntil.set(key, { owner, untilMs: monotonicMs() + leaseMs });
      return {
        state: "owned",
        release() {
          if (heldUntil.get(key)?.owner === owner) heldUntil.delete(key);
        },
      };
    },
    announce: (message) => void news.emit("news", message),
    listen: (listener) => void news.on("news", (message: RefreshNews) => listener(message)),
    available: async () => true,
    async close() {
      heldUntil.clear();
      news.removeAllListeners();
    },
  };
}
