import { fileURLToPath, pathToFileURL } from "node:url";
import type { BrokerOptions, BrokerProcess } from "../../test/support/broker-process.ts";
import { type BenchCase, format, generateAt, inTurn, type Measured, pinServer, summarise } from "../harness.ts";
import { startSandboxBroker } from "../sandbox-broker.ts";

/** Both brokers run from the sources, so that nothing but the counting differs. */
const entry = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const uncounted = `--import=${pathToFileURL(fileURLToPath(new URL("../uncounted.ts", import.meta.url))).href}`;

export const accounting: BenchCase = {
  name: "accounting",
  number: 11,
  title: "fresh read, counted by the audit and by metrics",
  yardstick: "the same broker from the same sources, with the counting taken out as they are loaded",
  aim: { atLeast: 0.95 },
  unit: "reads/s",
  async run({ seconds, pairs, log }) {
    await using counting = await startSide({});
    await using silent = await startSide({ nodeOptions: [uncounted] });
    const byCpu: Measured = { ours: [], yardstick: [] };
    const side = async (name: "ours" | "yardstick", { broker, headers }: Side) => {
      const load = { url: `${broker.url}/tokens/bench`, headers, seconds };
      const { perSecond, perCpuSecond } = await generateAt(broker.pid, load);
      byCpu[name].push(perCpuSecond);
      return perSecond;
    };
    // The ratio is near to 1, so it takes more pairs than others to tell it from noise.
    const measured = await inTurn(
      { pairs: Math.max(pairs, fewestPairs), log },
      {
        ours: async () => await side("ours", counting),
        yardstick: async () => await side("yardstick", silent),
      },
    );
    // Each time that a key or a row is asked for anew, some reads go the general way and are counted at both.
    const [all, few] = [await readsOf(counting.broker), await readsOf(silent.broker)];
    if (all === 0 || few > all / 10) throw new Error(`the yardstick counts: ${few} beside ${all}`);
    const { ratio, ours, yardstick } = summarise(accounting, byCpu);
    const note = `for each second of the server's CPU: ratio ${ratio.toFixed(3)}; ${format(ours)} / ${format(yardstick)} reads`;
    return { ...measured, notes: [note] };
  },
};

const fewestPairs = 15;

type Side = AsyncDisposable & { broker: BrokerProcess; headers: Record<string, string> };

async function startSide(options: BrokerOptions): Promise<Side> {
  const broker = await startSandboxBroker({ ...options, entry });
  await pinServer(broker.pid);
  const { api } = broker;
  await api.createConnection({ name: "bench", provider: "sandbox", client: "sandbox", grant: "import" });
  await api.importTokens("bench", { access_token: "x".repeat(64), expires_in: 86_400 });
  const key = await api.createKey({ name: "bench", abilities: ["tokens"], connections: ["bench"] });
  const headers = { authorization: `Bearer ${key}` };
  return { broker, headers, [Symbol.asyncDispose]: async () => await broker[Symbol.asyncDispose]() };
}

/** What the broker's own metrics say. */
async function readsOf({ api }: BrokerProcess): Promise<number> {
  const { body } = await api.api<string>("/metrics");
  return Number(/^freshet_token_reads_total\{result="ok"\} (\d+)/m.exec(body)?.[1] ?? 0);
}
