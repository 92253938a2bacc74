import { refreshTimes } from "../../src/time.ts";
import { ConnectedStage } from "../../test/support/connected-stage.ts";
import { type BenchCase, cpuSeconds, inTurn, median } from "../harness.ts";
import { releaseHerd } from "../herd-callers.ts";
import { needServices } from "../services.ts";

const replicas = 4;
const callers = 1000;
const providerMs = 200;

export const herd: BenchCase = {
  name: "herd",
  number: 4,
  title: `${callers} callers at ${replicas} brokers report the same rejected version at one moment; the provider takes ${providerMs} ms`,
  yardstick: "one caller alone",
  aim: { atMost: 1.5 },
  unit: "ms to the last answer",
  async run(bench) {
    await needServices();
    await using stage = await ConnectedStage.start({ replicas });
    const { provider, brokers, first } = stage;
    await stage.create("herd");
    const { accessToken, refreshToken } = provider.issueTokenSet();
    const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: 3600 };
    await first.api.importTokens("herd", set);
    provider.switches.delayMs = providerMs;
    const key = await first.api.createKey({ name: "herd", abilities: ["tokens"], connections: ["herd"] });
    const ports = brokers.map(({ url }) => Number(new URL(url).port));
    const cpuOf = () => brokers.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0);
    const cpuMs: number[] = [];
    let version = 1;
    /** Each time another version is refused, and there is one refresh. */
    const release = async (size: number): Promise<number> => {
      await stage.pass(refreshTimes.recentlyRefreshedMs / 1000 + 1, "herd");
      const [sent, cpu] = [provider.ledger.granted("refresh_token"), cpuOf()];
      const path = `/tokens/herd?rejected_version=${version}`;
      const ms = await releaseHerd({ ports: ports.slice(0, size), callers: size, path, key });
      const refreshes = provider.ledger.granted("refresh_token") - sent;
      if (refreshes !== 1) throw new Error(`${size} callers caused ${refreshes} refreshes`);
      if (size > 1) cpuMs.push((cpuOf() - cpu) * 1000);
      version += 1;
      return ms;
    };
    const measured = await inTurn(bench, {
      ours: async () => await release(callers),
      yardstick: async () => await release(1),
    });
    const each = (median(cpuMs) / callers).toFixed(2);
    return { ...measured, notes: [`CPU of the ${replicas} brokers: ${each} ms for each of the ${callers} callers`] };
  },
};
