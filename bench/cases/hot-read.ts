import { type BenchCase, generateAt, inTurn, type Measured, pinServer, startYardstick } from "../harness.ts";
import { answerOf, benchKey, noteOfCpu } from "../reads.ts";
import { startSandboxBroker } from "../sandbox-broker.ts";

export const hotRead: BenchCase = {
  name: "hot-read",
  number: 1,
  title: "fresh read, cached, real key, 100 patterns, one process, default log level, audit on",
  yardstick: "bare Fastify route that sends the same status, headers and body as a ready string, no auth",
  aim: { atLeast: 0.8 },
  unit: "reads/s",
  async run({ seconds, ...bench }) {
    await using broker = await startSandboxBroker();
    await pinServer(broker.pid);
    await broker.api.createConnection({ name: "bench", provider: "sandbox", client: "sandbox", grant: "import" });
    await broker.api.importTokens("bench", { access_token: "x".repeat(64), expires_in: 86_400 });
    const key = await benchKey(broker, "bench");
    const url = `${broker.url}/tokens/bench`;
    await using bare = await startYardstick("bare-route.ts", { ANSWER: await answerOf(url, key) });
    const headers = { authorization: `Bearer ${key}` };
    const byCpu: Measured = { ours: [], yardstick: [] };
    const side = async (name: keyof Measured & ("ours" | "yardstick"), pid: number, at: string) => {
      const { perSecond, perCpuSecond } = await generateAt(pid, { url: at, headers, seconds });
      byCpu[name].push(perCpuSecond);
      return perSecond;
    };
    const measured = await inTurn(bench, {
      ours: async () => await side("ours", broker.pid, url),
      yardstick: async () => await side("yardstick", bare.pid, `${bare.url}/tokens/bench`),
    });
    return { ...measured, notes: [noteOfCpu(hotRead, byCpu)] };
  },
};
