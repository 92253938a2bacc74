import type { Clock } from "../clock.ts";
import type { ApiKeys } from "../store/api-keys.ts";
import { callerTimes } from "../time.ts";
import type { KeyService } from "./keys.ts";

type Options = {
  keys: Pick<KeyService, "takeUses">;
  table: Pick<ApiKeys, "noteUses">;
  clock: Pick<Clock, "sleep" | "wallMs">;
  /** By this process's estimate of Postgres's clock. */
  nowMs: () => number;
};

/** Writes once a minute when keys were used last, in one statement for all of them. No request waits for that. */
export function createKeyUses({ keys, table, clock, nowMs }: Options) {
  const stopped = new AbortController();
  /** By the wall clock of this machine. */
  let unwritten: ReadonlyMap<string, number> = new Map();
  let loop: Promise<void> | null = null;

  const write = async (): Promise<void> => {
    unwritten = new Map([...unwritten, ...keys.takeUses()]);
    if (unwritten.size === 0) return;
    const aheadMs = clock.wallMs() - nowMs();
    await table.noteUses(new Map([...unwritten].map(([id, usedMs]) => [id, new Date(usedMs - aheadMs)]))).then(
      () => (unwritten = new Map()),
      () => undefined, // an outage is logged by the code that needs Postgres; the next minute tries again
    );
  };

  const run = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      await clock.sleep(callerTimes.keyUseMs, stopped.signal);
      await write();
    }
  };

  return {
    start: () => void (loop ??= run()),
    /** Writes what there is, and ends. Never rejects. */
    async stop(): Promise<void> {
      stopped.abort();
      await loop;
      await write();
    },
  };
}
