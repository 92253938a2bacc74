import { setTimeout as sleep } from "node:timers/promises";
import type { ConnectedStage } from "../../test/support/connected-stage.ts";
import { query } from "../../test/support/query.ts";
import { filledStage, sweptCount } from "../filled-stage.ts";
import { type BenchCase, cpuSeconds, format, inTurn, type Measured, pinServer, summarise } from "../harness.ts";

const [many, few] = [1_000_000, 10_000];

export const sweep: BenchCase = {
  name: "sweep",
  number: 7,
  title: `one sweep of ${sweptCount} due among ${many} connections`,
  yardstick: `one sweep of ${sweptCount} due among ${few}`,
  aim: { atMost: 1.2 },
  unit: "ms from the first refresh to the last",
  async run({ pairs, log }) {
    const ours = await filledStage(many);
    const yardstick = await filledStage(few);
    const byCpu: Measured = { ours: [], yardstick: [] };
    const side = async (name: "ours" | "yardstick", stage: ConnectedStage) => {
      await pinServer(stage.first.pid);
      const cpu = cpuSeconds(stage.first.pid);
      const ms = await sweepOnce(stage);
      byCpu[name].push((cpuSeconds(stage.first.pid) - cpu) * 1000);
      return ms;
    };
    const measured = await inTurn(
      { pairs, log },
      { ours: async () => await side("ours", ours), yardstick: async () => await side("yardstick", yardstick) },
    );
    const { ratio, ours: own, yardstick: other } = summarise(sweep, byCpu);
    const note = `the broker's CPU: ratio ${ratio.toFixed(2)}; ${format(own)} / ${format(other)} ms`;
    return { ...measured, notes: [note] };
  },
};

/** Makes them due and waits until the provider has refreshed each. What counts begins with the first refresh: when the sweeper comes is a matter of chance. */
async function sweepOnce({ databaseUrl, provider: { ledger } }: ConnectedStage): Promise<number> {
  const before = ledger.refreshes();
  await query(databaseUrl, "UPDATE connections SET next_refresh_at = now() WHERE name LIKE 'swept-%'");
  while (ledger.refreshes() === before) await sleep(1);
  const beganMs = performance.now();
  while (ledger.refreshes() < before + sweptCount) await sleep(5);
  return performance.now() - beganMs;
}
