import { nameOf, startDueStage } from "../due-stage.ts";
import { type BenchCase, format, inTurn, median, runOnGeneratorCore } from "../harness.ts";

const readConnections = 100;
const perSecond = 500;

export const readsWhileRefreshing: BenchCase = {
  name: "reads-while-refreshing",
  number: 6,
  title: `${perSecond} reads a second at a fixed rate of ${readConnections} cached connections, while case 5 runs in the same process: p99`,
  yardstick: "the same reads alone",
  aim: { atMost: 2 },
  unit: "ms (p99)",
  async run({ seconds, ...bench }) {
    await using stage = await startDueStage();
    const { broker } = stage;
    const key = await broker.api.createKey({ name: "bench", abilities: ["tokens"], connections: ["due-*"] });
    const urls = Array.from({ length: readConnections }, (_none, index) => `${broker.url}/tokens/${nameOf(index)}`);
    const medians: number[] = [];
    const refreshed: number[] = [];
    const read = async (): Promise<number> => {
      const env = { URLS: urls.join(","), KEY: key, PER_SECOND: String(perSecond), SECONDS: String(seconds) };
      const { p50, p99 } = JSON.parse(await runOnGeneratorCore("steady-reads.ts", env)) as { p50: number; p99: number };
      medians.push(p50);
      return p99;
    };
    const measured = await inTurn(bench, {
      async ours() {
        let p99 = NaN;
        refreshed.push((await stage.whileDue(async () => (p99 = await read()))).perSecond);
        return p99;
      },
      yardstick: read,
    });
    const note = `${format(median(refreshed))} refreshes a second beside the reads; median of all reads ${format(median(medians))} ms`;
    return { ...measured, notes: [note] };
  },
};
