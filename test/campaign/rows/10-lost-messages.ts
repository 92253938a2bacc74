import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startFaultProxy } from "../../support/faults/tcp-proxy.ts";
import { useRedis } from "../../support/services/index.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, offences, percentile } from "../tools.ts";

const limitMs = 600;

export const row: Row = {
  number: 10,
  title: "all pub/sub messages dropped",
  promised: `waiters at most ${limitMs} ms behind the holder, p99`,
  alone: true,
  onlyFull: "its figure is a time",
  async run({ seed, scale }) {
    const random = seededRandom(seed);
    const redisUrl = await useRedis();
    await using toRedis = await startFaultProxy(redisUrl);
    await using stage = await ConnectedStage.start({ replicas: 2, redisUrl: toRedis.url });
    toRedis.faults.losesPushes = true;
    const connections = await connectMany(stage, scale === "full" ? 500 : 30);
    const usualMs: number[] = [];
    const behindMs = await inBatches(connections.length, 10, async (index) => {
      stage.provider.switches.delayMs = 100 + random() * 1400;
      const behind = await readAtBoth(stage, connections[index]?.name ?? "");
      usualMs.push(await readFresh(stage, connections[index]?.name ?? ""));
      return behind;
    });
    const { reuses, overlaps } = offences(stage.provider.ledger);
    const p99Ms = Math.round(percentile(behindMs, 0.99));
    const usualP99Ms = Math.round(percentile(usualMs, 0.99));
    const refreshes = stage.provider.ledger.requestsTo("token").length;
    return {
      ok:
        p99Ms <= limitMs + usualP99Ms &&
        toRedis.counts.lostPushes > 0 &&
        reuses + overlaps === 0 &&
        refreshes === connections.length,
      figure: `p99 ${p99Ms} ms behind (${usualP99Ms} ms for a read that waits for nothing), ${behindMs.length} waits, ${toRedis.counts.lostPushes} messages dropped, ${refreshes} refreshes`,
    };
  },
};

/** How long a read at the waiting replica takes on this machine, beside everything else that happens. */
async function readFresh({ brokers }: ConnectedStage, name: string): Promise<number> {
  const startedMs = performance.now();
  await brokers[1]?.api.token(name, { min_ttl: 0 });
  return performance.now() - startedMs;
}

/** @returns by how many milliseconds the replica that waits answers later than the one that refreshes */
async function readAtBoth(stage: ConnectedStage, name: string): Promise<number> {
  const read = async (replica: number) => {
    const reply = await stage.brokers[replica]?.api.token(name);
    if (reply?.status !== 200) throw new Error(`${name} was answered with ${reply?.status} ${reply?.body.code}`);
    return performance.now();
  };
  const holder = read(0);
  await sleep(30);
  const [holderMs, waiterMs] = await Promise.all([holder, read(1)]);
  return Math.abs(waiterMs - holderMs);
}
