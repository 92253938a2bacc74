import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { useDatabase } from "../../support/services/index.ts";
import { queryRows } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, offences, readUntilServed } from "../tools.ts";

const sizes = { full: { connections: 50, replicas: 4 }, short: { connections: 10, replicas: 2 } } as const;
const leaseAndQuietMs = 40_000;
/** A back-off of the first failure, polls of readers, and a machine with other things to do. */
const slackMs = 20_000;

type Attempt = { refreshToken: string; permittedAt: number; isUnknown: boolean };

export const row: Row = {
  number: 4,
  title: "provider stalls past 25 s",
  promised: "unknown outcome; the next send not before lease + quiet period",
  waits: true,
  async run({ scale, log }) {
    const { connections, replicas } = sizes[scale];
    const databaseUrl = await useDatabase();
    await using stage = await ConnectedStage.start({ replicas, databaseUrl });
    const connected = await connectMany(stage, connections);
    const { ledger } = stage.provider;
    stage.provider.hangNext({ times: connections });
    const served = Promise.all(
      stage.brokers.map(async (broker) => {
        await readUntilServed(
          broker,
          connected.map(({ name }) => name),
          leaseAndQuietMs + slackMs,
        );
      }),
    );
    while (ledger.requestsTo("token").length < connections) await sleep(20);
    await sleep(26_000);
    const tokens = new Map(connected.map(({ name, refreshToken }) => [name, refreshToken]));
    const attempts = await readAttempts(databaseUrl, tokens);
    log("every request has been given up");
    await served;

    const waitsMs = attempts.map(({ refreshToken, permittedAt }) => secondSend(stage, refreshToken) - permittedAt);
    const unknown = attempts.filter(({ isUnknown }) => isUnknown).length;
    const soonestMs = Math.min(...waitsMs);
    const { reuses, overlaps } = offences(ledger);
    const sent = ledger.requestsTo("token").length;
    return {
      ok:
        unknown === connections &&
        soonestMs >= leaseAndQuietMs &&
        sent === 2 * connections &&
        ledger.refreshes() === connections &&
        reuses + overlaps === 0,
      figure: `${unknown} of ${connections} outcomes unknown, next sends ${seconds(soonestMs)} to ${seconds(Math.max(...waitsMs))} s after the permit, ${sent - connections} of them, ${overlaps} overlapping`,
    };
  },
};

/** Of every permit that stands in Postgres. */
async function readAttempts(databaseUrl: string, tokens: ReadonlyMap<string, string>): Promise<Attempt[]> {
  const rows = await queryRows<{ name: string; at: Date; outcome: string | null }>(
    databaseUrl,
    "SELECT name, attempt_started_at AS at, attempt_outcome AS outcome FROM connections WHERE attempt_id IS NOT NULL",
  );
  return rows.map(({ name, at, outcome }) => ({
    refreshToken: tokens.get(name) ?? "",
    permittedAt: at.getTime(),
    isUnknown: outcome === "unknown",
  }));
}

/** When the provider got a token for the second time, by its own books. */
function secondSend({ provider }: ConnectedStage, refreshToken: string): number {
  const [, second] = provider.ledger
    .requestsTo("token")
    .filter(({ fields }) => fields["refresh_token"] === refreshToken);
  return second?.inAt ?? 0;
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}
