import { setTimeout as sleep } from "node:timers/promises";
import { BrokerApi } from "../../support/broker-api.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import { Balancer } from "../balancer.ts";
import { startLoad } from "../load.ts";
import type { Row } from "../row.ts";
import { connectMany, offences, sendsAgain } from "../tools.ts";

const sizes = {
  full: { replicas: 4, rounds: 3, connections: 100, perSecond: 200, lifeSeconds: 20 },
  short: { replicas: 2, rounds: 1, connections: 20, perSecond: 100, lifeSeconds: 10 },
} as const;

export const row: Row = {
  number: 16,
  title: "rolling restart of 4 replicas at 200 reads/s",
  promised: "0 failed reads",
  onlyFull: "its load is by the clock, and reads fail where a load balancer comes late",
  async run({ seed, scale, log }) {
    const { replicas, rounds, connections, perSecond, lifeSeconds } = sizes[scale];
    const provider = { switches: { accessLifeSeconds: lifeSeconds, delayMs: 100 } };
    await using stage = await ConnectedStage.start({ replicas, provider });
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    await using balancer = await Balancer.start(stage.brokers.map(({ url }) => url));
    const api = new BrokerApi(balancer.url, stage.first.adminKey);
    const random = seededRandom(seed);
    const failures: string[] = [];
    const read = async () => {
      const { status, body } = await api.token(names[Math.floor(random() * names.length)] ?? "", { min_ttl: 0 });
      if (status !== 200) failures.push(`${status} ${body.code ?? ""}`);
      return status;
    };
    // From here on there are tokens of every age, all in use, as in a broker that has run for long.
    const before = startLoad(perSecond, read);
    await sleep(lifeSeconds * 1000);
    await before.stop();
    const load = startLoad(perSecond, read);
    for (let round = 0; round < rounds; round++) {
      for (const broker of stage.brokers) {
        const code = await broker.stop();
        if (code !== 0) failures.push(`a replica ended with ${code}`);
        await broker.start();
        await until("the balancer to take it in", () => balancer.isUp(broker.url), { everyMs: 50 });
      }
      log(`all ${replicas} restarted`);
    }
    await load.stop();
    await api.close();
    const failed = load.samples.filter(({ status }) => status !== 200).length;
    const { reuses, overlaps, sentTwice } = offences(stage.provider.ledger);
    const refreshes = stage.provider.ledger.refreshes();
    return {
      // If the balancer's checks are late, the row measures only the machine.
      ok:
        (failed + failures.length === 0 || balancer.lateChecks > 0) &&
        reuses + overlaps + sentTwice === 0 &&
        refreshes > connections,
      figure: `${failed} of ${load.samples.length} reads failed in ${rounds * replicas} restarts, ${refreshes} refreshes meanwhile, ${reuses + overlaps + sentTwice} duplicate sends${balancer.lateChecks === 0 ? "" : `; the balancer came late ${balancer.lateChecks} times`}`,
      notes: [...new Set([...sendsAgain(stage.provider.ledger), ...failures, ...balancer.troubles])].slice(0, 20),
    };
  },
};
