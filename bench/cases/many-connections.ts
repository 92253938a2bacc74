import { fillConnections } from "../../test/support/filled-connections.ts";
import { seededRandom } from "../../test/support/seeded-random.ts";
import { useDatabase } from "../../test/support/services/index.ts";
import { type BenchCase, cpuSeconds, generate, inTurn, median, pinServer } from "../harness.ts";
import { needServices } from "../services.ts";
import { startSandboxBroker } from "../sandbox-broker.ts";

const connections = 100_000;
/** How many requests the generator makes ready. It begins anew after them. */
const drawn = 200_000;
const key = { id: "bench", key: Buffer.alloc(32, "many connections") };

const nameOf = (index: number): string => `many-${index}`;

const each = (index: number) => ({
  name: nameOf(index),
  accessToken: `${index} ${"x".repeat(57)}`,
  expiresInSeconds: 86_400,
});

/** Each connection as often as any other, in an order by chance. */
function uniform(random: () => number): number[] {
  return Array.from({ length: drawn }, () => Math.floor(random() * connections));
}

/** By Zipf's law: the n-th connection is read 1/n times as often as the first. */
function zipf(random: () => number): number[] {
  const sums = new Float64Array(connections);
  for (let index = 0, sum = 0; index < connections; index++) sums[index] = sum += 1 / (index + 1);
  const total = sums[connections - 1] ?? 0;
  return Array.from({ length: drawn }, () => placeOf(random() * total, sums));
}

/** The first place whose sum is not below this one. */
function placeOf(wanted: number, sums: Float64Array): number {
  let [low, high] = [0, sums.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sums[middle] ?? 0) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

function manyConnections(name: string, draw: (random: () => number) => number[]): BenchCase {
  return {
    name,
    number: 2,
    title: `fresh reads over ${connections} connections, all cached, ${draw.name}, on Postgres`,
    yardstick: "fresh reads of one connection, by the same key, at the same broker",
    aim: { atLeast: 0.9 },
    unit: "reads/s",
    async run({ seconds, ...bench }) {
      await needServices();
      const databaseUrl = await useDatabase();
      const encryptionKeys = `${key.id}:${key.key.toString("base64")}`;
      await using broker = await startSandboxBroker({ databaseUrl, encryptionKeys });
      await broker.api.createConnection({ name: "bench", provider: "sandbox", client: "sandbox", grant: "import" });
      await broker.api.importTokens("bench", { access_token: "x".repeat(64), expires_in: 86_400 });
      await fillConnections({ databaseUrl, key, count: connections, each });
      const patterns = Array.from({ length: 98 }, (_, index) => `team-${index}-*-orders`);
      const allowed = ["bench", "many-*"];
      const caller = await broker.api.createKey({
        name: "bench",
        abilities: ["tokens"],
        connections: [...patterns, ...allowed],
      });
      await pinServer(broker.pid);
      const headers = { authorization: `Bearer ${caller}` };
      const paths = draw(seededRandom(1)).map((index) => `/tokens/${nameOf(index)}`);
      const all = Array.from({ length: connections }, (_, index) => `/tokens/${nameOf(index)}`);
      await generate({ url: broker.url, paths: all, headers, seconds: 30 });
      const cpu = { ours: [] as number[], yardstick: [] as number[] };
      const side = async (whose: keyof typeof cpu, asked: readonly string[]) => {
        const before = cpuSeconds(broker.pid);
        const { perSecond } = await generate({ url: broker.url, paths: asked, headers, seconds });
        cpu[whose].push(((cpuSeconds(broker.pid) - before) * 1e6) / (perSecond * seconds));
        return perSecond;
      };
      const measured = await inTurn(bench, {
        ours: async () => await side("ours", paths),
        yardstick: async () => await side("yardstick", ["/tokens/bench"]),
      });
      const [ours = 0, yardstick = 0] = [cpu.ours, cpu.yardstick].map((values) => median(values.slice(1)));
      return {
        ...measured,
        notes: [`CPU of the broker for a read: ${ours.toFixed(1)} µs beside ${yardstick.toFixed(1)} µs`],
      };
    },
  };
}

export const manyUniform = manyConnections("many-uniform", uniform);
export const manyZipf = manyConnections("many-zipf", zipf);
