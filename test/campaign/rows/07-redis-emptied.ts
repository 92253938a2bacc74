import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";
import type { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import { withRedis } from "../../support/services/redis.ts";
import { openGround } from "../fleets.ts";
import type { Row } from "../row.ts";
import { connectMany, offences } from "../tools.ts";

const sizes = {
  full: { connections: 60, replicas: 4, flushes: 100, restarts: 50 },
  short: { connections: 6, replicas: 2, flushes: 4, restarts: 2 },
} as const;
const providerMs = 400;

export const row: Row = {
  number: 7,
  title: "Redis FLUSHALL × 100 in mid-refresh; Redis restarted empty × 50",
  promised: "0 duplicate sends",
  plays: { how: "in turn", provider: ({ id }) => new GenericProvider({ id, switches: { delayMs: providerMs } }) },
  async run(given) {
    const { connections, replicas, flushes, restarts } = sizes[given.scale];
    const random = seededRandom(given.seed);
    await using ground = await openGround(given, row, { replicas });
    const { stage, redis } = ground;
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    const callers = startCallers(stage.brokers, names);

    const flushed = await disturb(stage, flushes, async () => {
      await withRedis(redis.url, async (client) => void (await client.flushall()));
      await sleep(random() * providerMs);
    });
    given.log(`flushed ${flushes} times`);
    const restarted = await disturb(stage, restarts, async () => {
      await redis.kill();
      await sleep(random() * 2 * providerMs);
      await redis.restart();
      await sleep(random() * 2 * providerMs);
    });
    const { ledger } = stage.provider;
    await until("a refresh for each", () => ledger.refreshes() >= flushes + restarts);
    const { failures, told } = await callers.stop();
    const { reuses, overlaps, sentTwice } = offences(ledger);
    const refused = ledger.requestsTo("token").filter(({ status }) => status !== 200).length;
    return {
      ok: reuses + overlaps + sentTwice + refused + failures.length === 0,
      figure: `${reuses + overlaps + sentTwice} duplicate sends of ${ledger.refreshes()} refreshes; Redis emptied ${flushes} times with ${flushed} and restarted ${restarts} times with ${restarted} of them under way on average; ${told} callers told to come again`,
      notes: failures.slice(0, 10),
    };
  },
};

/** Does it so many times, each while requests are under way. @returns how many were, on average */
async function disturb({ provider }: ConnectedStage, times: number, act: () => Promise<void>): Promise<number> {
  const underWay = () => provider.ledger.requestsTo("token").filter(({ outAt }) => outAt === undefined).length;
  let sum = 0;
  for (let count = 0; count < times; count++) {
    await until("a request to be under way", () => underWay() > 0, { everyMs: 5 });
    sum += underWay();
    await act();
  }
  return Math.round(sum / times);
}

/** At each replica one caller per connection that orders one refresh after the other, so that replicas meet. */
function startCallers(brokers: readonly BrokerProcess[], names: readonly string[]) {
  const failures: string[] = [];
  const state = { isOn: true, told: 0 };
  const call = async ({ api }: BrokerProcess, name: string) => {
    while (state.isOn) {
      const { status, body } = await api.api(`/connections/${name}/refresh`, { method: "POST" });
      // Where a machine takes seconds from the permit to the request, nothing is sent.
      if (status === 503) state.told++;
      else if (status !== 200) failures.push(`${name}: ${status} ${String(body["code"])}`);
    }
  };
  const callTo = async (broker: BrokerProcess, name: string) => {
    await call(broker, name).catch((error: unknown) => {
      failures.push(
        `${name}: ${String(error)}; the broker's exit code is ${broker.exitCode}, it wrote ${broker.stderr}`,
      );
    });
  };
  const calls = brokers.flatMap((broker) => names.map((name) => callTo(broker, name)));
  return {
    async stop() {
      state.isOn = false;
      await Promise.all(calls);
      return { failures, told: state.told };
    },
  };
}
