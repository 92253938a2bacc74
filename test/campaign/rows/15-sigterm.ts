import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { startPrivatePostgres } from "../../support/services/index.ts";
import { type Ground, openGround } from "../fleets.ts";
import { queryRows } from "../query-rows.ts";
import type { Given, Row } from "../row.ts";
import { type Connected, connectMany, offences, readUntilServed, wasSent } from "../tools.ts";

const sizes = { full: 50, short: 5 } as const;

export const row: Row = {
  number: 15,
  title: "SIGTERM with 50 refreshes in flight",
  promised:
    "50 stored, 0 aborted sends; with Postgres away and a second SIGTERM: all spooled, and drained by the next start",
  plays: { how: "in turn" },
  async run(given) {
    const count = sizes[given.scale];
    const [drained, spooled] = given.scale === "full" ? await playBoth(given, count) : await playInTurn(given, count);
    return {
      ok:
        drained.stored === count &&
        drained.served === count &&
        spooled.files === count &&
        spooled.stored === count &&
        drained.wrong + spooled.wrong === 0,
      figure: `${drained.stored} of ${count} stored, ${drained.served} callers answered with a token, ${drained.aborted} aborted sends; without Postgres ${spooled.files} of ${count} spooled and ${spooled.stored} stored by the next start, ${spooled.aborted} aborted sends`,
      notes: [JSON.stringify({ drained, spooled })],
    };
  },
};

type Scene = Pick<Ground, "stage" | "databaseUrl" | "postgres">;

async function playBoth(given: Given, count: number) {
  const playDrain = async () => {
    await using ground = await openGround(given, row, { replicas: 1 });
    return await drain(ground, count);
  };
  const playEnd = async () => {
    await using postgres = await startPrivatePostgres();
    await using stage = await ConnectedStage.start({ databaseUrl: postgres.url, redisUrl: null });
    return await endWithoutPostgres({ stage, databaseUrl: postgres.url, postgres }, count);
  };
  return await Promise.all([playDrain(), playEnd()]);
}

/** The peer stands still, so that nobody but the next start stores what is spooled. */
async function playInTurn(given: Given, count: number) {
  await using ground = await openGround(given, row);
  const drained = await drain(ground, count);
  const [, peer] = ground.stage.brokers;
  peer?.freeze();
  const spooled = await endWithoutPostgres(ground, count);
  peer?.thaw();
  return [drained, spooled] as const;
}

/** SIGTERM, once, while all is well. */
async function drain({ stage, databaseUrl }: Scene, count: number) {
  const { calls, connections, release } = await startRefreshes(stage, { count, prefix: "drained" });
  const ended = stage.first.stop();
  await until("the broker to drain", () => isDraining(stage.first));
  release();
  const code = await ended;
  const served = (await Promise.all(calls)).filter((status) => status === 200).length;
  const stored = await storedOnce(databaseUrl, connections);
  await stage.first.start();
  await readUntilServed(
    stage.first,
    connections.map(({ name }) => name),
  );
  return { stored, served, ...booksOf(stage, connections, code) };
}

/** Postgres goes while the provider works; SIGTERM comes before its answers, and another one after them. */
async function endWithoutPostgres({ stage, databaseUrl, postgres }: Scene, count: number) {
  const { calls, connections, release } = await startRefreshes(stage, { count, prefix: "spooled" });
  const broker = stage.first;
  const spooled = async () => (await spooledFiles(broker)).length;
  await postgres.stop();
  process.kill(broker.pid, "SIGTERM");
  await until("the broker to drain", () => isDraining(broker));
  release();
  await until("an answer to each request", () => requestsFor(stage, connections).every(({ status }) => status === 200));
  await until("the answers to be spooled", async () => (await spooled()) >= count);
  const code = await broker.stop();
  await Promise.all(calls);
  const files = await spooled();
  await postgres.restart();
  await broker.start();
  await readUntilServed(
    broker,
    connections.map(({ name }) => name),
  );
  await until("the spool to be empty", async () => (await spooled()) === 0);
  return { files, stored: await storedOnce(databaseUrl, connections), ...booksOf(stage, connections, code) };
}

/** A caller for each connection; resolves when the provider has all requests, and none is answered before `release`. */
async function startRefreshes(stage: ConnectedStage, { count, prefix }: { count: number; prefix: string }) {
  const connections = await connectMany(stage, count, prefix);
  const release = stage.provider.holdTokens();
  const call = async ({ name, refreshToken }: Connected) => {
    const { status } = await until(`an answer for ${name}`, async () => {
      const reply = await stage.first.api.token(name, { wait: 30 }).catch(() => null);
      const isOver = reply === null || reply.status === 200 || wasSent(stage.provider.ledger, refreshToken);
      return isOver && { status: reply?.status };
    });
    return status;
  };
  const calls = connections.map(call);
  await until("every request to arrive", () => requestsFor(stage, connections).length >= count);
  return { calls, connections, release };
}

/** Whole files only: a half-written one does not count, and may be left if a process ends while it writes. */
async function spooledFiles({ dataDir }: BrokerProcess): Promise<string[]> {
  const files = await readdir(join(dataDir, "spool")).catch(() => []);
  return files.filter((name) => !name.endsWith(".part"));
}

/** The broker answers that it is not ready, or accepts no calls any more. */
async function isDraining({ api }: BrokerProcess): Promise<boolean> {
  return await api.api("/readyz").then(
    ({ status }) => status === 503,
    () => true,
  );
}

function requestsFor({ provider: { ledger } }: ConnectedStage, connections: readonly Connected[]) {
  const families = new Set(connections.map(({ family }) => family));
  return ledger
    .requestsTo("token")
    .filter(({ fields }) => families.has(ledger.familyOf(fields["refresh_token"] ?? "") ?? ""));
}

/** What the provider saw, after all has been read again. */
function booksOf(stage: ConnectedStage, connections: readonly Connected[], code: number | null) {
  const requests = requestsFor(stage, connections);
  const aborted = requests.filter(({ status }) => status === undefined).length;
  const { reuses, overlaps, sentTwice } = offences(stage.provider.ledger);
  const others = requests.length - connections.length;
  return {
    aborted,
    others,
    code,
    wrong: aborted + Math.abs(others) + reuses + overlaps + sentTwice + Number(code !== 0),
  };
}

/** How many connections have moved by one generation since they were imported. */
async function storedOnce(databaseUrl: string, connections: readonly Connected[]): Promise<number> {
  const names = connections.map(({ name }) => `'${name}'`).join(", ");
  const rows = await queryRows(
    databaseUrl,
    `SELECT 1 AS one FROM connections
      WHERE name IN (${names}) AND generation = 2 AND attempt_id IS NULL AND expires_at > now()`,
  );
  return rows.length;
}
