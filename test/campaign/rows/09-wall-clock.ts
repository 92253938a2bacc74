import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { type WallClock, wallClock } from "../../support/faults/wall-clock.ts";
import { until } from "../../support/patience.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import type { Row } from "../row.ts";
import { startLoad } from "../load.ts";
import { connectMany, offences } from "../tools.ts";

const sizes = {
  full: { replicas: 3, seconds: 120, connections: 50, lifeSeconds: 5, perSecond: 100 },
  short: { replicas: 2, seconds: 6, connections: 4, lifeSeconds: 3, perSecond: 20 },
} as const;
const hourSeconds = 3600;

export const row: Row = {
  number: 9,
  title: "wall clock of one replica ± 1 h, jumping meanwhile",
  promised: "0 duplicate sends, 0 expired tokens served",
  async run({ seed, scale, log }) {
    const size = sizes[scale];
    const random = seededRandom(seed);
    await using clock = await wallClock(hourSeconds);
    log(`wall clock by ${clock.kind}`);
    const each = (replica: number) => (replica === 0 ? clock.options : {});
    const provider = { switches: { accessLifeSeconds: size.lifeSeconds } };
    await using stage = await ConnectedStage.start({ replicas: size.replicas, provider, each });
    const names = (await connectMany(stage, size.connections)).map(({ name }) => name);
    const expired: string[] = [];
    const refusals: string[] = [];
    const load = startLoad(size.perSecond, async (index) => {
      const broker = stage.brokers[index % stage.brokers.length] as BrokerProcess;
      const name = names[Math.floor(random() * names.length)] as string;
      return await read({ stage, broker, name, expired, refusals });
    });
    await jump(clock, size.seconds, random);
    const { ledger } = stage.provider;
    await until("each to be refreshed", () => ledger.refreshes() >= names.length);
    await load.stop();
    const served = load.samples.filter(({ status }) => status === 200).length;
    const refused = load.samples.filter(({ status }) => status !== 200).length;
    const { reuses, overlaps, sentTwice } = offences(ledger);
    const refreshes = ledger.refreshes();
    return {
      // If a clock jumps between permit and request, the request is not sent. So a few reads are refused, by design.
      ok: reuses + overlaps + sentTwice + expired.length === 0 && served > 0,
      figure: `${reuses + overlaps + sentTwice} duplicate sends of ${refreshes}, ${expired.length} expired tokens served in ${load.samples.length} reads, ${refused} reads refused`,
      notes: [...expired.slice(0, 5), ...new Set(refusals)].slice(0, 10),
    };
  },
};

type Read = { stage: ConnectedStage; broker: BrokerProcess; name: string; expired: string[]; refusals: string[] };

/** By the provider's books a token must have been alive when it was asked for. */
async function read({ stage, broker, name, expired, refusals }: Read): Promise<number> {
  const askedAt = Date.now();
  const { status, body } = await broker.api.token(name, { min_ttl: 0 });
  if (status !== 200) refusals.push(`replica ${stage.brokers.indexOf(broker)}: ${status} ${body.code} ${body.detail}`);
  if (status !== 200) return status;
  const { ledger, switches } = stage.provider;
  const token = ledger.tokens.find(({ value }) => value === body.access_token);
  const endsAt = (token?.issuedAt ?? 0) + switches.accessLifeSeconds * 1000;
  if (endsAt <= askedAt) expired.push(`${name}: version ${body.version} ended ${askedAt - endsAt} ms before the read`);
  return status;
}

/** Half an hour, an hour or nothing, ahead or behind, for a second or two each. */
async function jump(clock: WallClock, seconds: number, random: () => number): Promise<void> {
  const endMs = performance.now() + seconds * 1000;
  while (performance.now() < endMs) {
    clock.set((Math.floor(random() * 5) - 2) * (hourSeconds / 2));
    await sleep(1000 + random() * 1000);
  }
}
