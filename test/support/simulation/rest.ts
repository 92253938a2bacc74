import type { SpoolEntry } from "../../../src/coordination/spool.ts";
import { checkDeeds } from "./deeds.ts";
import { plainText } from "./plain-vault.ts";
import type { Stage } from "./stage.ts";
import type { World } from "./world.ts";

const longestRestMs = 240_000;
const longestLeaseSeconds = 31;

/** Everything works again, and callers ask until each connection has come to rest, or has had time enough for it. */
export async function rest({ world, people, subjects }: Stage): Promise<void> {
  world.heal();
  // Longer than a lease, its quiet period, and the uninterrupted Postgres before a takeover.
  await world.scheduler.pass(20_000);
  const endMs = world.scheduler.nowMs + longestRestMs;
  const restless = new Set(subjects.map(({ name }) => name));
  while (restless.size > 0 && world.scheduler.nowMs < endMs) {
    for (const name of restless) void people.read(world.scheduler.pick(world.replicas), name, { rejected: true });
    await world.scheduler.pass(12_000);
    for (const name of restless) if (isAtRest(world, name)) restless.delete(name);
  }
  // Who was still draining has ended meanwhile; what it left in its folder is stored by its next start.
  world.startAll();
  await world.scheduler.pass(5000);
  // The sweeper goes on, and what it has just begun comes to its end.
  for (let seconds = 0; isSending(world) && seconds < longestLeaseSeconds; seconds++) await world.scheduler.pass(1000);
  for (const row of world.database.tables.rows.values()) world.watch.atRest(row);
  checkDeeds(world, people);
  checkSpools(world);
}

function isSending({ database: { tables } }: World): boolean {
  return [...tables.rows.values()].some(({ leaseUntil }) => leaseUntil !== null && leaseUntil > tables.now);
}

function isAtRest(world: World, name: string): boolean {
  const row = world.database.tables.byName(name);
  if (row === undefined || row.status === "disabled" || row.status === "needs_reauthorization") return true;
  return row.status === "pending" || (row.attemptId === null && row.consecutiveFailures === 0);
}

/** What a spool could not delete in time may stay there, as long as the row knows it. */
function checkSpools(world: World): void {
  const places = [world.redis.spool, ...world.replicas.map(({ folder }) => folder.files)];
  for (const entry of places.flatMap((place) => Array.from(place.values()))) {
    if (!isPlaced(world, entry)) world.violation(`an answer for ${entry.connectionId} rests in a spool`);
  }
}

function isPlaced({ database: { tables } }: World, { connectionId, attemptId, record }: SpoolEntry): boolean {
  const row = tables.rows.get(connectionId);
  const { authorization } = JSON.parse(plainText(record)) as { authorization: number };
  const isUnwanted = row === undefined || row.authorization > authorization;
  return isUnwanted || tables.candidates.has(attemptId) || tables.storedAttempts.get(row.id)?.has(attemptId) === true;
}
