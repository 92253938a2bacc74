import type { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { sumOfMetric } from "../crash-tools.ts";
import { openGround } from "../fleets.ts";
import { queryRows } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, offences, readUntilServed } from "../tools.ts";

const sizes = { full: { connections: 50, replicas: 4 }, short: { connections: 1, replicas: 2 } } as const;
const leaseAndQuietMs = 40_000;

export const row: Row = {
  number: 4,
  title: "provider stalls past 25 s",
  promised: "unknown outcome; the next send not before lease + quiet period",
  plays: { how: "beside" },
  async run(given) {
    const { connections, replicas } = sizes[given.scale];
    await using ground = await openGround(given, row, { replicas });
    const { stage, databaseUrl } = ground;
    const connected = await connectMany(stage, connections);
    const { ledger } = stage.provider;
    stage.provider.hangNext({ times: connections });
    const names = connected.map(({ name }) => name);
    const served = Promise.all(stage.brokers.map((broker) => readUntilServed(broker, names, { everyMs: 1000 })));
    await until("every request to arrive", () => ledger.requestsTo("token").length >= connections);
    const permittedAt = await readPermits(stage, databaseUrl);
    given.log("every request hangs");
    await served;

    const waitsMs = connected.map(
      ({ name, refreshToken }) => secondSend(stage, refreshToken) - (permittedAt.get(name) ?? Infinity),
    );
    const unknown = await sumOfMetric(stage, "freshet_refresh_uncertain_total", 'resolution="replayed"');
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

/** When each permit was given. It stands from before its request leaves, and a takeover keeps the time. */
async function readPermits({ provider }: ConnectedStage, databaseUrl: string): Promise<Map<string, number>> {
  const rows = await queryRows<{ name: string; at: Date }>(
    databaseUrl,
    `SELECT name, attempt_started_at AS at FROM connections WHERE provider = '${provider.id}' AND attempt_id IS NOT NULL`,
  );
  return new Map(rows.map(({ name, at }) => [name, at.getTime()]));
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
