import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import { startPrivatePostgres } from "../../support/services/index.ts";
import { countedLosses, firstHasFailpoints, lostOnes, readUntilSettled, until, untilKilled } from "../crash-tools.ts";
import type { Given, Row } from "../row.ts";
import { connectMany, inBatches, offences } from "../tools.ts";

/**
 * Who gets the answers while Postgres is away. `goes on`: it keeps them. `back first`: killed once they are on its disk,
 * and started again with Postgres. `back last`: started again when its peers have taken over.
 */
type Holder = "goes on" | "killed, back first" | "killed, back last";
type Case = { hasRedis: boolean; holder: Holder; outageSeconds: readonly [number, number] };

/** The long ones first: they run side by side. */
const cases: Readonly<Record<Given["scale"], readonly Case[]>> = {
  full: [
    { hasRedis: true, holder: "goes on", outageSeconds: [60, 300] },
    { hasRedis: true, holder: "killed, back last", outageSeconds: [60, 300] },
    { hasRedis: false, holder: "killed, back last", outageSeconds: [10, 60] },
    { hasRedis: true, holder: "goes on", outageSeconds: [1, 10] },
    { hasRedis: true, holder: "killed, back last", outageSeconds: [1, 10] },
    { hasRedis: false, holder: "goes on", outageSeconds: [10, 60] },
    { hasRedis: false, holder: "killed, back first", outageSeconds: [1, 10] },
  ],
  short: [
    { hasRedis: true, holder: "killed, back last", outageSeconds: [1, 3] },
    { hasRedis: false, holder: "killed, back last", outageSeconds: [1, 3] },
  ],
};
const sideBySide = 4;

export const row: Row = {
  number: 20,
  title:
    "Postgres killed between answer and store × 100, back after 1 s to 5 min, peers running; the same plus kill -9 after fdatasync",
  promised: "0 losses with Redis; without, only W3, counted",
  async run(given) {
    const random = seededRandom(given.seed);
    const all = cases[given.scale].map((one) => ({ one, outageMs: between(one.outageSeconds, random) }));
    const scenes = await inBatches(all.length, sideBySide, async (index) => {
      const { one, outageMs } = all[index] as (typeof all)[number];
      return await playCase(one, outageMs, given);
    });
    const sum = (hasRedis: boolean, pick: (scene: Scene) => number) =>
      scenes.filter((scene) => scene.hasRedis === hasRedis).reduce((total, scene) => total + pick(scene), 0);
    const wrongs = scenes.flatMap(({ wrong }) => wrong);
    return {
      ok: wrongs.length === 0,
      figure: `with Redis ${sum(true, ({ lost }) => lost)} of ${sum(true, ({ count }) => count)} lost; without ${sum(false, ({ lost }) => lost)} of ${sum(false, ({ count }) => count)}, all in W3, ${sum(false, ({ counted }) => counted)} counted`,
      notes: wrongs,
    };
  },
};

type Scene = { hasRedis: boolean; count: number; lost: number; counted: number; wrong: string[] };

async function playCase(one: Case, outageMs: number, { scale, log }: Given): Promise<Scene> {
  const { hasRedis, holder } = one;
  const title = `${hasRedis ? "with" : "without"} Redis, ${Math.round(outageMs / 1000)} s away, holder ${holder}`;
  const count = scale === "full" ? 50 : 10;
  await using postgres = await startPrivatePostgres();
  const redis = hasRedis ? {} : { redisUrl: null };
  await using stage = await ConnectedStage.start({
    replicas: 2,
    databaseUrl: postgres.url,
    each: firstHasFailpoints,
    ...redis,
  });
  const peer = stage.brokers[1] as BrokerProcess;
  const connections = await connectMany(stage, count);
  const names = connections.map(({ name }) => name);
  const wrong: string[] = [];

  const { reading } = await holdAnswers(stage, connections);
  await postgres.kill();
  if (holder === "goes on") stage.first.setFailpoints({});
  else stage.first.setFailpoints({ spooled: { action: "kill", after: count } });
  if (holder !== "goes on") await untilKilled(stage.first);
  const served = (await reading).filter(({ status }) => status === "fulfilled").length;
  if (holder === "goes on" && served < count) wrong.push(`${title}: ${served} of ${count} callers had their token`);
  log(`${title}: answers spooled`);

  await sleep(outageMs);
  await postgres.restart();
  stage.first.setFailpoints({});
  if (holder === "killed, back first") await stage.first.start();
  await readUntilSettled(peer, names);
  const { reuses } = offences(stage.provider.ledger);
  const lost = (await lostOnes(peer, names)).length;
  const [counted, alsoCounted] = await countedLosses([peer]);
  if (holder === "killed, back last") await stage.first.start();
  const mayLose = !hasRedis && holder === "killed, back last";
  const isRight = mayLose ? reuses === lost : lost + reuses === 0;
  if (!isRight || counted !== lost || alsoCounted !== lost) {
    wrong.push(`${title}: ${lost} lost, ${counted} and ${alsoCounted} counted, ${reuses} reuses`);
  }
  log(`${title}: ${lost} of ${count} lost, ${counted} counted`);
  return { hasRedis, count, lost, counted, wrong };
}

/** Reads each; all answers come and none is stored yet. The reads themselves end later; a token or nothing. */
async function holdAnswers(
  { first, provider }: ConnectedStage,
  connections: readonly { name: string; family: string }[],
) {
  first.setFailpoints({ answered: { action: "hold" } });
  const read = async (name: string) => {
    const { status } = await first.api.token(name, { wait: 30 });
    if (status !== 200) throw new Error(`${name} was answered with ${status}`);
  };
  const reading = Promise.allSettled(connections.map(({ name }) => read(name)));
  const isAnswered = () => connections.every(({ family }) => provider.ledger.refreshes(family) === 1);
  await until("all answers", 20_000, isAnswered);
  await sleep(500);
  return { reading };
}

function between([least, most]: readonly [number, number], random: () => number): number {
  return (least + random() * (most - least)) * 1000;
}
