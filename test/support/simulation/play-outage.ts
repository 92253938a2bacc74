import { keepReading } from "./callers.ts";
import { openStage } from "./stage.ts";
import type { World } from "./world.ts";

type Given = { seed: number; connections: number; outageMs: number };

/** A failed attempt and how long nobody may try again, in milliseconds. */
type Wait = { connection: string; ms: number; mostMs: number };

export type OutageResult = {
  dead: number;
  /** Of each connection, while the provider was away. */
  attempts: readonly number[];
  waits: readonly Wait[];
  /** Sends before the wait was over. */
  early: number;
  /** In the second with the most of them, after the provider had come back. */
  mostPerSecond: number;
  /** Connections that have a new token after the longest wait. */
  recovered: number;
  violations: readonly string[];
};

const lifeSeconds = 300;
const longestWaitMs = 300_000;
const settleMs = 60_000;

/** The provider answers 503 while the tokens of all connections run out, and callers go on asking. */
export async function playOutage({ seed, connections, outageMs }: Given): Promise<OutageResult> {
  const subjects = Array.from({ length: connections }, (_, index) => ({
    name: `c${index + 1}`,
    kind: "kills_family" as const,
    accessLifeSeconds: lifeSeconds,
  }));
  const stage = await openStage({ seed, replicas: 4, subjects });
  const { world } = stage;
  const { scheduler, provider, database } = world;
  keepReading(stage, { lowMs: 2000, highMs: 15_000 });
  await scheduler.pass((lifeSeconds * 1000) / 2);
  const before = new Map([...database.tables.rows.values()].map(({ id, generation }) => [id, generation]));
  const { waits, counts } = watchAttempts(world);
  provider.faultOf = () => 503;
  await scheduler.pass(outageMs);
  const attempts = [...before.keys()].map((id) => counts.sends.get(id) ?? 0);
  const backMs = scheduler.nowMs;
  provider.faultOf = () => "none";
  await scheduler.pass(longestWaitMs + settleMs);
  const rows = [...database.tables.rows.values()];
  return {
    dead: rows.filter(({ status }) => status !== "connected").length,
    attempts,
    waits,
    early: counts.early,
    mostPerSecond: mostPerSecond(provider.sends.map(({ beganMs }) => beganMs).filter((ms) => ms >= backMs)),
    recovered: rows.filter(({ id, generation }) => generation > (before.get(id) ?? Infinity)).length,
    violations: world.violations,
  };
}

function watchAttempts({ database: { tables }, provider, holdings, scheduler }: World) {
  const waits: Wait[] = [];
  const counts = { early: 0, sends: new Map<string, number>() };
  tables.watchers.push((before, after) => {
    if (before === null || after === null || after.consecutiveFailures <= before.consecutiveFailures) return;
    const ms = (after.backoffUntil?.getTime() ?? 0) - scheduler.nowMs;
    waits.push({ connection: after.name, ms, mostMs: Math.min(1000 * 2 ** before.consecutiveFailures, longestWaitMs) });
  });
  provider.watchers.push(({ token }) => {
    const id = token === null ? undefined : holdings.holders.get(token.value)?.row.id;
    const row = id === undefined ? undefined : tables.rows.get(id);
    if (row === undefined) return;
    counts.sends.set(row.id, (counts.sends.get(row.id) ?? 0) + 1);
    if (row.backoffUntil !== null && row.backoffUntil > tables.now) counts.early += 1;
  });
  return { waits, counts };
}

function mostPerSecond(timesMs: readonly number[]): number {
  const seconds = new Map<number, number>();
  for (const ms of timesMs) seconds.set(Math.floor(ms / 1000), (seconds.get(Math.floor(ms / 1000)) ?? 0) + 1);
  return Math.max(0, ...seconds.values());
}
