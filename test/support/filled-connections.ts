import { randomUUID } from "node:crypto";
import { Client } from "pg";
import { placeOf } from "../../src/tokens/seal.ts";
import { createKeyring } from "../../src/vault/keyring.ts";
import { createTokenVault, type TokenVault } from "../../src/vault/vault.ts";

/** What differs from one connection to the next. Times are seconds from now, by Postgres's clock; null or left out: it has none. */
type FilledConnection = {
  name: string;
  accessToken: string;
  refreshToken?: string | undefined;
  /** The end of its access token, which was issued an hour ago. */
  expiresInSeconds?: number | null;
  /** When the sweeper looks at it. */
  nextRefreshInSeconds?: number | null;
};

type Filling = {
  databaseUrl: string;
  /** The first of the broker's encryption keys. */
  key: { id: string; key: Buffer };
  count: number;
  each: (index: number) => FilledConnection;
};

const inserted = 1000;
const [generation, version] = [3, 3];

/**
 * Thousands of connections a second, each with tokens of its own: copies of the one that is there, written as a broker would have. They count as
 * being read (`in_use`), so that a read notes nothing.
 */
export async function fillConnections({ databaseUrl, key, count, each }: Filling): Promise<void> {
  const vault = createTokenVault(createKeyring([key]));
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const { rows } = await client.query<Template>(
      `SELECT provider, client_ref::text AS "clientRef", grant_type AS grant FROM connections ORDER BY created_at LIMIT 1`,
    );
    const template = rows[0] as Template;
    await client.query("SET synchronous_commit = off");
    let inserting: Promise<unknown> = Promise.resolve();
    for (let from = 0; from < count; from += inserted) {
      const size = Math.min(inserted, count - from);
      const made = Array.from({ length: size }, (_none, at) => sealedRow(vault, template, each(from + at)));
      // Postgres inserts these while the next ones are sealed.
      await inserting;
      inserting = client.query(
        `INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, status, enabled_status,
           generation, version, access_token_sealed, refresh_token_sealed, refresh_fingerprint, mac, token_type, issued_at,
           expires_at, refresh_due_at, next_refresh_at, authorized_at, in_use)
         SELECT m.id, m.name, $1, $2::uuid, $3, '{}', '{}', 'connected', 'connected', $4, $5, m.access, m.refresh, m.fingerprint, m.mac,
           'Bearer', now() - interval '1 h', now() + make_interval(secs => m.expires), now() + make_interval(secs => m.due),
           now() + make_interval(secs => m.due), now() - interval '1 h', true
         FROM unnest($6::uuid[], $7::text[], $8::bytea[], $9::bytea[], $10::bytea[], $11::text[], $12::float8[], $13::float8[])
           AS m(id, name, access, refresh, fingerprint, mac, expires, due)`,
        [template.provider, template.clientRef, template.grant, generation, version, ...columnsOf(made)],
      );
      inserting.catch(() => undefined); // it is awaited in the next round
      await new Promise(setImmediate);
    }
    await inserting;
  } finally {
    await client.end();
  }
}

type Template = { provider: string; clientRef: string; grant: string };
type SealedRow = ReturnType<typeof sealedRow>;

function columnsOf(rows: readonly SealedRow[]): unknown[][] {
  const columns = ["id", "name", "access", "refresh", "fingerprint", "mac", "expires", "due"] as const;
  return columns.map((column) => rows.map((row) => row[column]));
}

function sealedRow(vault: TokenVault, { provider, clientRef, grant }: Template, given: FilledConnection) {
  const { name, accessToken, refreshToken = null, expiresInSeconds = null, nextRefreshInSeconds = null } = given;
  const id = randomUUID();
  const none = { inputsInForce: {}, captured: {}, accountCaptured: {} };
  const bound = { id, name, parentId: null, provider, clientRef, ...none };
  const sealed = vault.sealTokens({ accessToken, refreshToken }, placeOf({ ...bound, generation }));
  const people = { scopes: [], inputs: {}, labels: {}, credentialsRevision: 0 };
  return {
    id,
    name,
    access: bytes(sealed.accessToken),
    refresh: bytes(sealed.refreshToken),
    fingerprint: bytes(refreshToken === null ? null : vault.fingerprint(refreshToken, clientRef)),
    mac: vault.connections.sign({ ...bound, ...people, chain: null, grant, status: "connected" }),
    expires: expiresInSeconds,
    due: nextRefreshInSeconds,
  };
}

/** As the client takes it in a list. */
const bytes = (value: Uint8Array | null) => (value === null ? null : Buffer.from(value));
