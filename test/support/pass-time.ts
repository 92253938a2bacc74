import type { BrokerApi } from "./broker-api.ts";
import { until } from "./patience.ts";
import { query } from "./query.ts";

/** Requests whose answer a caller may have, and that is not stored yet: it will be stored with the times of now. */
const underWay = `SELECT count(*)::int AS count FROM connections
  WHERE attempt_id IS NOT NULL AND attempt_outcome IS NULL AND lease_until > clock_timestamp()
    AND ($1::text[] IS NULL OR split_part(name, '#', 1) = ANY ($1))`;

const age = `UPDATE connections SET
  issued_at = issued_at - make_interval(secs => $1), expires_at = expires_at - make_interval(secs => $1)
  WHERE issued_at IS NOT NULL AND ($2::text[] IS NULL OR split_part(name, '#', 1) = ANY ($2))
  RETURNING split_part(name, '#', 1) AS name`;

/**
 * As if so much time had passed since the tokens of all connections, or of those that are named, were issued: nobody has to wait
 * for the end of a life, and no life has to be so short that a slow machine misses it. Clocks and what is due stay as they are.
 */
export async function passTime(
  seconds: number,
  { databaseUrl, apis, names = null }: { databaseUrl: string; apis: readonly BrokerApi[]; names?: string[] | null },
): Promise<void> {
  await until("nothing is on its way any more", async () => {
    const [row] = await query<{ count: number }>(databaseUrl, underWay, [names]);
    return row?.count === 0;
  });
  const aged = await query<{ name: string }>(databaseUrl, age, [seconds, names]);
  // A replica trusts its memory of a row for some seconds. A change that it makes itself brings its memory up to date.
  for (const api of apis) {
    for (const name of new Set(aged.map((row) => row.name))) await api.changeConnection(name, { labels: {} });
  }
}
