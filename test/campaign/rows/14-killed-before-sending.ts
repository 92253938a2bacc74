import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { useDatabase } from "../../support/services/index.ts";
import { firstHasFailpoints, readRegardless, storedRows, untilKilled } from "../crash-tools.ts";
import type { Given, Row } from "../row.ts";
import { type Connected, connectMany, offences } from "../tools.ts";

const limitSeconds = 45;

/** Who serves after the kill: a replica that went on, or the killed one, started again at once. */
type Successor = "a peer" | "its own next start";

export const row: Row = {
  number: 14,
  waits: true,
  title: "kill -9 between permit and send",
  promised: `serving again within ${limitSeconds} s`,
  async run(given) {
    const successors: Successor[] = given.scale === "full" ? ["a peer", "its own next start"] : ["a peer"];
    const scenes = await Promise.all(successors.map((successor) => playScene(successor, given)));
    const figures = scenes.map(({ figure }) => figure);
    return { ok: scenes.every(({ isGood }) => isGood), figure: figures.join("; ") };
  },
};

async function playScene(successor: Successor, { scale }: Given) {
  const databaseUrl = await useDatabase();
  const count = scale === "full" ? 50 : 20;
  await using stage = await ConnectedStage.start({
    replicas: successor === "a peer" ? 2 : 1,
    databaseUrl,
    each: firstHasFailpoints,
  });
  const connections = await connectMany(stage, count);
  const names = connections.map(({ name }) => name);

  stage.first.setFailpoints({ "permit taken": { action: "kill", after: count } });
  const reading = readRegardless(stage.first, names);
  await untilKilled(stage.first);
  const killedMs = performance.now();
  await reading;
  stage.first.setFailpoints({});
  const permits = [...(await storedRows(databaseUrl)).values()].filter(({ hasPermit }) => hasPermit).length;
  if (successor !== "a peer") await stage.first.start();

  const servedMs = await Promise.all(names.map((name) => untilServed(stage.brokers.at(-1) ?? stage.first, name)));
  const longestSeconds = Math.max(...servedMs.map((ms) => ms - killedMs)) / 1000;
  return {
    isGood: (longestSeconds <= limitSeconds || scale === "short") && permits === count && isOnce(stage, connections),
    figure: `${permits} permits left behind, all served by ${successor} within ${longestSeconds.toFixed(1)} s`,
  };
}

/** One request was sent for each, and it worked. */
function isOnce({ provider: { ledger } }: ConnectedStage, connections: readonly Connected[]): boolean {
  const { reuses, overlaps, sentTwice } = offences(ledger);
  return reuses + overlaps + sentTwice === 0 && connections.every(({ family }) => ledger.refreshes(family) === 1);
}

/** @returns when the connection had a token; a minute after the bound nobody waits any more */
async function untilServed({ api }: BrokerProcess, name: string): Promise<number> {
  const endMs = performance.now() + (limitSeconds + 60) * 1000;
  while (performance.now() < endMs) {
    if ((await api.token(name)).status === 200) break;
    await sleep(200);
  }
  return performance.now();
}
