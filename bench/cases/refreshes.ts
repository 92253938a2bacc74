import { setTimeout as sleep } from "node:timers/promises";
import { useDatabase } from "../../test/support/services/index.ts";
import { dueConnections, numberAt, startDueStage } from "../due-stage.ts";
import { type BenchCase, cpuSeconds, format, inTurn, type Measured, startYardstick, summarise } from "../harness.ts";

/** How many requests the sweeper has with one token host at a time. */
const width = 8;

export const refreshes: BenchCase = {
  name: "refreshes",
  number: 5,
  title: `refreshes ahead, ${dueConnections} due connections of one token host that answers at once, Postgres and Redis, one process`,
  yardstick: `bare loop, ${width} at a time: UPDATE, undici POST on a fresh connection, UPDATE`,
  aim: { atLeast: 0.6 },
  unit: "refreshes/s",
  async run({ seconds, ...bench }) {
    await using stage = await startDueStage();
    await using bare = await startYardstick("bare-refreshes.ts", {
      DATABASE_URL: await useDatabase({ empty: true }),
      TOKEN_URL: stage.tokenUrl,
      ROWS: String(dueConnections),
      WIDTH: String(width),
    });
    const byCpu: Measured = { ours: [], yardstick: [] };
    const measured = await inTurn(bench, {
      ours: async () => {
        const { perSecond, perCpuSecond } = await stage.whileDue(async () => await sleep(seconds * 1000));
        byCpu.ours.push(perCpuSecond);
        return perSecond;
      },
      yardstick: async () => {
        const before = cpuSeconds(bare.pid);
        const done = await numberAt(`${bare.url}/${seconds}`);
        byCpu.yardstick.push(done / (cpuSeconds(bare.pid) - before));
        return done / seconds;
      },
    });
    const { ratio, ours, yardstick } = summarise(refreshes, byCpu);
    const note = `for each second of the process's CPU: ratio ${ratio.toFixed(2)}; ${format(ours)} / ${format(yardstick)} refreshes`;
    return { ...measured, notes: [note] };
  },
};
