import type { SpoolEntry, SpoolKey, SpoolPlace } from "../spool/spool.ts";

/** All places that take answers while Postgres cannot. */
export type Spools = {
  /** True with the first durable copy; false when no place takes it. Goes on to the other places. Never rejects. */
  put(entry: SpoolEntry): Promise<boolean>;
  /** From all places, best effort: what stays behind is found to be stored already when it is drained. */
  remove(key: SpoolKey): Promise<void>;
  /** What waits anywhere, each answer once. `isComplete` false: a place does not answer. */
  list(): Promise<{ entries: SpoolEntry[]; isComplete: boolean }>;
  /** What waits of one generation; `silent`: a place does not answer, and found nothing elsewhere. */
  find(connectionId: string, generation: number): Promise<SpoolEntry[] | "silent">;
};

type Options = { places: readonly SpoolPlace[]; onError: (place: SpoolPlace["name"], error: unknown) => void };

/** @param options.onError told of every place that fails: a full disk is reported, not fatal */
export function createSpools({ places, onError }: Options): Spools {
  const writing = new Map<string, Promise<unknown>>();
  const report = (place: SpoolPlace) => (error: unknown) => {
    onError(place.name, error);
    throw error;
  };
  return {
    async put(entry) {
      const puts = places.map((place) => place.put(entry).catch(report(place)));
      const all = Promise.allSettled(puts);
      writing.set(entry.attemptId, all);
      void all.then(() => writing.delete(entry.attemptId));
      return await Promise.any(puts).then(
        () => true,
        () => false,
      );
    },
    async remove(key) {
      await writing.get(key.attemptId); // a copy that is written after its removal would stay
      await Promise.allSettled(places.map((place) => place.remove(key).catch(report(place))));
    },
    async list() {
      const lists = await Promise.allSettled(places.map((place) => place.list().catch(report(place))));
      const entries = once(lists.flatMap((list) => (list.status === "fulfilled" ? list.value : [])));
      return { entries, isComplete: lists.every(({ status }) => status === "fulfilled") };
    },
    async find(connectionId, generation) {
      const asked = places.map((place) => place.find(connectionId, generation).catch(report(place)));
      const finds = await Promise.allSettled(asked);
      const found = once(finds.flatMap((find) => (find.status === "fulfilled" ? find.value : [])));
      return found.length === 0 && finds.some(({ status }) => status === "rejected") ? "silent" : found;
    },
  };
}

function once(entries: readonly SpoolEntry[]): SpoolEntry[] {
  return [...new Map(entries.map((entry) => [entry.attemptId, entry])).values()];
}
