import { expect, test } from "vitest";
import type { Actor } from "../../../src/audit/entries.ts";
import { createReadCounts, type Kind, summed } from "../../../src/audit/reads.ts";
import type { ReadCounts } from "../../../src/store/audit.ts";
import { seededRandom } from "../../support/seeded-random.ts";

const minute = 60_000;
const actor = (id: string): Actor => ({ kind: "key", id, name: `name of ${id}` });
const kind = (id: string, result = "ok"): Kind => ({ action: "tokens.read", actor: actor(id), result });
const numbers = (counts: readonly ReadCounts[]) => counts.flatMap((each) => each.counts);
const total = (counts: readonly ReadCounts[]) => numbers(counts).reduce((sum, count) => sum + count, 0);

test("a count is of one minute, caller, connection and result", () => {
  const counts = createReadCounts();
  counts.add(kind("a"), "c", 10 * minute);
  counts.add(kind("a"), "c", 10 * minute + 1);
  counts.add(kind("a"), "d", 10 * minute + 2);
  counts.add(kind("b"), "c", 10 * minute + 3);
  counts.add(kind("a", "forbidden"), "c", 10 * minute + 4);
  counts.add(kind("a"), "c", 11 * minute);
  const taken = counts.take(100);
  const each = taken.flatMap(({ minute: begin, counts: all }) =>
    all.map((count) => begin.getTime() / minute + count / 10),
  );
  expect(each.sort((a, b) => a - b)).toEqual([10.1, 10.1, 10.1, 10.2, 11.1]);
  expect([counts.size(), counts.take(100)]).toEqual([0, []]);
});

test("nothing is lost when the clock stands still, and when it goes back", () => {
  const counts = createReadCounts();
  for (const atMs of [5 * minute, 5 * minute, 4 * minute, 5 * minute + 1, 1 * minute]) counts.add(kind("a"), "c", atMs);
  const sums = summed(counts.take(100));
  const byMinute = sums.map((sum) => [sum.minute.getTime() / minute, sum.counts[0]] as const);
  expect(new Map(byMinute)).toEqual(
    new Map([
      [1, 1],
      [4, 1],
      [5, 3],
    ]),
  );
});

test("while nothing is written, more and more counts need no more memory, and every read counts", () => {
  const counts = createReadCounts(100);
  let added = 0;
  for (let number = 0; number < 50; number++) {
    for (let each = 0; each < 20; each++) {
      counts.add(kind(`caller-${each % 3}`), `c${each}`, number * minute);
      added += 1;
    }
  }
  expect(counts.size()).toBeLessThanOrEqual(200);
  // Then more connections than there is room for.
  for (let each = 0; each < 5000; each++) {
    counts.add(kind("caller-1"), `d${each}`, 50 * minute);
    added += 1;
  }
  expect(counts.size()).toBeLessThanOrEqual(210);
  const taken = counts.take(1000);
  expect(total(taken)).toBe(added);
  expect(total(taken.filter(({ actorId }) => actorId === "caller-1"))).toBe(5000 + 50 * 7);
});

test("what is taken in parts is taken once", () => {
  const counts = createReadCounts();
  for (let each = 0; each < 25; each++) counts.add(kind("a"), `c${each}`, 10 * minute);
  const parts = [counts.take(10), counts.take(10), counts.take(10)];
  expect(parts.map((part) => numbers(part).length)).toEqual([10, 10, 5]);
  expect(new Set(parts.flat().flatMap(({ connections }) => connections)).size).toBe(25);
});

test("a counter that is kept counts as one that is looked up, whatever the clock does and whenever counts are taken", () => {
  const random = seededRandom(1);
  const [kept, lookedUp] = [createReadCounts(40), createReadCounts(40)];
  const reads = Array.from({ length: 30 }, (_, each) => ({ by: each % 3, connection: `c${each}` }));
  const kinds = [0, 1, 2].map((by) => kind(`caller-${by}`));
  const counters = kinds.map((each) => kept.counter(each));
  const taken: (typeof kept)[] = [kept, lookedUp];
  const all = taken.map(() => [] as ReturnType<typeof kept.take>);
  let nowMs = 10 * minute;
  for (let step = 0; step < 3000; step++) {
    const { by, connection } = reads[Math.floor(random() * reads.length)] as (typeof reads)[number];
    counters[by]?.(connection, nowMs);
    lookedUp.add(kinds[by] as Kind, connection, nowMs);
    if (random() < 0.05) nowMs += Math.floor((random() - 0.3) * minute);
    if (random() >= 0.02) continue;
    const limit = Math.ceil(random() * 40);
    for (const [index, counts] of taken.entries()) all[index]?.push(...counts.take(limit));
    expect(all[0]).toEqual(all[1]);
  }
  for (const [index, counts] of taken.entries()) all[index]?.push(...counts.take(Infinity));
  expect([all[0], total(all[0] ?? [])]).toEqual([all[1], 3000]);
});
