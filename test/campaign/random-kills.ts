import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../support/broker-process.ts";
import type { ConnectedStage } from "../support/connected-stage.ts";
import { until } from "../support/patience.ts";
import { seededRandom } from "../support/seeded-random.ts";
import {
  countedLosses,
  lostOnes,
  pretendPermitsRanOut,
  readUntilSettled,
  storedRows,
  withoutAnswer,
} from "./crash-tools.ts";
import { openGround } from "./fleets.ts";
import type { Given, Row } from "./row.ts";
import { type Connected, connectMany, offences } from "./tools.ts";

/** Each victim is killed once, while all of its connections are somewhere between their first read and its answer. */
const sizes = { full: { victims: 5, each: 100 }, short: { victims: 1, each: 30 } } as const;
/** So many reads are under way when their broker is killed, however fast or slow the machine is, and others beside them. */
const lastToBegin = 10;
const lastBeginWithinMs = 100;
const readsBeginWithinMs = 1500;
const longestProviderMs = 1000;
const databaseDelayMs = 10;

export type Casualties = {
  /** Reads that were under way when their broker was killed. */
  points: number;
  /** Permits that were left behind: those that stood between permit and store. */
  permits: number;
  /** Connections that the provider had rotated, and no durable copy of the answer was left: W1 and W2. */
  exposed: string[];
  /** Connections whose refresh token does not work in the end. */
  lost: string[];
  /** By `freshet_lost_rotation_total` and by `freshet_refresh_uncertain_total{resolution="lost"}` of who lived on. */
  counted: [number, number];
  reuses: number;
  overlaps: number;
};

/** Kills replicas at random moments while they refresh, lets a peer take over, and counts what is lost. */
export async function killAtRandom(given: Given, row: Row): Promise<Casualties> {
  const { victims, each: perVictim } = sizes[given.scale];
  const random = seededRandom(given.seed);
  await using ground = await openGround(given, row, { replicas: victims + 1, victims });
  const { stage, toPostgres, databaseUrl, redisUrl } = ground;
  const survivor = stage.brokers[victims] as BrokerProcess;
  const connections = await connectMany(stage, victims * perVictim);
  Object.assign(toPostgres.faults, { delayToServerMs: databaseDelayMs, delayToClientMs: databaseDelayMs });
  const restore = delayAtRandom(stage, random);

  const kills = stage.brokers.slice(0, victims).map(async (victim, index) => {
    const own = connections.slice(index * perVictim, (index + 1) * perVictim);
    return await readAndKill({ stage, victim, connections: own, random });
  });
  const points = (await Promise.all(kills)).reduce((sum, count) => sum + count, 0);
  given.log(`${points} reads were cut off by ${victims} kills`);
  await untilWorkedOff(stage);
  restore();
  toPostgres.heal();
  const permits = [...(await storedRows(stage, databaseUrl)).values()].filter(({ hasPermit }) => hasPermit).length;
  const exposed = await withoutAnswer(stage, connections, { databaseUrl, redisUrl });

  const names = connections.map(({ name }) => name);
  if (given.scale === "short") await pretendPermitsRanOut(databaseUrl);
  await readUntilSettled(survivor, names);
  const lost = await lostOnes(survivor, names);
  const { reuses, overlaps } = offences(stage.provider.ledger);
  return { points, permits, exposed, lost, counted: await countedLosses(stage, [survivor]), reuses, overlaps };
}

type Scene = { stage: ConnectedStage; victim: BrokerProcess; connections: readonly Connected[]; random: () => number };

/** @returns how many reads the kill has cut off */
async function readAndKill({ stage, victim, connections, random }: Scene): Promise<number> {
  const state = { isKilled: false, begun: 0, answered: 0 };
  const read = async ({ name }: Connected, withinMs: number) => {
    await sleep(random() * withinMs);
    const isBegun = !state.isKilled;
    state.begun++;
    const isAnswered = await victim.api.token(name, { wait: 30 }).then(
      () => true,
      () => false,
    );
    if (isAnswered) state.answered++;
    return isBegun && !isAnswered;
  };
  const first = connections.slice(lastToBegin);
  const reads = first.map((one) => read(one, readsBeginWithinMs));
  const share = 0.02 + random() * 0.4;
  await until("the first answers", () => state.answered >= share * first.length, { everyMs: 5 });
  // From here on, requests wait at the provider, so that the last ones are not answered before the kill.
  const release = stage.provider.holdTokens();
  reads.push(...connections.slice(0, lastToBegin).map((one) => read(one, lastBeginWithinMs)));
  await until("the last to begin", () => state.begun - state.answered >= lastToBegin, { everyMs: 5 });
  await sleep(random() * 100);
  state.isKilled = true;
  await victim.kill();
  release();
  return (await Promise.all(reads)).filter(Boolean).length;
}

/** The provider finishes the requests that it has, for at most twice its longest time. When nothing has changed for so long, none is left. */
async function untilWorkedOff({ provider: { ledger } }: ConnectedStage): Promise<void> {
  for (let before = -1; before !== ledger.refreshes();) {
    before = ledger.refreshes();
    await sleep(longestProviderMs * 2 + 500);
  }
}

/** Every token request takes a random time, before it is handled and after. @returns how to end that */
function delayAtRandom({ provider }: ConnectedStage, random: () => number): () => void {
  const get = () => random() * longestProviderMs;
  Object.defineProperties(provider.switches, {
    delayMs: { get, configurable: true },
    answerDelayMs: { get, configurable: true },
  });
  const none = { value: 0, configurable: true, writable: true };
  return () => void Object.defineProperties(provider.switches, { delayMs: none, answerDelayMs: none });
}
