import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { placeOf } from "../../../src/tokens/seal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault, type TokenVault } from "../../../src/vault/vault.ts";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { fillConnections } from "../../support/filled-connections.ts";
import { until } from "../../support/patience.ts";
import { seededRandom } from "../../support/seeded-random.ts";
import { startLoad } from "../load.ts";
import { queryRows, seldom } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, offences } from "../tools.ts";

const sizes = {
  full: { dormant: 100_000, live: 300, perSecond: 50, kills: 5, delayMs: 20, measuredMs: 10_000 },
  short: { dormant: 600, live: 40, perSecond: 20, kills: 2, delayMs: 300, measuredMs: 2000 },
} as const;

const [old, next] = ["k1", "k2"].map((id) => ({ id, key: randomBytes(32) })) as [Key, Key];
type Key = { id: string; key: Buffer };
const list = (...keys: Key[]) => keys.map(({ id, key }) => `${id}:${key.toString("base64")}`).join(",");

/** Nobody reads most connections. A rotation moves them while the others are read, refreshed, and their brokers killed. */
export const row: Row = {
  number: 37,
  title:
    "100,000 connections to another encryption key, under refreshes; 3 replicas with changing lists, killed 5 times",
  promised: "0 failures, 0 stale overwrites, then a start without the old key",
  onlyFull: "it starts three brokers four times; test/integration/rotation replaces a key so, with one kill",
  async run({ seed, scale, log }) {
    const { dormant, live, perSecond, kills, delayMs, measuredMs } = sizes[scale];
    const provider = { switches: { accessLifeSeconds: 120, reuse: "grace", graceSeconds: 600 } } as const;
    const env = { ENCRYPTION_KEYS: list(old), LOG_LEVEL: "warn" };
    await using stage = await ConnectedStage.start({ replicas: 3, provider, env, each: () => ({ failpoints: {} }) });
    const { brokers, databaseUrl } = stage;
    const names = (await connectMany(stage, live)).map(({ name }) => name);
    await fillConnections({ databaseUrl, key: old, count: dormant, each: dormantConnection });
    log(`${dormant} connections that nobody reads, ${live} that are read`);
    const random = seededRandom(seed);
    const failures: string[] = [];
    const load = startLoad(perSecond, async (index) => await read({ brokers, name: names[index % live] ?? "", index }));
    const { ledger } = stage.provider;
    const order = async (index: number) => await orderRefresh(brokers, names[index % live] ?? "", index);
    const possible = await refreshesPerSecond({ ledger, order, live, measuredMs });
    log(`${possible.toFixed(0)} refreshes a second are possible; half of that from here on`);
    const [refreshesBefore, loadBeganMs] = [ledger.refreshes(), performance.now()];
    let underWay = 0;
    // A refresh whose broker was killed is taken over when its lease is over. Until then its connection has its token.
    const refreshing = startLoad(possible / 2, async (index) => {
      if (underWay >= live) return 0;
      underWay += 1;
      return await order(index).finally(() => (underWay -= 1));
    });
    const restart = async (broker: BrokerProcess, keys: string) => {
      const code = await broker.stop(scale === "full" ? "SIGTERM" : "SIGINT");
      if (code !== 0) failures.push(`a replica ended with ${code}`);
      broker.change({ ENCRYPTION_KEYS: keys });
      await broker.start();
    };
    for (const keys of [list(old, next), list(next, old)]) for (const broker of brokers) await restart(broker, keys);
    await until("all seal with the new key", async () => await sealWith(databaseUrl, next.id), seldom);

    for (const broker of brokers) broker.setFailpoints({ "rows moved": { action: "delay", delayMs } });
    const begunMs = performance.now();
    const begin = async () => await stage.first.api.api("/encryption/rotate", { method: "POST", body: {} });
    await until("the rotation is begun", async () => (await begin()).status === 202, seldom);
    for (let kill = 1; kill <= kills; kill++) {
      const moved = Math.floor(((kill - 0.5 + random() / 2) / (kills + 1)) * dormant);
      await until(`${moved} rows are moved`, async () => (await progress(databaseUrl)).moved >= moved, { everyMs: 50 });
      const worker = await workerOf(databaseUrl, brokers);
      await worker.kill();
      log(`killed the worker after ${(await progress(databaseUrl)).moved} rows`);
      await sleep(random() * 1000);
      await worker.start();
    }
    for (const broker of brokers) broker.setFailpoints({});
    await until("the rotation is finished", async () => (await progress(databaseUrl)).isFinished, seldom);
    const seconds = Math.round((performance.now() - begunMs) / 1000);
    const { forgotten, unopened } = await progress(databaseUrl);
    // Tokens that were written over newer ones are sealed for another generation than their row's.
    const stale = await unopenedRows(databaseUrl, createTokenVault(createKeyring([next])));
    for (const broker of brokers) await restart(broker, list(next));
    const refreshes = ledger.refreshes() - refreshesBefore;
    const rate = (refreshes * 1000) / (performance.now() - loadBeganMs);
    const served = await inBatches(live, 10, async (index) => await read({ brokers, name: names[index] ?? "", index }));
    await refreshing.stop();
    await load.stop();
    const failed = load.samples.filter((sample) => sample.status !== 200).length;
    const unserved = served.filter((each) => each !== 200).length;
    const { reuses } = offences(ledger);
    const isDone = forgotten.join() === old.id && unopened === 0;
    return {
      ok: isDone && failed + unserved + stale.length + failures.length + reuses === 0 && refreshes > live,
      figure: `${dormant + live} connections in ${seconds} s, ${kills} kills, ${load.samples.length} reads and ${refreshes} refreshes meanwhile (${rate.toFixed(0)} a second, ${possible.toFixed(0)} are possible without a rotation): ${failed} reads failed, ${stale.length} stale; without the old key ${live - unserved} of ${live} are served`,
      notes: [
        ...failures,
        ...stale.slice(0, 10),
        `forgotten: ${forgotten.join()}; unopened: ${unopened}; reuses: ${reuses}`,
      ],
    };
  },
};

