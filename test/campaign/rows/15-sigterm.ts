import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startPrivatePostgres, useDatabase } from "../../support/services/index.ts";
import { queryRows } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, offences, readUntilServed } from "../tools.ts";

const sizes = { full: 50, short: 15 } as const;
const providerMs = 2000;
const provider = { switches: { delayMs: providerMs } };

export const row: Row = {
  number: 15,
  title: "SIGTERM with 50 refreshes in flight",
  promised:
    "50 stored, 0 aborted sends; with Postgres away and a second SIGTERM: all spooled, and drained by the next start",
  async run({ scale }) {
    const count = sizes[scale];
    const [drained, spooled] = await Promise.all([drain(count), endWithoutPostgres(count)]);
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

/** SIGTERM, once, while all is well. */
async function drain(count: number) {
  const databaseUrl = await useDatabase();
  await using stage = await ConnectedStage.start({ databaseUrl, provider });
  const { calls, names } = await startRefreshes(stage, count);
  const code = await stage.first.stop();
  const served = (await Promise.all(calls)).filter((status) => status === 200).length;
  const stored = await storedOnce(databaseUrl);
  await stage.first.start();
  await readUntilServed(stage.first, names, 10_000);
  return { stored, served, ...booksOf(stage, count, code) };
}

/** Postgres goes while the provider works; SIGTERM comes before its answers, and another one after them. */
async function endWithoutPostgres(count: number) {
  await using postgres = await startPrivatePostgres();
  await using stage = await ConnectedStage.start({ databaseUrl: postgres.url, redisUrl: null, provider });
  const { calls, names } = await startRefreshes(stage, count);
  await postgres.stop();
  const broker = stage.first;
  process.kill(broker.pid, "SIGTERM");
  await sleep(providerMs + 1000);
  const againMs = performance.now();
  process.kill(broker.pid, "SIGTERM");
  const code = await broker.ended();
  const endedAfterMs = Math.round(performance.now() - againMs);
  await Promise.all(calls);
  const files = (await readdir(join(broker.dataDir, "spool"))).length;
  await postgres.restart();
  await broker.start();
  await readUntilServed(broker, names, 10_000);
  const left = (await readdir(join(broker.dataDir, "spool"))).length;
  return { files, left, endedAfterMs, stored: await storedOnce(postgres.url), ...booksOf(stage, count, code) };
}

/** A caller for each connection; resolves when the provider has all requests, and none is answered. */
async function startRefreshes(stage: ConnectedStage, count: number) {
  const names = (await connectMany(stage, count)).map(({ name }) => name);
  const calls = names.map(async (name) => (await stage.first.api.token(name, { wait: 30 }).catch(() => null))?.status);
  while (stage.provider.ledger.requestsTo("token").length < count) await sleep(10);
  return { calls, names };
}

/** What the provider saw, after all has been read again. */
function booksOf({ provider: { ledger } }: ConnectedStage, count: number, code: number | null) {
  const requests = ledger.requestsTo("token");
  const aborted = requests.filter(({ status }) => status === undefined).length;
  const { reuses, overlaps, sentTwice } = offences(ledger);
  const others = requests.length - count;
  return {
    aborted,
    others,
    code,
    wrong: aborted + Math.abs(others) + reuses + overlaps + sentTwice + Number(code !== 0),
  };
}

/** How many connections have moved by one generation since they were imported. */
async function storedOnce(databaseUrl: string): Promise<number> {
  const [stored] = await queryRows<{ count: number }>(
    databaseUrl,
    "SELECT count(*)::int AS count FROM connections WHERE generation = 2 AND attempt_id IS NULL AND expires_at > now()",
  );
  return stored?.count ?? 0;
}
