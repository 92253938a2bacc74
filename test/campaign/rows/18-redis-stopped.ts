import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startPrivateRedis } from "../../support/services/index.ts";
import { type Load, type Sample, startLoad } from "../load.ts";
import type { Row } from "../row.ts";
import { connectMany, offences, percentile } from "../tools.ts";

const sizes = {
  full: { seconds: 30, fresh: 50, turning: 50, lifeSeconds: 10 },
  short: { seconds: 3, fresh: 20, turning: 10, lifeSeconds: 3 },
} as const;
const freshPerSecond = 200;
const turningPerSecond = 50;
/** Below this p99 the machine's own noise is measured, not the broker. */
const floorMs = 10;

export const row: Row = {
  number: 18,
  title: "Redis stopped 30 s under load",
  promised: `0 failed reads, 0 duplicate refreshes, fresh-read p99 within 2× of before (or of ${floorMs} ms)`,
  alone: true,
  async run({ scale, log }) {
    const { seconds, ...size } = sizes[scale];
    await using redis = await startPrivateRedis();
    await using stage = await ConnectedStage.start({ replicas: 2, redisUrl: redis.url });
    const fresh = (await connectMany(stage, size.fresh, "fresh")).map(({ name }) => name);
    const turning = (await connectMany(stage, size.turning, "turning")).map(({ name }) => name);
    await readOnce(stage, fresh);
    stage.provider.switches.accessLifeSeconds = size.lifeSeconds;
    await readOnce(stage, turning);

    const reads = startReads(stage, fresh, freshPerSecond);
    const turns = startReads(stage, turning, turningPerSecond);
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
    await Promise.all([reads.stop(), turns.stop()]);

    const [began = 0, stopped = 0, back = 0] = limits;
    const beforeMs = p99(reads.samples, began, stopped);
    const duringMs = p99(reads.samples, stopped, back);
    const failed = [...reads.samples, ...turns.samples].filter(({ status }) => status !== 200).length;
    const { reuses, overlaps, sentTwice } = offences(stage.provider.ledger);
    const isFast = duringMs <= 2 * Math.max(beforeMs, floorMs);
    return {
      ok:
        failed === 0 &&
        reuses + overlaps + sentTwice === 0 &&
        isFast &&
        stage.provider.ledger.refreshes() > fresh.length,
      figure: `${failed} of ${reads.samples.length + turns.samples.length} reads failed, ${reuses + overlaps + sentTwice} duplicates of ${stage.provider.ledger.refreshes()} refreshes, p99 ${beforeMs.toFixed(1)} ms before and ${duringMs.toFixed(1)} ms during`,
    };
  },
};

async function readOnce(stage: ConnectedStage, names: readonly string[]): Promise<void> {
  for (const { api } of stage.brokers) await Promise.all(names.map((name) => api.token(name, { min_ttl: 0 })));
}

function startReads(stage: ConnectedStage, names: readonly string[], perSecond: number): Load {
  return startLoad(perSecond, async (index) => {
    const broker = stage.brokers[index % stage.brokers.length];
    const name = names[Math.floor(index / stage.brokers.length) % names.length] ?? "";
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
