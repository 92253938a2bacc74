import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage, type StageOptions } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import { startPrivatePostgres } from "../../support/services/index.ts";
import type { PrivateServer } from "../../support/services/private-server.ts";
import { countedLosses, firstHasFailpoints, lostOnes, readUntilSettled, untilKilled } from "../crash-tools.ts";
import { queryRows } from "../query-rows.ts";
import type { Given, Row } from "../row.ts";
import { type Connected, connectMany, inBatches, offences } from "../tools.ts";

/**
 * Who gets the answers while Postgres is away. `goes on`: it keeps them. `back first`: killed once they are on its disk,
 * and started again with Postgres. `back last`: started again when its peers have taken over.
 */
type Holder = "goes on" | "killed, back first" | "killed, back last";
type Case = {
  hasRedis: boolean;
  holder: Holder;
  outageSeconds: readonly [number, number];
  /** The provider takes a spent token again. The set that a peer gets in this way and the one that comes from the disk later are both kept. */
  hasGrace?: boolean;
};

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
    { hasRedis: false, holder: "killed, back last", outageSeconds: [1, 10], hasGrace: true },
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
  onlyFull:
    'minutes of outages; rows 13 ("spooled") and 15, test/contract/refresh/answers and test/unit/tokens/recovery prove it',
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
type Stage = { stage: ConnectedStage; postgres: PrivateServer; connections: readonly Connected[] };

async function playCase(one: Case, outageMs: number, { scale, log }: Given): Promise<Scene> {
  const { hasRedis, holder } = one;
  const title = `${hasRedis ? "with" : "without"} Redis, ${Math.round(outageMs / 1000)} s away, holder ${holder}`;
  const count = scale === "full" ? 50 : 10;
  await using postgres = await startPrivatePostgres();
  await using stage = await ConnectedStage.start(optionsFor(one, postgres.url));
  const connections = await connectMany(stage, count);
  const served = await losePostgres(one, { stage, postgres, connections });
  log(`${title}: answers spooled`);
  await sleep(outageMs);
  await postgres.restart();
  if (holder === "killed, back first") await stage.first.start();
  const outcome = await countLosses(stage, connections);
  if (holder === "killed, back last") await stage.first.start();
  if (one.hasGrace === true) await untilCandidates(postgres.url, count);

  const { lost, counted, reuses } = outcome;
  const mayLose = !hasRedis && holder === "killed, back last" && one.hasGrace !== true;
  const wrong = [
    ...(holder === "goes on" && served < count ? [`${title}: ${served} of ${count} callers had their token`] : []),
    ...(reuses === lost && (lost === 0 || mayLose) && counted === lost && outcome.isCountedTwice
      ? []
      : [`${title}: ${JSON.stringify(outcome)}`]),
  ];
  log(`${title}: ${lost} of ${count} lost, ${counted} counted`);
  return { hasRedis, count, lost, counted, wrong };
}

function optionsFor({ hasRedis, hasGrace = false }: Case, databaseUrl: string): StageOptions {
  const provider = hasGrace ? { switches: { reuse: "grace", graceSeconds: 600 } as const } : {};
  const options = { replicas: 2, databaseUrl, provider, each: firstHasFailpoints };
  return hasRedis ? options : { ...options, redisUrl: null };
}

/** All answers come in while Postgres is gone. @returns how many callers had their token all the same */
async function losePostgres({ holder }: Case, { stage, postgres, connections }: Stage): Promise<number> {
  const { first } = stage;
  const reading = await holdAnswers(stage, connections);
  await postgres.kill();
  const isKilled = holder !== "goes on";
  first.setFailpoints(isKilled ? { spooled: { action: "kill", after: connections.length } } : {});
  if (isKilled) await untilKilled(first);
  const served = (await reading.ended).filter(({ status }) => status === "fulfilled").length;
  first.setFailpoints({});
  return served;
}

/** As the peer sees it, when all is over. */
async function countLosses(stage: ConnectedStage, connections: readonly Connected[]) {
  const { brokers, provider } = stage;
  const peer = brokers[1] as BrokerProcess;
  const names = connections.map(({ name }) => name);
  await readUntilSettled(peer, names);
  const { reuses } = offences(provider.ledger);
  const lost = (await lostOnes(peer, names)).length;
  const [counted, alsoCounted] = await countedLosses(stage, [peer]);
  return { lost, counted, reuses, isCountedTwice: alsoCounted === counted };
}

/** The answers on the disk of the replica that came back last stand beside those that its peer got. */
async function untilCandidates(databaseUrl: string, count: number): Promise<void> {
  const found = async () => (await queryRows(databaseUrl, "SELECT 1 AS one FROM candidates")).length;
  await until(`${count} late answers to be kept`, async () => (await found()) === count);
}

/** Reads each, until all answers have come, none of which is stored yet. The reads themselves end later, with a token or nothing. */
async function holdAnswers({ first, provider }: ConnectedStage, connections: readonly Connected[]) {
  first.setFailpoints({ answered: { action: "hold" } });
  const read = async (name: string) => {
    await until(`a token of ${name}`, async () => (await first.api.token(name, { wait: 30 })).status === 200);
  };
  const reading = Promise.allSettled(connections.map(({ name }) => read(name)));
  const isAnswered = () => connections.every(({ family }) => provider.ledger.refreshes(family) === 1);
  await until("all answers", isAnswered);
  await sleep(500);
  return { ended: reading };
}

function between([least, most]: readonly [number, number], random: () => number): number {
  return (least + random() * (most - least)) * 1000;
}
