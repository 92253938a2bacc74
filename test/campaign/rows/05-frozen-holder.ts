import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { type FaultProxy, startFaultProxy } from "../../support/faults/tcp-proxy.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import { useDatabase } from "../../support/services/index.ts";
import { pretendPermitsRanOut, readRegardless } from "../crash-tools.ts";
import { queryRows } from "../query-rows.ts";
import type { Given, Row } from "../row.ts";
import { type Connected, connectMany, inBatches, offences, readUntilServed } from "../tools.ts";

type Scene = { stage: ConnectedStage; toPostgres: FaultProxy; connections: readonly Connected[] };

/** Where the holder is stopped while it works for all connections; resolves when it stands still. */
type Point = { name: string; freeze(scene: Scene): Promise<void> };

/** More than a takeover needs: within this time a peer replaces the permits of the frozen replica. */
const frozenMs = 120_000;
const provider = { switches: { reuse: "grace", graceSeconds: 600 } } as const;

/** At a failpoint between the permit and the write, when so many have come to it. */
const failpoint = (name: string, after: number): Point => ({
  name,
  freeze: async ({ stage }) => {
    stage.first.setFailpoints({ [name]: { action: "stop", after } });
    await stage.first.untilFrozen();
  },
});

/** At any moment, Postgres answering slowly: in the queue for its pool, before the permit's answer, while connecting. */
const anyMoment = (afterMs: number): Point => ({
  name: `${Math.round(afterMs)} ms after the first read`,
  freeze: async ({ stage, toPostgres }) => {
    toPostgres.faults.delayToClientMs = 30;
    await sleep(afterMs);
    stage.first.freeze();
    toPostgres.faults.delayToClientMs = 0;
  },
});

export const row: Row = {
  number: 5,
  title: "SIGSTOP of the holder for 120 s at any point from permit to write",
  promised: "0 sends by it after waking",
  onlyFull:
    "four brokers of its own; test/unit/providers/oauth-client and test/contract/refresh/sending prove each check before a send",
  async run(given) {
    const random = seededRandom(given.seed);
    const moments = Array.from({ length: given.scale === "full" ? 6 : 1 }, () => anyMoment(50 + random() * 400));
    const perScene = given.scale === "full" ? 50 : 20;
    const sync = given.scale === "full" ? [failpoint("before send", 1)] : [];
    const points = [failpoint("permit taken", perScene), ...sync, ...moments];
    const scenes = await inBatches(points.length, 4, (index) => playScene(points[index] as Point, perScene, given));
    const sum = (pick: (scene: (typeof scenes)[number]) => number) => scenes.reduce((all, one) => all + pick(one), 0);
    const [late, twice] = [sum(({ late: count }) => count), sum(({ overlaps }) => overlaps)];
    const figure = `${late} sends after waking, ${twice} at the same time, ${sum(({ frozen }) => frozen)} permits held frozen`;
    return { ok: late === 0 && twice === 0 && sum(({ frozen }) => frozen) > 0, figure };
  },
};

async function playScene(point: Point, count: number, { scale, log }: Given) {
  const databaseUrl = await useDatabase();
  await using toPostgres = await startFaultProxy(databaseUrl);
  const each = (replica: number) => (replica === 0 ? { databaseUrl: toPostgres.url, failpoints: {} } : {});
  await using stage = await ConnectedStage.start({ replicas: 2, databaseUrl, withLines: true, provider, each });
  const peer = stage.brokers[1] as ConnectedStage["first"];
  const connections = await connectMany(stage, count);
  const names = connections.map(({ name }) => name);

  const freezing = point.freeze({ stage, toPostgres, connections });
  const reading = readRegardless(stage.first, names);
  await freezing;
  const frozenAtMs = performance.now();
  const frozen = await standingPermits(databaseUrl);
  if (scale === "short") await pretendPermitsRanOut(databaseUrl);
  await readUntilServed(peer, names);
  if (scale === "full") await sleep(frozenMs - (performance.now() - frozenAtMs));

  const wokenAt = Date.now();
  stage.first.thaw();
  await reading;
  await sleep(scale === "full" ? 5000 : 1000);
  const late = stage.sentBy(0).filter(({ inAt }) => inAt >= wokenAt).length;
  log(`${point.name}: ${frozen} permits frozen, ${late} sends after waking`);
  return { late, frozen, overlaps: offences(stage.provider.ledger).overlaps };
}

async function standingPermits(databaseUrl: string): Promise<number> {
  const text = "SELECT count(*)::int AS count FROM connections WHERE attempt_id IS NOT NULL";
  return (await queryRows<{ count: number }>(databaseUrl, text))[0]?.count ?? 0;
}
