import type { Logger } from "pino";
import type { Alarms } from "../tokens/observer.ts";
import type { Metrics } from "./metrics.ts";

const quietMs = 60_000;
const mostRemembered = 10_000;

/** Counts each, and writes one line of log for the same thing in a minute: whoever writes garbage does not fill the log. */
export function createAlarms(metrics: Metrics, log: Logger, monotonicMs: () => number): Alarms {
  const toldAtMs = new Map<string, number>();
  const counted = new WeakSet<object>();
  const isNews = (what: string): boolean => {
    const nowMs = monotonicMs();
    if (nowMs - (toldAtMs.get(what) ?? -Infinity) < quietMs) return false;
    if (toldAtMs.size >= mostRemembered) toldAtMs.clear();
    toldAtMs.set(what, nowMs);
    return true;
  };
  return {
    unreadable(error) {
      if (counted.has(error)) return; // the same one, on its way up
      counted.add(error);
      metrics.unreadableSecrets.inc();
      const { place, keyId, reason, context } = error;
      const { table, row: rowId, column } = place;
      const told = { connection: context.connection, table, rowId, column, keyId, code: reason };
      if (isNews(`${place.table} ${place.row} ${place.column}`)) log.error(told, "a stored secret does not open");
    },
    rejected(kind, rowId) {
      metrics.redisRejected.inc({ kind });
      if (isNews(kind)) log.error({ kind, rowId }, "what Redis holds is not ours; it counts as absent");
    },
  };
}