/** At a broker that runs. One that has just begun to stop answers without a code. @returns the status; 0: at none */
async function read({
  brokers,
  name,
  index,
}: {
  brokers: readonly BrokerProcess[];
  name: string;
  index: number;
}): Promise<number> {
  for (let turn = 0; turn < brokers.length * 20; turn++) {
    const broker = brokers[(index + turn) % brokers.length] as BrokerProcess;
    const answer = await broker.api.token(name, { min_ttl: 0 }).catch(() => null);
    if (answer !== null && !(answer.status === 503 && answer.body.code === undefined)) return answer.status;
    await sleep(100);
  }
  return 0;
}

/** Orders a refresh; whether it comes to something decides nothing. */
async function orderRefresh(brokers: readonly BrokerProcess[], name: string, index: number): Promise<number> {
  const broker = brokers[index % brokers.length] as BrokerProcess;
  return (await broker.api.api(`/connections/${name}/refresh`, { method: "POST" })).status;
}

/** How many refreshes these brokers do a second while each connection is refreshed as soon as it has been. */
async function refreshesPerSecond({
  ledger,
  order,
  live,
  measuredMs,
}: {
  ledger: { refreshes: () => number };
  order: (index: number) => Promise<number>;
  live: number;
  measuredMs: number;
}): Promise<number> {
  const [before, beganMs] = [ledger.refreshes(), performance.now()];
  const passedMs = () => performance.now() - beganMs;
  const orderOn = async (first: number) => {
    for (let index = first; passedMs() < measuredMs; index += live) await order(index).catch(() => 0);
  };
  await Promise.all(Array.from({ length: live }, (_none, first) => orderOn(first)));
  return ((ledger.refreshes() - before) * 1000) / passedMs();
}

const dormantConnection = (index: number) => ({
  name: `dormant-${index}`,
  accessToken: `a ${index}`,
  refreshToken: `r ${index}`,
});

async function sealWith(databaseUrl: string, keyId: string): Promise<boolean> {
  const rows = await queryRows<{ key: string | null }>(
    databaseUrl,
    "SELECT current_key AS key FROM replicas WHERE left_at IS NULL",
  );
  return rows.length === 3 && rows.every(({ key }) => key === keyId);
}

async function progress(databaseUrl: string) {
  const [found] = await queryRows<{ moved: number; isFinished: boolean; forgotten: string[]; unopened: number }>(
    databaseUrl,
    `SELECT moved, finished_at IS NOT NULL AS "isFinished", forgotten, jsonb_array_length(unopened) AS unopened FROM rotations`,
  );
  return found ?? { moved: 0, isFinished: false, forgotten: [], unopened: 0 };
}

/** Whoever has the rotation. If it has given it back, whoever takes it next. */
async function workerOf(databaseUrl: string, brokers: readonly BrokerProcess[]): Promise<BrokerProcess> {
  let found: BrokerProcess | undefined;
  await until(
    "somebody works on the rotation",
    async () => {
      const [worker] = await queryRows<{ name: string }>(
        databaseUrl,
        "SELECT r.name FROM rotations o JOIN replicas r ON r.id = o.worker WHERE o.finished_at IS NULL",
      );
      found = brokers.find(({ url }) => worker?.name.endsWith(new URL(url).port));
      return found !== undefined;
    },
    seldom,
  );
  return found as BrokerProcess;
}

/** Names of connections whose tokens do not open, read in parts. */
async function unopenedRows(databaseUrl: string, vault: TokenVault): Promise<string[]> {
  const bad: string[] = [];
  for (let after = "00000000-0000-0000-0000-000000000000"; ;) {
    const rows = await queryRows<Sealed>(
      databaseUrl,
      `SELECT id::text, name, parent_id::text AS "parentId", provider, client_ref::text AS "clientRef", generation, captured,
         account_captured AS "accountCaptured", inputs AS "inputsInForce", access_token_sealed AS access, refresh_token_sealed AS refresh
       FROM connections WHERE id > '${after}' ORDER BY id LIMIT 5000`,
    );
    for (const one of rows) {
      try {
        if (one.access !== null) vault.openAccessToken(one.access, placeOf(one));
        if (one.refresh !== null) vault.openRefreshToken(one.refresh, placeOf(one));
      } catch {
        bad.push(one.name);
      }
    }
    const last = rows.at(-1);
    if (last === undefined) return bad;
    after = last.id;
  }
}

type Sealed = Parameters<typeof placeOf>[0] & { access: Uint8Array | null; refresh: Uint8Array | null };
