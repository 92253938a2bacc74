import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import type { Row } from "../row.ts";
import { inBatches, offences } from "../tools.ts";

const sizes = {
  full: { connections: 1000, replicas: 4, aheadSeconds: 60 },
  short: { connections: 60, replicas: 2, aheadSeconds: 6 },
} as const;

export const row: Row = {
  number: 1,
  title: "1,000 connections expiring together, 4 replicas",
  promised: "exactly 1,000 refreshes, 0 `invalid_grant`",
  async run({ scale, log }) {
    const { connections, replicas, aheadSeconds } = sizes[scale];
    await using stage = await ConnectedStage.start({ replicas, provider: { switches: { delayMs: 200 } } });
    const endsAt = new Date(Date.now() + aheadSeconds * 1000);
    const names = await inBatches(connections, 20, async (index) => await importEnding(stage, index, endsAt));
    // Every other one has a reader and is refreshed ahead of it; the others are asked for when they have ended.
    const isWatched = (_name: string, index: number) => index % 2 === 0;
    await readAll(stage, names.filter(isWatched));
    const leftMs = endsAt.getTime() - Date.now();
    if (leftMs < 0) throw new Error(`it took too long to import ${connections} connections`);
    await sleep(leftMs + 50);
    const { ledger } = stage.provider;
    const ahead = ledger.refreshes();
    log(`all have ended, ${ahead} refreshed ahead`);
    const statuses = await readAll(stage, names);

    const refused = statuses.filter((status) => status !== 200).length;
    const invalid = ledger.requestsTo("token").filter(({ status }) => status === 400).length;
    const sent = ledger.requestsTo("token").length;
    const { reuses, overlaps, sentTwice } = offences(ledger);
    return {
      ok:
        sent === connections &&
        ledger.refreshes() === connections &&
        invalid + reuses + overlaps + sentTwice + refused === 0,
      figure: `${ledger.refreshes()} refreshes of ${sent} requests (${ahead} ahead), ${invalid} invalid_grant, ${refused} of ${statuses.length} reads refused`,
    };
  },
};

async function importEnding(stage: ConnectedStage, index: number, endsAt: Date): Promise<string> {
  const name = `acme-${index}`;
  await stage.first.api.createConnection({ name, provider: stage.provider.id, client: "app" });
  const { accessToken: access_token, refreshToken = "" } = stage.provider.issueTokenSet();
  const set = { access_token, refresh_token: refreshToken, expires_at: endsAt.toISOString() };
  await stage.first.api.importTokens(name, set);
  return name;
}

/** Each name at each replica, all at once. @returns the statuses */
async function readAll(stage: ConnectedStage, names: readonly string[]): Promise<number[]> {
  const reads = stage.brokers.flatMap(({ api }) =>
    names.map(async (name) => (await api.token(name, { min_ttl: 0, wait: 30 })).status),
  );
  return await Promise.all(reads);
}
