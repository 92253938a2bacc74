import { randomBytes } from "node:crypto";
import { ConnectedStage } from "../test/support/connected-stage.ts";
import { fillConnections } from "../test/support/filled-connections.ts";
import { query } from "../test/support/query.ts";
import { needServices } from "./services.ts";

/** Connections that are refreshed when they are made due, in every stage that has as many. */
export const sweptCount = 1000;

const stages = new Map<number, Promise<ConnectedStage>>();

/**
 * A broker with so many connections, made once in a run: `read`, whose token is fresh; `sweptCount` that can be refreshed, called `swept-…`; and
 * others that are not due for days. The others are copies that nobody opens: each has a name, an id, and bytes of its own.
 */
export async function filledStage(count: number): Promise<ConnectedStage> {
  const made = stages.get(count) ?? makeStage(count);
  stages.set(count, made);
  return await made;
}

async function makeStage(count: number): Promise<ConnectedStage> {
  await needServices();
  const key = { id: "k1", key: randomBytes(32) };
  const env = { ENCRYPTION_KEYS: `k1:${key.key.toString("base64")}`, LOG_LEVEL: "warn" };
  const stage = await ConnectedStage.start({ env });
  const { databaseUrl, provider, first } = stage;
  await stage.create("read");
  const { accessToken, refreshToken } = provider.issueTokenSet();
  await first.api.importTokens("read", { access_token: accessToken, refresh_token: refreshToken, expires_in: 864_000 });
  const swept = Math.max(0, Math.min(sweptCount, count - 1));
  if (swept === sweptCount) {
    await fillConnections({
      databaseUrl,
      key,
      count: swept,
      each: (index) => ({
        name: `swept-${index}`,
        ...provider.issueTokenSet(),
        expiresInSeconds: 864_000,
        nextRefreshInSeconds: 800_000,
      }),
    });
  }
  await copyConnections(databaseUrl, count - 1 - (swept === sweptCount ? swept : 0));
  await query(databaseUrl, "VACUUM ANALYZE connections");
  return stage;
}

/** Copies of `read` under other names. The indexes are made anew afterwards, which is a third of the work. */
async function copyConnections(databaseUrl: string, count: number): Promise<void> {
  const indexes = await query<{ name: string; definition: string }>(
    databaseUrl,
    `SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
      WHERE indrelid = 'connections'::regclass AND NOT indisunique`,
  );
  for (const { name } of indexes) await query(databaseUrl, `DROP INDEX ${name}`);
  await query(
    databaseUrl,
    `INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, status, enabled_status, generation, version,
       access_token_sealed, refresh_token_sealed, refresh_fingerprint, mac, token_type, issued_at, expires_at, refresh_due_at, next_refresh_at,
       authorized_at, in_use, created_at)
     SELECT gen_random_uuid(), 'shop-' || n || '-orders', provider, client_ref, grant_type, scopes, granted_scopes, status, enabled_status, 1, 1,
       access_token_sealed, refresh_token_sealed, sha256(n::text::bytea), mac, token_type, now(), now() + interval '10 days',
       now() + interval '8 days', now() + interval '8 days' + make_interval(secs => n % 86400), now(), true, now() - make_interval(secs => n)
     FROM (SELECT * FROM connections WHERE name = 'read') c, generate_series(1, ${count}) n`,
  );
  for (const { definition } of indexes) await query(databaseUrl, definition);
}
