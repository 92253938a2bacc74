import { createCipheriv, randomBytes } from "node:crypto";
import { Client } from "pg";
import type { BrokerProcess } from "../../test/support/broker-process.ts";
import { fillConnections } from "../../test/support/filled-connections.ts";
import { useDatabase } from "../../test/support/services/index.ts";
import { type BenchCase, generateAt, inTurn, type Measured, pinServer, startYardstick } from "../harness.ts";
import { answerOf, benchKey, noteOfCpu } from "../reads.ts";
import { needServices } from "../services.ts";
import { startSandboxBroker } from "../sandbox-broker.ts";

/** Half as many again as the broker keeps in memory (tokens/cache.ts), asked for in turn: whatever is asked for has been dropped. */
const connections = 150_000;
const accessToken = "x".repeat(64);
const nameOf = (index: number) => `cold-${index}`;
const connectionOf = (index: number) => ({ name: nameOf(index), accessToken, expiresInSeconds: 86_400 });
const pathOf = (index: number) => `/tokens/${nameOf(index)}`;

export const coldRead: BenchCase = {
  name: "cold-read",
  number: 3,
  title: "fresh read that is not in the cache, on Postgres: the same key and settings as hot-read",
  yardstick:
    "bare Fastify route with a prepared select by primary key (pg) on the same Postgres and AES-256-GCM of the token, which sends the same status, headers and body, no auth",
  aim: { atLeast: 0.7 },
  unit: "reads/s",
  async run({ seconds, ...bench }) {
    await needServices();
    const databaseUrl = await useDatabase();
    await using broker = await startFilled(databaseUrl);
    const yardstickKey = await fillYardstick(databaseUrl);
    bench.log(`${connections} connections`);
    const key = await benchKey(broker, "cold-*");
    const answer = await answerOf(`${broker.url}${pathOf(0)}`, key);
    const given = { ANSWER: answer, DATABASE_URL: databaseUrl, KEY: yardstickKey };
    await using bare = await startYardstick("bare-postgres-route.ts", given);
    const headers = { authorization: `Bearer ${key}` };
    const byCpu: Measured = { ours: [], yardstick: [] };
    /** Each round goes on where the one before it has ended. */
    const next = { ours: 0, yardstick: 0 };
    const side = async (name: "ours" | "yardstick", { pid, url }: { pid: number; url: string }) => {
      const paths = Array.from({ length: connections }, (_none, at) => pathOf((next[name] + at) % connections));
      const { perSecond, perCpuSecond } = await generateAt(pid, { url, paths, headers, seconds });
      next[name] += Math.ceil(perSecond * seconds) + 1000;
      byCpu[name].push(perCpuSecond);
      return perSecond;
    };
    const measured = await inTurn(bench, {
      ours: async () => await side("ours", broker),
      yardstick: async () => await side("yardstick", bare),
    });
    return { ...measured, notes: [noteOfCpu(coldRead, byCpu)] };
  },
};

/** A broker whose database has that many connections. */
async function startFilled(databaseUrl: string): Promise<BrokerProcess> {
  const key = { id: "k1", key: randomBytes(32) };
  const encryptionKeys = `${key.id}:${key.key.toString("base64")}`;
  const broker = await startSandboxBroker({ databaseUrl, encryptionKeys });
  await broker.api.createConnection({ name: "bench", provider: "sandbox", client: "sandbox", grant: "import" });
  await fillConnections({ databaseUrl, key, count: connections, each: connectionOf });
  await pinServer(broker.pid);
  return broker;
}

/** A table of the yardstick's own: a name and a sealed token. Returns its key. */
async function fillYardstick(databaseUrl: string): Promise<string> {
  const key = randomBytes(32);
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await client.query("CREATE TABLE bench_tokens (name text PRIMARY KEY, sealed bytea NOT NULL)");
    const made = Array.from({ length: connections }, (_none, index) => index);
    const sealed = made.map(() => sealFor(key));
    await client.query("INSERT INTO bench_tokens SELECT * FROM unnest($1::text[], $2::bytea[])", [
      made.map(nameOf),
      sealed,
    ]);
    await client.query("ANALYZE bench_tokens");
    await client.query("ANALYZE connections");
  } finally {
    await client.end();
  }
  return key.toString("base64");
}

function sealFor(key: Buffer): Buffer {
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  const ciphertext = Buffer.concat([cipher.update(accessToken), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), ciphertext]);
}
