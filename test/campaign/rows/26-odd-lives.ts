import type { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { openGround } from "../fleets.ts";
import { queryRows } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, wasSent } from "../tools.ts";

const tenYearsSeconds = 10 * 365 * 86_400;
/** How long a token without a stated life counts as valid, unless its definition says otherwise. */
const unstatedSeconds = 3600;

/** What stands for `expires_in` in the answer's JSON, if anything; and how long the token counts as living, in seconds. */
const cases: readonly { json: string | null; lifeSeconds: number }[] = [
  { json: null, lifeSeconds: unstatedSeconds },
  { json: "null", lifeSeconds: unstatedSeconds },
  { json: '""', lifeSeconds: unstatedSeconds },
  { json: '"NaN"', lifeSeconds: unstatedSeconds },
  { json: '"soon"', lifeSeconds: unstatedSeconds },
  { json: "{}", lifeSeconds: unstatedSeconds },
  { json: "[7200]", lifeSeconds: unstatedSeconds },
  { json: "true", lifeSeconds: unstatedSeconds },
  { json: '"3600"', lifeSeconds: 3600 },
  { json: '" 7200 "', lifeSeconds: 7200 },
  { json: "7200.9", lifeSeconds: 7200 },
  { json: "-1", lifeSeconds: 0 },
  { json: '"-1"', lifeSeconds: 0 },
  { json: "0", lifeSeconds: 0 },
  { json: "-1e308", lifeSeconds: 0 },
  { json: "1e308", lifeSeconds: tenYearsSeconds },
  { json: "1e999", lifeSeconds: tenYearsSeconds },
  { json: '"Infinity"', lifeSeconds: tenYearsSeconds },
  { json: "9007199254740993", lifeSeconds: tenYearsSeconds },
];

type Stored = { lifeSeconds: number; generation: number };

export const row: Row = {
  number: 26,
  title: '`expires_in` absent, "3600", -1, 1e308, null',
  promised: "refresh token stored every time, sane expiry",
  plays: { how: "beside" },
  async run(given) {
    const rounds = given.scale === "full" ? 10 : 1;
    await using ground = await openGround(given, row, { replicas: 1 });
    const { stage, databaseUrl } = ground;
    const connections = await connectMany(stage, cases.length * rounds);
    const problems: string[] = [];
    for (const [index, { name, refreshToken }] of connections.entries()) {
      const { json, lifeSeconds } = cases[index % cases.length] as (typeof cases)[number];
      await refreshWith(stage, { name, json, refreshToken });
      const stored = await storedOf(databaseUrl, name);
      const isRight = stored.generation === 2 && stored.lifeSeconds === lifeSeconds;
      if (!isRight) problems.push(`expires_in ${json ?? "absent"}: ${JSON.stringify(stored)}`);
    }
    // A token that has expired when it is issued is not refreshed at once. This makes that time pass.
    await queryRows(databaseUrl, `UPDATE connections SET backoff_until = NULL WHERE provider = '${stage.provider.id}'`);
    const lost = await inBatches(connections.length, 10, async (index) => {
      const { name = "", refreshToken = "" } = connections[index] ?? {};
      await stage.first.api.api(`/connections/${name}/refresh`, { method: "POST" });
      return stage.provider.ledger
        .requestsTo("token")
        .every(({ fields }) => fields["refresh_token"] !== `next-${refreshToken}`);
    });
    const lostCount = lost.filter(Boolean).length;
    return {
      ok: problems.length + lostCount === 0,
      figure: `${connections.length - lostCount} of ${connections.length} refresh tokens stored, ${problems.length} expiries other than documented, ${cases.length} kinds of answer`,
      notes: problems,
    };
  },
};

/** One refresh whose answer has this in it. */
async function refreshWith(
  { first, provider }: ConnectedStage,
  { name, json, refreshToken }: { name: string; json: string | null; refreshToken: string },
) {
  const tokens = `"access_token":"access-${name}","refresh_token":"next-${refreshToken}","token_type":"Bearer"`;
  const body = json === null ? `{${tokens}}` : `{${tokens},"expires_in":${json}}`;
  provider.failNext({ status: 200, body, headers: { "content-type": "application/json" } });
  await until(`an answer for ${name}`, async () => {
    await first.api.token(name, { wait: 30 });
    return wasSent(provider.ledger, refreshToken);
  });
}

async function storedOf(databaseUrl: string, name: string): Promise<Stored> {
  const [stored] = await queryRows<Stored>(
    databaseUrl,
    `SELECT extract(epoch FROM expires_at - issued_at)::float AS "lifeSeconds", generation FROM connections WHERE name = '${name}'`,
  );
  return stored ?? { lifeSeconds: NaN, generation: 0 };
}
