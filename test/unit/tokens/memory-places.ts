import { deletedGeneration, type Mark, type Marks } from "../../../src/coordination/marks.ts";
import { nameOf, type SpoolEntry, type SpoolPlace } from "../../../src/coordination/spool.ts";

/** A spool that a test can look into, and take away. */
export type MemorySpool = SpoolPlace & { entries: Map<string, SpoolEntry>; isAway: boolean };

export function memorySpool(name: SpoolPlace["name"] = "redis"): MemorySpool {
  const there = <Result>(work: () => Result): Promise<Result> =>
    place.isAway ? Promise.reject(new Error(`${name} is away`)) : Promise.resolve().then(work);
  const place: MemorySpool = {
    name,
    entries: new Map(),
    isAway: false,
    put: (entry) => there(() => void place.entries.set(nameOf(entry), entry)),
    remove: (key) => there(() => void place.entries.delete(nameOf(key))),
    list: () => there(() => [...place.entries.values()]),
    find: ({ connectionId, generation }) =>
      there(() =>
        [...place.entries.values()].filter((it) => it.connectionId === connectionId && it.generation === generation),
      ),
  };
  return place;
}

/** Marks that a test can look into, and take away. */
export type MemoryMarks = Marks & { known: Map<string, Mark>; isAway: boolean };

export function memoryMarks(): MemoryMarks {
  const known = new Map<string, Mark>();
  const raise = (id: string, { generation, version }: Mark): void => {
    if ((known.get(id)?.generation ?? -1) < generation) known.set(id, { generation, version });
  };
  const marks: MemoryMarks = {
    known,
    isAway: false,
    raise: (id, mark) => marks.isAway || raise(id, mark),
    async compare(rows) {
      if (marks.isAway) return null;
      for (const [id, mark] of rows) raise(id, mark);
      return new Map([...known].filter(([id, mark]) => mark.generation > (rows.get(id)?.generation ?? Infinity)));
    },
    read: async (id) => (marks.isAway ? null : (known.get(id) ?? null)),
    close: (id, version) => void known.set(id, { generation: deletedGeneration, version }),
  };
  return marks;
}
