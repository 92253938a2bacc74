import type { Logger } from "pino";

/** Something outside that may be away: what is wrong with it, and that it is well again. Both may be said as often as one likes. */
export type Outage = {
  /** @param doubtMs so long it may have been a slow moment of this process, and is not told */
  trouble(why: string, doubtMs?: number): void;
  well(): void;
};

const quietMs = 60_000;

type Options = {
  log: Pick<Logger, "warn" | "info">;
  monotonicMs: () => number;
  /** As it is called in the log, and in its field there. */
  name: "Redis" | "Postgres" | "DATA_DIR";
  /** How the broker goes on meanwhile. */
  meanwhile: string;
};

const fields = { Redis: "redis", Postgres: "database", DATA_DIR: "place" } as const;

/** One line when it goes, at most one in a minute while it stays away or comes and goes, and one when it is back. */
export function createOutage({ log, monotonicMs, name, meanwhile }: Options): Outage {
  let toldMs = -Infinity;
  let sinceMs: number | null = null;
  let isTold = false;
  return {
    trouble(why, doubtMs = 0) {
      const nowMs = monotonicMs();
      sinceMs ??= nowMs;
      if (nowMs - toldMs < quietMs || nowMs - sinceMs < doubtMs) return;
      [toldMs, isTold] = [nowMs, true];
      const is = name === "DATA_DIR" ? "does not work" : "is away";
      log.warn({ [fields[name]]: "unavailable" }, `${name} ${is}: ${why}. ${meanwhile}`);
    },
    well() {
      if (sinceMs === null) return;
      const seconds = Math.round((monotonicMs() - sinceMs) / 1000);
      if (isTold) log.info({ [fields[name]]: "ok", seconds }, `${name} is back after ${seconds} s`);
      [sinceMs, isTold] = [null, false];
    },
  };
}
