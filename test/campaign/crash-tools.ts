import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../support/broker-process.ts";
import type { ConnectedStage } from "../support/connected-stage.ts";
import { withRedis } from "../support/services/redis.ts";
import { queryRows } from "./query-rows.ts";
import { type Connected, inBatches } from "./tools.ts";

/** Longer than a takeover needs: lease, quiet period, and a slow machine. */
const takeoverLimitMs = 90_000;

/** A connection's row, as far as the outcome of a crash shows in it. */
export type Stored = {
  id: string;
  name: string;
  generation: number;
  version: number;
  status: string;
  hasPermit: boolean;
  errorCode: string | null;
};

/** For a stage's `each`: the first replica's failpoints are set later. */
export function firstHasFailpoints(replica: number): { failpoints?: Record<string, never> } {
  return replica === 0 ? { failpoints: {} } : {};
}

/** Every connection's row, by name. */
export async function storedRows(databaseUrl: string): Promise<Map<string, Stored>> {
  const rows = await queryRows<Stored>(
    databaseUrl,
    `SELECT id::text, name, generation, version, status, attempt_id IS NOT NULL AS "hasPermit", last_error_code AS "errorCode"
      FROM connections`,
  );
  return new Map(rows.map((row) => [row.name, row]));
}

/** What a broker has left in its folder or in Redis: `id.generation` of each answer. */
export async function spooledAnswers({ dataDir }: BrokerProcess, redisUrl: string): Promise<Set<string>> {
  const files = await readdir(join(dataDir, "spool")).catch(() => []); // it comes with the first file
  const keys = await withRedis(redisUrl, (redis) => redis.keys("spool:*"));
  const inFolder = files.filter((name) => !name.endsWith(".part")).map((name) => name.split(".").slice(0, 2).join("."));
  return new Set([...inFolder, ...keys.map((key) => key.split(":").slice(1).join("."))]);
}

/** Starts a read of each, whose end nobody needs: its broker may be killed meanwhile. Resolves when all have ended. */
export async function readRegardless(broker: BrokerProcess, names: readonly string[]): Promise<void> {
  await Promise.allSettled(names.map((name) => broker.api.token(name, { wait: 30 })));
}

/** Waits for a broker that kills itself at a failpoint. @throws when it still runs after `limitMs` */
export async function untilKilled(broker: BrokerProcess, limitMs = 60_000): Promise<void> {
  const isDead = await Promise.race([broker.ended().then(() => true), sleep(limitMs, false)]);
  if (!isDead) throw new Error(`the broker came to no end within ${limitMs / 1000} s: ${broker.stderr.slice(-500)}`);
}

/** Asks again until it holds. @throws what was waited for, after `limitMs` */
export async function until(what: string, limitMs: number, holds: () => Promise<boolean> | boolean): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`waited ${limitMs / 1000} s in vain: ${what}`);
    await sleep(100);
  }
}

/** Reads each until it has a token or is told that only a person can help. @throws when one has neither after `limitMs` */
export async function readUntilSettled(
  broker: BrokerProcess,
  names: readonly string[],
  limitMs = takeoverLimitMs,
): Promise<void> {
  const endMs = performance.now() + limitMs;
  const settle = async (name: string) => {
    for (;;) {
      const { status, body } = await broker.api.token(name);
      if (status === 200 || body.code === "needs_reauthorization") return;
      if (performance.now() > endMs) throw new Error(`${name} is still answered with ${status} ${body.code}`);
      await sleep(200);
    }
  };
  await Promise.all(names.map(settle));
}

/** Those whose stored refresh token does not work: one more refresh of each tells. @throws when one gives no answer */
export async function lostOnes(broker: BrokerProcess, names: readonly string[]): Promise<string[]> {
  const works = async (name: string): Promise<boolean> => {
    const endMs = performance.now() + takeoverLimitMs;
    for (;;) {
      const { status, body } = await broker.api.api(`/connections/${name}/refresh`, { method: "POST" });
      if (status === 200 || body["code"] === "needs_reauthorization") return status === 200;
      if (performance.now() > endMs) throw new Error(`${name} is not refreshed: ${status} ${String(body["code"])}`);
      await sleep(500);
    }
  };
  const areKept = await inBatches(names.length, 20, (index) => works(names[index] ?? ""));
  return names.filter((_name, index) => !areKept[index]);
}

/** Those whose token the provider has rotated, with the answer neither in their rows nor in Redis: W1 and W2. */
export async function withoutAnswer(
  { provider }: ConnectedStage,
  connections: readonly Connected[],
  stores: { databaseUrl: string; redisUrl: string },
): Promise<string[]> {
  const rows = await storedRows(stores.databaseUrl);
  const spooled = await withRedis(stores.redisUrl, (redis) => redis.keys("spool:*"));
  const isMissing = ({ name, family }: Connected) => {
    const { id = "", generation = 0 } = rows.get(name) ?? {};
    return provider.ledger.refreshes(family) > generation - 1 && !spooled.includes(`spool:${id}:${generation}`);
  };
  return connections.filter(isMissing).map(({ name }) => name);
}

/** The sum of a metric over brokers; of the samples that carry `label`, as `name="value"`, where given. */
async function sumOfMetric(brokers: readonly BrokerProcess[], metric: string, label = ""): Promise<number> {
  const texts = await Promise.all(brokers.map(async ({ api }) => (await api.api<string>("/metrics")).body));
  const lines = texts.flatMap((text) => text.split("\n"));
  const samples = lines.filter((line) => line.startsWith(`${metric}{`) && line.includes(label));
  return samples.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** What the metrics of these brokers say of grants that were lost: both counters count the same. */
export async function countedLosses(brokers: readonly BrokerProcess[]): Promise<[number, number]> {
  return [
    await sumOfMetric(brokers, "freshet_lost_rotation_total"),
    await sumOfMetric(brokers, "freshet_refresh_uncertain_total", 'resolution="lost"'),
  ];
}

/** True where both hold the same names. */
export function isSame(some: readonly string[], others: readonly string[]): boolean {
  return some.toSorted().join() === others.toSorted().join();
}
