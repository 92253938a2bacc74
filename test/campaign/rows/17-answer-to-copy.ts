import { Client } from "pg";
import type { BrokerApi } from "../../support/broker-api.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { useDatabase } from "../../support/services/index.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, offences, percentile } from "../tools.ts";

const sizes = { full: { connections: 100, rounds: 100 }, short: { connections: 20, rounds: 10 } } as const;
const limitMs = 50;
/** If a bare request and a bare INSERT take as long, the row measures the machine: it gives the figure and no verdict. */
const mostBareMs = limitMs / 2;
/** Busy, but not more than one replica can do. If requests waited for the processor, the row would measure the machine. */
const width = 8;

export const row: Row = {
  number: 17,
  title: "answer → first durable copy, 10,000 refreshes",
  promised: "p99 under 50 ms",
  alone: true,
  onlyFull: "its figure is a time",
  async run({ scale, log }) {
    const { connections, rounds } = sizes[scale];
    const databaseUrl = await useDatabase();
    await using stage = await ConnectedStage.start({ databaseUrl, env: { LOG_LEVEL: "warn" } });
    await using yardstick = await startYardstick(databaseUrl, stage.first.api);
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    const { ledger } = stage.provider;
    const refused: number[] = [];
    const startedMs = performance.now();
    for (let round = 1; round <= rounds; round++) {
      await inBatches(connections, width, async (index) => {
        const { status } = await stage.first.api.api(`/connections/${names[index]}/refresh`, { method: "POST" });
        if (status !== 200) refused.push(status);
        if (index % width === 0) await yardstick.measure();
      });
      if (round % 25 === 0) log(`${round * connections} refreshed`);
    }
    const perSecond = Math.round((connections * rounds) / ((performance.now() - startedMs) / 1000));
    const exposure = await readExposure(stage.first.api);
    const p99Ms = quantileMs(exposure, 0.99);
    const bareMs = percentile(yardstick.tookMs, 0.99);
    const { reuses, overlaps, sentTwice } = offences(ledger);
    return {
      ok:
        (p99Ms <= limitMs || bareMs > mostBareMs) &&
        exposure.count === connections * rounds &&
        ledger.refreshes() === exposure.count &&
        refused.length + reuses + overlaps + sentTwice === 0,
      figure: `p99 at most ${p99Ms} ms (of a bare request and a bare INSERT beside it ${bareMs.toFixed(1)} ms), mean ${((exposure.sumSeconds / exposure.count) * 1000).toFixed(1)} ms, of ${exposure.count} refreshes at ${perSecond} a second`,
      notes: [exposure.buckets.map(({ le, count }) => `${le * 1000} ms: ${count}`).join(", ")],
    };
  },
};

/** A route of the broker that does nothing, and a row into a table of its own: how long this machine takes for very little work. */
async function startYardstick(databaseUrl: string, api: BrokerApi) {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query("CREATE TABLE yardstick (at timestamptz NOT NULL)");
  const tookMs: number[] = [];
  return {
    tookMs,
    async measure() {
      const startedMs = performance.now();
      await api.api("/livez");
      await client.query("INSERT INTO yardstick VALUES (now())");
      tookMs.push(performance.now() - startedMs);
    },
    [Symbol.asyncDispose]: () => client.end(),
  };
}

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

/** The upper end of the bucket in which the quantile lies. The quantile is at most that. */
function quantileMs({ buckets, count }: Exposure, share: number): number {
  return (buckets.find((bucket) => bucket.count >= share * count)?.le ?? Infinity) * 1000;
}
