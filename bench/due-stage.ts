import { request } from "undici";
import { type BrokerOptions, startBroker } from "../test/support/broker-process.ts";
import { fillConnections } from "../test/support/filled-connections.ts";
import { until } from "../test/support/patience.ts";
import { providersFolder } from "../test/support/providers/definition-files.ts";
import { query } from "../test/support/query.ts";
import { useDatabase, useRedis } from "../test/support/services/index.ts";
import { cpuSeconds, pinServer, startBeside } from "./harness.ts";
import { needServices } from "./services.ts";

export const dueConnections = 5000;
const daySeconds = 86_400;

export const nameOf = (index: number): string => `due-${index}`;

export const numberAt = async (url: string): Promise<number> => Number(await (await request(url)).body.text());

/** A broker on Postgres and Redis, thousands of connections with fresh tokens, and a provider that answers at once. */
export async function startDueStage(options: BrokerOptions = {}) {
  await needServices();
  const databaseUrl = await useDatabase();
  const provider = await startBeside("instant-provider.ts");
  const tokenUrl = `${provider.url}/token`;
  const token = { url: tokenUrl, client_auth: "basic", encoding: "form" };
  const definition = { id: "bench", extends: "oauth2", name: "Bench", grants: ["import"], token };
  const broker = await startBroker({
    ...options,
    databaseUrl,
    redisUrl: await useRedis(),
    providersDir: await providersFolder({ definitions: () => [definition] }),
  });
  const { api } = broker;
  await api.createClient({ name: "bench", provider: "bench", client_id: "bench", client_secret: "bench" });
  await api.createConnection({ name: "like", provider: "bench", client: "bench", grant: "import" });
  const [id = "", base64 = ""] = broker.encryptionKeys.split(":");
  await fillConnections({
    databaseUrl,
    key: { id, key: Buffer.from(base64, "base64") },
    count: dueConnections,
    each: (index) => ({
      name: nameOf(index),
      accessToken: "a".repeat(64),
      refreshToken: `first-${index}`,
      expiresInSeconds: daySeconds,
    }),
  });
  await pinServer(broker.pid);
  const sent = async () => await numberAt(`${provider.url}/count`);
  return {
    broker,
    tokenUrl,
    /** Makes all connections due at once and does `work` meanwhile. @returns how many refreshes were sent for each second of the work, and of the broker's CPU */
    async whileDue(work: () => Promise<unknown>): Promise<{ perSecond: number; perCpuSecond: number }> {
      // The servers of the tests do it never by themselves.
      await query(databaseUrl, "VACUUM connections, connection_events, stored_answers");
      const idle = await sent();
      await query(databaseUrl, "UPDATE connections SET next_refresh_at = clock_timestamp()");
      await until("the first refresh", async () => (await sent()) > idle, { everyMs: 5 });
      const [before, cpu, startedMs] = [await sent(), cpuSeconds(broker.pid), performance.now()];
      await work();
      const [after, usedSeconds, tookMs] = [await sent(), cpuSeconds(broker.pid) - cpu, performance.now() - startedMs];
      await query(databaseUrl, "UPDATE connections SET next_refresh_at = NULL WHERE attempt_id IS NULL");
      let last = after;
      await until("the last refreshes have ended", async () => last === (last = await sent()), { everyMs: 500 });
      return { perSecond: (1000 * (after - before)) / tookMs, perCpuSecond: (after - before) / usedSeconds };
    },
    async [Symbol.asyncDispose]() {
      await broker[Symbol.asyncDispose]();
      await provider[Symbol.asyncDispose]();
    },
  };
}
