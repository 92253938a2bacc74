import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startPrivateRedis, useRedis } from "../../support/services/index.ts";
import { type Load, refusalsIn, type Sample, startLoad } from "../load.ts";
import type { Row } from "../row.ts";
import { connectMany, offences, percentile } from "../tools.ts";

/** In the short size all of `turning` are due while Redis is stopped: after 4.2 to 4.8 s. */
const sizes = {
  full: { seconds: 30, fresh: 50, turning: 50, lifeSeconds: 15 },
  short: { seconds: 2.5, fresh: 20, turning: 10, lifeSeconds: 6 },
} as const;
const freshPerSecond = 200;
const turningPerSecond = 50;
/** Below this p99 the row would measure the machine's noise, not the broker. */
const floorMs = 10;
/** If reads at the other replica, or before, take so long, the machine has no room for the load: the row gives figures and no verdict. */
const busyMs = 50;
/** The replica that keeps its Redis. Whatever else slows this machine meanwhile slows this replica, too. */
const control = 2;

export const row: Row = {
  number: 18,
  title: "Redis stopped 30 s under load",
  promised: "0 failed reads, 0 duplicate refreshes, fresh-read p99 within 2× of before",
  alone: true,
  onlyFull: "its figure is a time",
  async run({ scale, log }) {
    const { seconds, ...size } = sizes[scale];
    await using redis = await startPrivateRedis();
    const stays = await useRedis();
    const each = (replica: number) => ({ redisUrl: replica === control ? stays : redis.url });
    await using stage = await ConnectedStage.start({ replicas: 3, redisUrl: redis.url, each });
    const fresh = (await connectMany(stage, size.fresh, "fresh")).map(({ name }) => name);
    const turning = (await connectMany(stage, size.turning, "turning")).map(({ name }) => name);
    await readOnce(stage, fresh);
    stage.provider.switches.accessLifeSeconds = size.lifeSeconds;
    await readOnce(stage, turning);

    const reads = startReads(stage.brokers.slice(0, control), fresh, freshPerSecond);
    const turns = startReads(stage.brokers.slice(0, control), turning, turningPerSecond);
    const beside = startReads(stage.brokers.slice(control), fresh, freshPerSecond / 2);
    const limits = [performance.now()];
    const pass = async () => {
      await sleep(seconds * 1000);
      limits.push(performance.now());
    };
    await pass();
    await redis.stop();
    log("Redis stopped");
    await pass();
    await redis.restart();
    log("Redis is back");
    await pass();
    await Promise.all([reads.stop(), turns.stop(), beside.stop()]);

    const [began = 0, stopped = 0, back = 0] = limits;
    const beforeMs = p99(reads.samples, began, stopped);
    const duringMs = p99(reads.samples, stopped, back);
    const besideMs = p99(beside.samples, stopped, back);
    const failed = [...reads.samples, ...turns.samples].filter(({ status }) => status !== 200).length;
    const { reuses, overlaps, sentTwice } = offences(stage.provider.ledger);
    // What slows the whole machine meanwhile does not count.
    const usualMs = Math.max(beforeMs, besideMs, floorMs);
    const isFast = duringMs <= 2 * usualMs;
    return {
      ok:
        ((failed === 0 && isFast) || usualMs > busyMs) &&
        reuses + overlaps + sentTwice === 0 &&
        stage.provider.ledger.refreshes() > fresh.length,
      figure: `${failed} of ${reads.samples.length + turns.samples.length} reads failed, ${reuses + overlaps + sentTwice} duplicates of ${stage.provider.ledger.refreshes()} refreshes, p99 ${beforeMs.toFixed(1)} ms before, ${duringMs.toFixed(1)} ms during (${besideMs.toFixed(1)} ms at a replica whose Redis stays)`,
      notes: [...refusalsIn(reads), ...refusalsIn(turns)],
    };
  },
};

async function readOnce(stage: ConnectedStage, names: readonly string[]): Promise<void> {
  for (const { api } of stage.brokers) await Promise.all(names.map((name) => api.token(name, { min_ttl: 0 })));
}

function startReads(brokers: readonly BrokerProcess[], names: readonly string[], perSecond: number): Load {
  return startLoad(perSecond, async (index) => {
    const broker = brokers[index % brokers.length];
    const name = names[Math.floor(index / brokers.length) % names.length] ?? "";
    return (await broker?.api.token(name, { min_ttl: 0 }))?.status ?? 0;
  });
}

function p99(samples: readonly Sample[], fromMs: number, toMs: number): number {
  const within = samples.filter(({ startedMs }) => startedMs >= fromMs && startedMs < toMs);
  return percentile(
    within.map(({ tookMs }) => tookMs),
    0.99,
  );
}
