import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import type { Row } from "../row.ts";
import { inBatches, offences } from "../tools.ts";

const sizes = {
  full: { connections: 1000, replicas: 4, aheadSeconds: 60 },
  short: { connections: 60, replicas: 2, aheadSeconds: 20 },
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
    await readAll(
      stage,
      names.filter((_, index) => index % 2 === 0),
    );
    const leftMs = endsAt.getTime() - Date.now();
    if (leftMs < 0) throw new Error(`it took too long to import ${connections} connections`);
    await sleep(leftMs + 50);
    const { ledger } = stage.provider;
    const ahead = ledger.refreshes();
    log(`all have ended, ${ahead} refreshed ahead`);
    const answers = await readAll(stage, names);

    const refused = answers.filter((answer) => answer !== "200");
    const invalid = ledger.requestsTo("token").filter(({ status }) => status === 400).length;
    const sent = ledger.requestsTo("token").length;
    const { reuses, overlaps, sentTwice } = offences(ledger);
    return {
      ok:
        sent === connections &&
        ledger.refreshes() === connections &&
        invalid + reuses + overlaps + sentTwice + refused.length === 0,
      figure: `${ledger.refreshes()} refreshes of ${sent} requests (${ahead} ahead), ${invalid} invalid_grant, ${refused.length} of ${answers.length} reads refused`,
      notes: [...new Set(refused)].map((answer) => `${refused.filter((each) => each === answer).length} × ${answer}`),
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

/** Each name at each replica, all at once. @returns each status, with the code of a refusal */
async function readAll(stage: ConnectedStage, names: readonly string[]): Promise<string[]> {
  const reads = stage.brokers.flatMap(({ api }) =>
    names.map(async (name) => {
      const { status, body } = await api.token(name, { min_ttl: 0, wait: 30 });
      return status === 200 ? "200" : `${status} ${body.code} ${body.detail}`;
    }),
  );
  return await Promise.all(reads);
}
