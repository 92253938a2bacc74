import { request } from "undici";
import { type BrokerProcess, startBroker } from "../../test/support/broker-process.ts";
import {
  type BenchCase,
  format,
  generateAt,
  inTurn,
  type Measured,
  pinServer,
  startYardstick,
  summarise,
} from "../harness.ts";

/** A key with 100 patterns, of which the last covers the connection. */
async function benchKey(broker: BrokerProcess, connection: string): Promise<string> {
  const patterns = Array.from({ length: 99 }, (_, index) => `team-${index}-*-orders`);
  return await broker.api.createKey({ name: "bench", abilities: ["tokens"], connections: [...patterns, connection] });
}

/** What the broker sends for a fresh read, for a yardstick that sends the same. */
async function answerOf(url: string, key: string): Promise<string> {
  const answer = await request(url, { headers: { authorization: `Bearer ${key}` } });
  const body = await answer.body.text();
  if (answer.statusCode !== 200) throw new Error(`${url}: ${answer.statusCode} ${body}`);
  const byNode = new Set(["date", "connection", "keep-alive", "content-length"]);
  const headers = Object.entries(answer.headers).filter(([name]) => !byNode.has(name));
  return JSON.stringify({ body, headers: Object.fromEntries(headers) });
}

export const hotRead: BenchCase = {
  name: "hot-read",
  number: 1,
  title: "fresh read, cached, real key, 100 patterns, one process, default log level, audit on",
  yardstick: "bare Fastify route that sends the same status, headers and body as a ready string, no auth",
  aim: { atLeast: 0.8 },
  unit: "reads/s",
  async run({ seconds, ...bench }) {
    await using broker = await startBroker({ env: { SANDBOX: "true" } });
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
    const { ratio, ours, yardstick } = summarise(hotRead, byCpu);
    const note = `for each second of the server's CPU: ratio ${ratio.toFixed(2)}; ${format(ours)} / ${format(yardstick)} reads`;
    return { ...measured, notes: [note] };
  },
};
