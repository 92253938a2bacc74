import type { Logger } from "pino";
import { processTimes } from "../time.ts";

/** A service outside that may be away. `trouble` and `well` may be called any number of times. */
export type Outage = {
  /** @param doubtMs an outage shorter than this is not logged: this process may just have been slow */
  trouble(why: string, doubtMs?: number): void;
  well(): void;
};

type Options = {
  log: Pick<Logger, "warn" | "info">;
  monotonicMs: () => number;
  /** As it is called in the log, and in its field there. */
  name: "Redis" | "Postgres" | "DATA_DIR" | "The audit";
  /** How the broker goes on meanwhile. */
  meanwhile: string;
};

const fields = { Redis: "redis", Postgres: "database", DATA_DIR: "place", "The audit": "audit" } as const;
const states = {
  Redis: "is away",
  Postgres: "is away",
  DATA_DIR: "does not work",
  "The audit": "cannot be stored",
} as const;

/** Logs one line when it goes away or the cause changes, at most one a minute for each cause, and one when it is back. */
export function createOutage({ log, monotonicMs, name, meanwhile }: Options): Outage {
  /** When each cause was logged. There are few causes: they come from tables and hold no values. */
  const toldMs = new Map<string, number>();
  let lastMs = -Infinity;
  let sinceMs: number | null = null;
  let isTold = false;
  return {
    trouble(why, doubtMs = 0) {
      const nowMs = monotonicMs();
      sinceMs ??= nowMs;
      const isSame = nowMs - (toldMs.get(why) ?? -Infinity) < processTimes.logQuietMs;
      const isEcho = isTold && nowMs - lastMs < processTimes.logEchoMs;
      if (isSame || isEcho || nowMs - sinceMs < doubtMs) return;
      toldMs.set(why, nowMs);
      [lastMs, isTold] = [nowMs, true];
      log.warn({ [fields[name]]: "unavailable" }, `${name} ${states[name]}: ${why}. ${meanwhile}`);
    },
    well() {
      if (sinceMs === null) return;
      const seconds = Math.round((monotonicMs() - sinceMs) / 1000);
      if (isTold) log.info({ [fields[name]]: "ok", seconds }, `${name} is back after ${seconds} s`);
      [sinceMs, isTold] = [null, false];
    },
  };
}
