import { randomUUID } from "node:crypto";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { openPostgres } from "../../src/store/database.ts";
import { openEmbedded } from "../../src/store/embedded.ts";
import { sealedGrant, StoreStage } from "./store/stage.ts";

type Given = { targets: Record<string, { kind: "postgres" | "embedded"; target: string }>; times: string[] };

/** Stores times in a process and databases of another time zone, and prints them as SQL and as JavaScript see them. */
const { targets, times } = JSON.parse(process.argv[2] ?? "") as Given;
const health = createDatabaseHealth(() => 0);
const offset = new Date("2026-01-01").getTimezoneOffset();
const reports: Record<string, object> = {};
for (const [name, given] of Object.entries(targets)) reports[name] = { offset, ...(await storeIn(given)) };
// A session that a pool still has would keep the process for ten seconds.
process.stdout.write(JSON.stringify(reports), () => process.exit());

async function storeIn({ kind, target }: Given["targets"][string]) {
  const open = kind === "postgres" ? openPostgres : openEmbedded;
  const first = await open(target, health);
  const [name] = await first.prisma.$queryRaw<{ name: string }[]>`SELECT current_database()::text AS name`;
  // The embedded database has one user, and reads only the settings of the whole server.
  const scope = kind === "postgres" ? `DATABASE ${name?.name}` : "SYSTEM";
  await first.prisma.$executeRawUnsafe(`ALTER ${scope} SET timezone = 'Europe/Amsterdam'`);
  await first.close();

  const stage = new StoreStage(await open(target, health));
  const zoneSetting =
    kind === "postgres"
      ? `SELECT split_part(setting, '=', 2) AS zone FROM pg_db_role_setting, unnest(setconfig) AS setting
         WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())`
      : "SELECT reset_val AS zone FROM pg_settings WHERE name = 'TimeZone'";
  const [{ zone } = { zone: "" }] = await stage.query<{ zone: string }>(zoneSetting);
  const stored = [];
  for (const time of times) stored.push(await store(stage, new Date(time)));
  const { row } = await stage.permit();
  const [lease] = await stage.query<{ ms: number }>(
    "SELECT (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::float8 AS ms FROM connections WHERE id = $1::uuid",
    row.id,
  );
  await stage.database.close();
  return { zone, stored, leaseMs: lease?.ms, offByMs: Date.now() - row.now.getTime() };
}

/** Each time by a raw statement, as a Prisma value, and as a bound of a list. */
async function store(stage: StoreStage, at: Date) {
  const { id } = await stage.insert();
  const given = { id, generation: 0, goneBackFrom: null, attemptId: randomUUID() };
  const grant = sealedGrant({ issuedAt: at, expiresAt: at, refreshTokenExpiresAt: at });
  await stage.rows.replaceGrant(given, grant, { event: { type: "connected", detail: {} }, exclusive: false });
  await stage.set(id, `created_at = '${at.toISOString()}'`);
  const keyId = randomUUID();
  const ofKey = { id: keyId, name: "zone", abilities: [], connections: [], labels: {}, expiresAt: at };
  await stage.keys.insert({ ...ofKey, secretHash: new Uint8Array(32) }, null);
  const bySql = await stage.query<{ ms: number }>(
    `SELECT (extract(epoch FROM unnest(ARRAY[c.issued_at, c.expires_at, c.refresh_token_expires_at, k.expires_at])) * 1000)::float8 AS ms
     FROM connections c, api_keys k WHERE c.id = $1::uuid AND k.id = $2`,
    id,
    keyId,
  );
  const record = await stage.connections.findById(id);
  const read = await stage.row(id);
  const [found] = await stage.keys.findMany([keyId]);
  const byAdapter = [read.issuedAt, read.expiresAt, record?.createdAt, record?.refreshTokenExpiresAt, found?.expiresAt];
  const after = { createdAt: new Date(at.getTime() + 1), id };
  const [next] = await stage.connections.list({ limit: 1, after }, {}, { patterns: ["%"], labels: {} });
  return {
    bySql: bySql.map(({ ms }) => new Date(ms).toISOString()),
    byAdapter: byAdapter.map((time) => time?.toISOString() ?? null),
    isNextInList: next?.id === id,
  };
}
