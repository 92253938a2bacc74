import { nameOf, type SpoolEntry, type SpoolPlace } from "../../../src/coordination/spool.ts";
import { call, type Moments } from "./remote.ts";
import type { Actor, Scheduler } from "./scheduler.ts";

/** The DATA_DIR of one replica, which outlives its crashes. */
export class SimFolder {
  readonly files = new Map<string, SpoolEntry>();
  isFull = false;

  placeOf(actor: Actor, { scheduler, moments }: { scheduler: Scheduler; moments: Moments }): SpoolPlace {
    const remote = {
      scheduler,
      moments,
      latencyMs: () => scheduler.between(0.2, 5),
      refuses: (_actor: Actor, { writes }: { writes: boolean }) =>
        this.isFull && writes ? { afterMs: 1, error: new Error("ENOSPC") } : null,
      losesReply: () => false,
    };
    const act = async <Result>(name: string, effect: () => Result) =>
      await call(remote, actor, { name, writes: name === "write file", effect });
    const all = (fits: (entry: SpoolEntry) => boolean) => [...this.files.values()].filter(fits);
    return {
      name: "data_dir",
      put: async (entry) => void (await act("write file", () => this.files.set(nameOf(entry), entry))),
      remove: async (key) => void (await act("remove file", () => this.files.delete(nameOf(key)))),
      list: async () => await act("list files", () => all(() => true)),
      find: async ({ connectionId: id, generation }) =>
        await act("find files", () => all((one) => one.connectionId === id && one.generation === generation)),
    };
  }
}
