import type { BrokerApi } from "../../support/broker-api.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, offences } from "../tools.ts";

/** Short runs share their machine with the rest of the suite. */
const sizes = {
  full: { connections: 100, rounds: 100, limitMs: 50 },
  short: { connections: 20, rounds: 10, limitMs: 250 },
} as const;
/** Busy, and not more than one replica gets done: what waits for the processor measures the machine. */
const width = 8;

export const row: Row = {
  number: 17,
  timed: true,
  title: "answer → first durable copy, 10,000 refreshes",
  promised: "p99 under 50 ms",
  alone: "full",
  async run({ scale, log }) {
    const { connections, rounds, limitMs } = sizes[scale];
    await using stage = await ConnectedStage.start({ env: { LOG_LEVEL: "warn" } });
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    const { ledger } = stage.provider;
    const refused: number[] = [];
    const startedMs = performance.now();
    for (let round = 1; round <= rounds; round++) {
      await inBatches(connections, width, async (index) => {
        const { status } = await stage.first.api.api(`/connections/${names[index]}/refresh`, { method: "POST" });
        if (status !== 200) refused.push(status);
      });
      if (round % 25 === 0) log(`${round * connections} refreshed`);
    }
    const perSecond = Math.round((connections * rounds) / ((performance.now() - startedMs) / 1000));
    const exposure = await readExposure(stage.first.api);
    const p99Ms = quantileMs(exposure, 0.99);
    const { reuses, overlaps, sentTwice } = offences(ledger);
    return {
      ok:
        p99Ms <= limitMs &&
        exposure.count === connections * rounds &&
        ledger.refreshes() === exposure.count &&
        refused.length + reuses + overlaps + sentTwice === 0,
      figure: `p99 at most ${p99Ms} ms, mean ${((exposure.sumSeconds / exposure.count) * 1000).toFixed(1)} ms, of ${exposure.count} refreshes at ${perSecond} a second`,
      notes: [exposure.buckets.map(({ le, count }) => `${le * 1000} ms: ${count}`).join(", ")],
    };
  },
};

type Exposure = { buckets: { le: number; count: number }[]; count: number; sumSeconds: number };

/** What the broker itself has measured, from the answer to the first durable copy. */
async function readExposure(api: BrokerApi): Promise<Exposure> {
  const { body } = await api.api<string>("/metrics");
  const metric = "freshet_refresh_exposure_seconds";
  const lines = [...body.matchAll(new RegExp(`^${metric}_(bucket|sum|count)\\{(.*)\\} (\\S+)$`, "gm"))];
  const valueOf = (kind: string) => Number(lines.find(([, found]) => found === kind)?.[3] ?? NaN);
  const buckets = lines
    .filter(([, kind]) => kind === "bucket")
    .map(([, , labels = "", value]) => ({
      le: Number(/le="([\d.]+)"/.exec(labels)?.[1] ?? Infinity),
      count: Number(value),
    }));
  return { buckets, count: valueOf("count"), sumSeconds: valueOf("sum") };
}

/** The upper end of the bucket in which the quantile lies: it is no longer than that. */
function quantileMs({ buckets, count }: Exposure, share: number): number {
  return (buckets.find((bucket) => bucket.count >= share * count)?.le ?? Infinity) * 1000;
}
