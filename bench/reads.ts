import { fork } from "node:child_process";
import { once } from "node:events";
import autocannon from "autocannon";
import { request } from "undici";
import { prepareBroker } from "../test/support/broker-process.ts";
import { freePort } from "../test/support/free-port.ts";

/**
 * Fresh reads side by side with a bare Fastify route, and with the same while somebody asks for metrics as fast as the broker
 * answers, on the embedded database: `node bench/reads.ts [rounds] [seconds]`. Rounds alternate, so that a noisy machine is noisy
 * for all; what counts is the ratio of the medians.
 */
const rounds = Number(process.argv[2] ?? 5);
const seconds = Number(process.argv[3] ?? 4);

await using broker = await prepareBroker({ env: { LOG_LEVEL: "warn", SANDBOX: "true" } });
await broker.start();
await broker.api.createConnection({ name: "bench", provider: "sandbox", client: "sandbox", grant: "import" });
await broker.api.importTokens("bench", { access_token: "x".repeat(64), expires_in: 86_400 });
const key = await broker.api.createKey({ name: "bench", abilities: ["tokens"], connections: ["bench"] });

const barePort = await freePort();
const bare = fork(new URL("bare-route.ts", import.meta.url), [String(barePort)]);
await once(bare, "message");

const perSecond = async (url: string): Promise<number> => {
  const result = await autocannon({
    url,
    connections: 50,
    duration: seconds,
    headers: { authorization: `Bearer ${key}` },
  });
  const failed = result.non2xx + result.errors;
  if (failed > 0) throw new Error(`${url}: ${failed} requests were refused or failed`);
  return result.requests.average;
};

/** Ten callers without a key ask for metrics for as long as `work` takes. */
const whileHammered = async <Value>(work: () => Promise<Value>): Promise<Value> => {
  const done = new AbortController();
  const hammer = async () => {
    while (!done.signal.aborted) await (await request(`${broker.url}/metrics`)).body.dump();
  };
  const hammers = Array.from({ length: 10 }, hammer);
  const value = await work();
  done.abort();
  await Promise.all(hammers);
  return value;
};

const readsPerSecond: number[] = [];
const hammeredPerSecond: number[] = [];
const barePerSecond: number[] = [];
for (let round = 0; round < rounds; round++) {
  readsPerSecond.push(await perSecond(`${broker.url}/tokens/bench`));
  hammeredPerSecond.push(await whileHammered(async () => await perSecond(`${broker.url}/tokens/bench`)));
  barePerSecond.push(await perSecond(`http://127.0.0.1:${barePort}/tokens/bench`));
}
bare.kill();

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
const [reads, hammered, yardstick] = [median(readsPerSecond), median(hammeredPerSecond), median(barePerSecond)];
process.stdout.write(
  `fresh reads ${Math.round(reads)}/s, bare route ${Math.round(yardstick)}/s, ratio ${(reads / yardstick).toFixed(2)}; ` +
    `while /metrics is hammered ${Math.round(hammered)}/s, ratio ${(hammered / reads).toFixed(2)}\n`,
);
