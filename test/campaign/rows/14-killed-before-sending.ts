import { ConnectedStage } from "../../support/connected-stage.ts";
import { useDatabase } from "../../support/services/index.ts";
import { firstHasFailpoints, readRegardless, storedRows, untilKilled } from "../crash-tools.ts";
import type { Given, Row } from "../row.ts";
import { type Connected, connectMany, offences, readUntilServed } from "../tools.ts";

const limitSeconds = 45;

/** Which replica serves after the kill: one that went on, or the killed one, which is started again at once. */
type Successor = "a peer" | "its own next start";

export const row: Row = {
  number: 14,
  onlyFull:
    'row 13 kills there, at the failpoint "permit taken"; test/contract/refresh/unknown-outcome proves when the next send is allowed',
  title: "kill -9 between permit and send",
  promised: `serving again within ${limitSeconds} s`,
  async run(given) {
    const successors: Successor[] = ["a peer", "its own next start"];
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
  // The same number without a permit: the time until these are served shows how fast the machine is.
  const others = (await connectMany(stage, count, "beside")).map(({ name }) => name);
  const names = connections.map(({ name }) => name);

  stage.first.setFailpoints({ "permit taken": { action: "kill", after: count } });
  const reading = readRegardless(stage.first, names);
  await untilKilled(stage.first);
  const killedMs = performance.now();
  await reading;
  stage.first.setFailpoints({});
  const permits = [...(await storedRows(stage, databaseUrl)).values()].filter(({ hasPermit }) => hasPermit).length;
  const startMs = performance.now();
  if (successor !== "a peer") await stage.first.start();
  const startedSeconds = (performance.now() - startMs) / 1000;

  const server = stage.brokers.at(-1) ?? stage.first;
  const beginMs = performance.now();
  const servedMs = (await readUntilServed(server, names)).map((ms) => beginMs - killedMs + ms);
  const longestSeconds = Math.max(...servedMs) / 1000;
  const usualSeconds = Math.max(...(await readUntilServed(server, others))) / 1000;
  return {
    isGood:
      longestSeconds <= limitSeconds + startedSeconds + usualSeconds && permits === count && isOnce(stage, connections),
    figure: `${permits} permits left behind, all served by ${successor} within ${longestSeconds.toFixed(1)} s (as many without a permit within ${usualSeconds.toFixed(1)} s)`,
  };
}

/** One request was sent for each, and it worked. */
function isOnce({ provider: { ledger } }: ConnectedStage, connections: readonly Connected[]): boolean {
  const { reuses, overlaps, sentTwice } = offences(ledger);
  return reuses + overlaps + sentTwice === 0 && connections.every(({ family }) => ledger.refreshes(family) === 1);
}
