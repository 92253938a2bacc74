import type { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import { openGround } from "../fleets.ts";
import { queryRows, seldom } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { inBatches, offences } from "../tools.ts";

const sizes = {
  full: { connections: 1000, replicas: 4, aheadSeconds: 30 },
  short: { connections: 24, replicas: 2, aheadSeconds: 5 },
} as const;

export const row: Row = {
  number: 1,
  title: "1,000 connections expiring together, 4 replicas",
  promised: "exactly 1,000 refreshes, 0 `invalid_grant`",
  plays: { how: "beside", provider: ({ id }) => new GenericProvider({ id, switches: { delayMs: 200 } }) },
  async run(given) {
    const { connections, replicas, aheadSeconds } = sizes[given.scale];
    await using ground = await openGround(given, row, { replicas });
    const { stage, databaseUrl } = ground;
    const names = await inBatches(connections, 20, async (index) => await importLiving(stage, index));
    // Every other one has a reader and is refreshed ahead of its end; the others are asked for when they have ended.
    const ofReaders = names.filter((_, index) => index % 2 === 0);
    await Promise.all(ofReaders.map((name) => stage.first.api.token(name)));
    const countNow = async (condition: string) => await countOf(stage, databaseUrl, condition);
    await until("the reads to be noted", async () => (await countNow("in_use")) === ofReaders.length, seldom);
    await endTogether(stage, databaseUrl, aheadSeconds);
    const haveEnded = async () => (await countNow("generation = 1 AND expires_at > now()")) === 0;
    await until("all to end, or to be refreshed ahead", haveEnded, seldom);
    const { ledger } = stage.provider;
    const ahead = ledger.refreshes();
    given.log(`all have ended, ${ahead} refreshed ahead`);
    const late = await readAll(stage, names);

    const invalid = ledger.requestsTo("token").filter(({ status }) => status === 400).length;
    const sent = ledger.requestsTo("token").length;
    const { reuses, overlaps, sentTwice } = offences(ledger);
    return {
      ok: sent === connections && ledger.refreshes() === connections && invalid + reuses + overlaps + sentTwice === 0,
      figure: `${ledger.refreshes()} refreshes of ${sent} requests (${ahead} ahead), ${invalid} invalid_grant, ${late.length} of ${names.length * stage.brokers.length} reads had to be repeated`,
      notes: [...new Set(late)].map((answer) => `${late.filter((each) => each === answer).length} × ${answer}`),
    };
  },
};

async function importLiving({ first, provider, client }: ConnectedStage, index: number): Promise<string> {
  const name = `${provider.id}-${index}`;
  await first.api.createConnection({ name, provider: provider.id, client });
  const { accessToken: access_token, refreshToken = "" } = provider.issueTokenSet();
  await first.api.importTokens(name, { access_token, refresh_token: refreshToken, expires_in: 3600 });
  return name;
}

async function countOf({ provider }: ConnectedStage, databaseUrl: string, condition: string): Promise<number> {
  const text = `SELECT count(*)::int AS count FROM connections WHERE provider = '${provider.id}' AND ${condition}`;
  return (await queryRows<{ count: number }>(databaseUrl, text))[0]?.count ?? 0;
}

/** Makes all of them end at one moment, so many seconds from now, however long their import took. Those in use are due. */
async function endTogether({ provider }: ConnectedStage, databaseUrl: string, seconds: number): Promise<void> {
  const text = `UPDATE connections SET issued_at = now() - interval '1 hour', expires_at = now() + interval '${seconds} seconds',
      refresh_due_at = now(), next_refresh_at = CASE WHEN in_use THEN now() ELSE next_refresh_at END
    WHERE provider = '${provider.id}'`;
  await queryRows(databaseUrl, text);
}

/** Reads each name at each replica, all at once, until all have the next version. @returns what came instead, where it was not the first answer */
async function readAll(stage: ConnectedStage, names: readonly string[]): Promise<string[]> {
  const late: string[] = [];
  const readOne = async ({ api }: (typeof stage.brokers)[number], name: string) => {
    let answers = 0;
    await until(`the next version of ${name}`, async () => {
      const { status, body } = await api.token(name, { min_ttl: 0, wait: 30 });
      const isNext = status === 200 && body.version === 2;
      const isLate = answers++ === 0 && !isNext;
      if (isLate) late.push(status === 200 ? `200, version ${body.version}` : `${status} ${body.code}`);
      return isNext;
    });
  };
  await Promise.all(stage.brokers.flatMap((broker) => names.map((name) => readOne(broker, name))));
  return late;
}
