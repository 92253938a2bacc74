import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { BrokerProcess } from "../support/broker-process.ts";
import type { ConnectedStage } from "../support/connected-stage.ts";
import { until } from "../support/patience.ts";
import { withRedis } from "../support/services/redis.ts";
import { queryRows } from "./query-rows.ts";
import { type Connected, inBatches } from "./tools.ts";

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

/** Makes lease and quiet period of every permit end now. The full sizes wait for that. */
export async function pretendPermitsRanOut(databaseUrl: string): Promise<void> {
  const ago = "- interval '45 seconds'";
  const text = `UPDATE connections SET lease_until = lease_until ${ago}, attempt_started_at = attempt_started_at ${ago}
    WHERE attempt_id IS NOT NULL`;
  await queryRows(databaseUrl, text);
}

/** The row of every connection of a stage, by name. */
export async function storedRows({ provider }: ConnectedStage, databaseUrl: string): Promise<Map<string, Stored>> {
  const rows = await queryRows<Stored>(
    databaseUrl,
    `SELECT id::text, name, generation, version, status, attempt_id IS NOT NULL AS "hasPermit", last_error_code AS "errorCode"
      FROM connections WHERE provider = '${provider.id}'`,
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

/**
 * Reads each until it has a token, or its broker has gone, which may be killed meanwhile. A reader that is told to come again does so: on a
 * slow machine a permit may end before anything is sent.
 */
export async function readRegardless({ api }: BrokerProcess, names: readonly string[]): Promise<void> {
  const isOver = async (name: string) => {
    const status = await api.token(name, { wait: 30 }).then(
      (reply) => reply.status,
      () => null,
    );
    return status === 200 || status === null;
  };
  await Promise.all(names.map((name) => until(`a token of ${name}`, () => isOver(name), { everyMs: 200 })));
}

/** Waits for a broker that kills itself at a failpoint. */
export async function untilKilled(broker: BrokerProcess): Promise<void> {
  await until("the broker to kill itself", () => !broker.isRunning);
  await broker.ended();
}

/** Reads each until it has a token or is told that only a person can help. */
export async function readUntilSettled({ api }: BrokerProcess, names: readonly string[]): Promise<void> {
  const isSettled = async (name: string) => {
    const { status, body } = await api.token(name);
    return status === 200 || body.code === "needs_reauthorization";
  };
  await Promise.all(
    names.map((name) => until(`${name} to be served or to need a person`, () => isSettled(name), { everyMs: 200 })),
  );
}

/** The connections whose stored refresh token does not work. One more refresh of each shows it. */
export async function lostOnes({ api }: BrokerProcess, names: readonly string[]): Promise<string[]> {
  const placement = async (name: string) => {
    const { status, body } = await api.api(`/connections/${name}/refresh`, { method: "POST" });
    if (status === 200) return "kept";
    return body["code"] === "needs_reauthorization" ? "lost" : false;
  };
  const placements = await inBatches(names.length, 20, async (index) => {
    const name = names[index] ?? "";
    return await until(`a refresh of ${name} to have an answer`, () => placement(name), { everyMs: 500 });
  });
  return names.filter((_name, index) => placements[index] === "lost");
}

/** The connections whose token the provider has rotated, and whose rows and Redis do not have the answer: W1 and W2. */
export async function withoutAnswer(
  stage: ConnectedStage,
  connections: readonly Connected[],
  stores: { databaseUrl: string; redisUrl: string },
): Promise<string[]> {
  // In this order, since a peer may move an answer from the spool to the row, and never back.
  const spooled = await withRedis(stores.redisUrl, (redis) => redis.keys("spool:*"));
  const rows = await storedRows(stage, stores.databaseUrl);
  const isMissing = ({ name, family }: Connected) => {
    const { id = "", generation = 0 } = rows.get(name) ?? {};
    return stage.provider.ledger.refreshes(family) > generation - 1 && !spooled.includes(`spool:${id}:${generation}`);
  };
  return connections.filter(isMissing).map(({ name }) => name);
}

/** The sum of a metric over brokers: of the samples of one provider, and of those that carry `label` where given. */
export async function sumOfMetric(
  { provider, brokers }: Pick<ConnectedStage, "provider" | "brokers">,
  metric: string,
  label = "",
): Promise<number> {
  const texts = await Promise.all(brokers.map(async ({ api }) => (await api.api<string>("/metrics")).body));
  const samples = texts
    .flatMap((text) => text.split("\n"))
    .filter((line) => [`${metric}{`, `provider="${provider.id}"`, label].every((part) => line.includes(part)));
  return samples.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** What the metrics of these brokers say of grants that were lost: both counters count the same. */
export async function countedLosses(
  { provider }: ConnectedStage,
  brokers: readonly BrokerProcess[],
): Promise<[number, number]> {
  const stage = { provider, brokers: [...brokers] };
  return [
    await sumOfMetric(stage, "freshet_lost_rotation_total"),
    await sumOfMetric(stage, "freshet_refresh_uncertain_total", 'resolution="lost"'),
  ];
}

/** True where both hold the same names. */
export function isSame(some: readonly string[], others: readonly string[]): boolean {
  return some.toSorted().join() === others.toSorted().join();
}
