import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startFaultProxy } from "../../support/faults/tcp-proxy.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import { useDatabase, useRedis } from "../../support/services/index.ts";
import { queryRows } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, offences } from "../tools.ts";

const sizes = { full: { connections: 60, rounds: 10 }, short: { connections: 15, rounds: 1 } } as const;
const limitMs = 4000;
const readEveryMs = 50;
/** Shorter than a broker waits for Postgres before it serves what it knows (500 ms). */
const promptMs = 300;

export const row: Row = {
  number: 32,
  title: "a peer's cache after a refresh that kills the old token, messages dropped",
  promised: "old token handed out for at most 4 s",
  alone: true,
  onlyFull: "its figure is a time",
  async run({ seed, scale, log }) {
    const { connections, rounds } = sizes[scale];
    const random = seededRandom(seed);
    const [databaseUrl, redisUrl] = [await useDatabase(), await useRedis()];
    await using toRedis = await startFaultProxy(redisUrl);
    const provider = { switches: { oldAccessTokenDies: true } };
    await using stage = await ConnectedStage.start({ replicas: 2, databaseUrl, redisUrl: toRedis.url, provider });
    toRedis.faults.losesPushes = true;
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    await Promise.all(stage.brokers.flatMap(({ api }) => names.map((name) => api.token(name, { wait: 30 }))));
    const probe = startProbe(databaseUrl);
    const lagsMs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const one = async (name: string) => await lagOf(stage, { name, databaseUrl, afterMs: random() * limitMs });
      lagsMs.push(...(await Promise.all(names.map(one))));
      log(`longest so far ${Math.round(Math.max(...lagsMs))} ms`);
    }
    const slowestMs = await probe.stop();
    const longestMs = Math.round(Math.max(...lagsMs));
    const served = lagsMs.filter((lagMs) => lagMs > 0).length;
    const { reuses, overlaps, sentTwice } = offences(stage.provider.ledger);
    return {
      // A broker that waits longer for Postgres serves what it knows.
      ok:
        (longestMs <= limitMs || slowestMs > promptMs) &&
        served > 0 &&
        reuses + overlaps + sentTwice === 0 &&
        toRedis.counts.lostPushes > 0,
      figure: `longest ${longestMs} ms, in ${lagsMs.length} refreshes of which ${served} were followed by the old token; ${toRedis.counts.lostPushes} messages dropped; Postgres answered within ${Math.round(slowestMs)} ms`,
    };
  },
};

/** Asks Postgres over and over. `stop` gives how long the slowest answer took. */
function startProbe(databaseUrl: string): { stop(): Promise<number> } {
  const state = { isOn: true, slowestMs: 0 };
  const run = async () => {
    while (state.isOn) {
      const startedMs = performance.now();
      await queryRows(databaseUrl, "SELECT 1 AS one");
      state.slowestMs = Math.max(state.slowestMs, performance.now() - startedMs);
      await sleep(100);
    }
  };
  const ended = run();
  return {
    async stop() {
      state.isOn = false;
      await ended;
      return state.slowestMs;
    },
  };
}

type Case = { name: string; databaseUrl: string; afterMs: number };

/**
 * The first replica refreshes while the second one is read.
 * @returns how long after the refresh was stored the second one last gave the old token to a reader; 0: never
 */
async function lagOf({ brokers }: ConnectedStage, { name, databaseUrl, afterMs }: Case): Promise<number> {
  const [holder, peer] = brokers as [BrokerProcess, BrokerProcess];
  await sleep(afterMs);
  const { version: old } = (await peer.api.token(name)).body;
  const order = { isRefused: false };
  const refresh = async () => {
    const { status } = await holder.api.api(`/connections/${name}/refresh`, { method: "POST" });
    order.isRefused = status !== 200;
  };
  const refreshed = refresh();
  let lastAskedAt = 0;
  for (;;) {
    const askedAt = Date.now();
    const { status, body } = await peer.api.token(name);
    if (status !== 200) throw new Error(`${name} was answered with ${status} ${body.code}`);
    // If the machine stands still for seconds, nothing is sent, and there is nothing to measure.
    if (order.isRefused) return 0;
    if (body.version > old) break;
    lastAskedAt = askedAt;
    await sleep(readEveryMs);
  }
  await refreshed;
  return Math.max(0, lastAskedAt - (await storedAt(databaseUrl, name)));
}

/** By Postgres's clock, which is this machine's. */
async function storedAt(databaseUrl: string, name: string): Promise<number> {
  const [event] = await queryRows<{ at: Date }>(
    databaseUrl,
    `SELECT e.at FROM connection_events e JOIN connections c ON c.id = e.connection_id
      WHERE c.name = '${name}' AND e.type = 'refreshed' ORDER BY e.id DESC LIMIT 1`,
  );
  if (event === undefined) throw new Error(`${name} has no refresh in its history`);
  return event.at.getTime();
}
