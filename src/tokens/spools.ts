import type { SpoolEntry, SpoolKey, SpoolPlace, WantedSpool } from "../spool/spool.ts";

/** What was found, and where: two places may hold the same answer, or one of them something that claims to be it. */
export type FoundEntry = SpoolEntry & { place: SpoolPlace["name"] };

/** All places that take answers while Postgres cannot. */
export type Spools = {
  /** True with the first durable copy; false when no place takes it. Goes on to the other places. Never rejects. */
  put(entry: SpoolEntry): Promise<boolean>;
  /** From all places, best effort: what stays behind is found to be stored already when it is drained. */
  remove(key: SpoolKey): Promise<void>;
  /** What waits anywhere. `isComplete` false: a place does not answer. */
  list(): Promise<{ entries: FoundEntry[]; isComplete: boolean }>;
  /** The same of one generation. */
  find(wanted: WantedSpool): Promise<{ entries: FoundEntry[]; isComplete: boolean }>;
};

type Options = { places: readonly SpoolPlace[]; onError: (place: SpoolPlace["name"], error: unknown) => void };

/** @param options.onError told of every place that fails: a full disk is reported, not fatal */
export function createSpools({ places, onError }: Options): Spools {
  const writing = new Map<string, Promise<unknown>>();
  const report = (place: SpoolPlace) => (error: unknown) => {
    onError(place.name, error);
    throw error;
  };
  const gather = async (ask: (place: SpoolPlace) => Promise<SpoolEntry[]>) => {
    const answers = await Promise.allSettled(
      places.map(async (place) => {
        const found = await ask(place).catch(report(place));
        return found.map((entry) => foundAt(place, entry));
      }),
    );
    const entries = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
    return { entries, isComplete: answers.every(({ status }) => status === "fulfilled") };
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
    list: async () => await gather(async (place) => await place.list()),
    find: async (wanted) => await gather(async (place) => await place.find(wanted)),
  };
}

function foundAt({ name }: SpoolPlace, entry: SpoolEntry): FoundEntry {
  return { ...entry, place: name };
}
