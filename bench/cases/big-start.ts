import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import type { ConnectedStage } from "../../test/support/connected-stage.ts";
import { filledStage } from "../filled-stage.ts";
import { type BenchCase, cpuSeconds, format, inTurn, type Measured, summarise } from "../harness.ts";

const [many, few] = [1_000_000, 10];
const idleMs = 2000;

export const bigStart: BenchCase = {
  name: "big-start",
  number: 9,
  title: `start to first token, on Postgres and Redis, with ${many} connections`,
  yardstick: `the same with ${few}`,
  aim: { atMost: 1.2 },
  unit: "ms",
  async run({ pairs, log }) {
    const ours = await startable(many);
    const yardstick = await startable(few);
    const byCpu: Measured = { ours: [], yardstick: [] };
    const side = async (name: "ours" | "yardstick", one: Startable) => {
      const { ms, cpuMs } = await startOnce(one);
      byCpu[name].push(cpuMs);
      return ms;
    };
    const measured = await inTurn(
      { pairs, log },
      { ours: async () => await side("ours", ours), yardstick: async () => await side("yardstick", yardstick) },
    );
    await Promise.all([ours, yardstick].map(async ({ stage }) => await stage.first.start()));
    const { ratio, ours: own, yardstick: other } = summarise(bigStart, byCpu);
    const note = `the broker's CPU up to then: ratio ${ratio.toFixed(2)}; ${format(own)} / ${format(other)} ms`;
    return { ...measured, notes: [note] };
  },
};

type Startable = { stage: ConnectedStage; key: string };

/** Its broker has stopped, so that what it does beside is not in the figures of the other. */
async function startable(count: number): Promise<Startable> {
  const stage = await filledStage(count);
  const key = await stage.first.api.createKey({ name: "bench", abilities: ["tokens"], connections: ["read"] });
  await stage.first.stop("SIGINT");
  return { stage, key };
}

async function startOnce({ stage: { first }, key }: Startable): Promise<{ ms: number; cpuMs: number }> {
  const beganMs = performance.now();
  const child = first.launch();
  while (!(await hasToken(`${first.url}/tokens/read`, key))) {
    if (child.exitCode !== null) throw new Error(`the broker ended with ${child.exitCode}: ${first.stderr}`);
    await sleep(2);
  }
  const ms = performance.now() - beganMs;
  const cpuMs = cpuSeconds(first.pid) * 1000;
  await sleep(idleMs); // so that it has begun what comes after a start
  const gone = once(child, "exit");
  await first.stop("SIGINT");
  await gone;
  return { ms, cpuMs };
}

async function hasToken(url: string, key: string): Promise<boolean> {
  try {
    const answer = await request(url, { headers: { authorization: `Bearer ${key}` }, reset: true });
    await answer.body.dump();
    return answer.statusCode === 200;
  } catch {
    return false;
  }
}
