import { randomBytes, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { createConnections } from "../../src/store/connections.ts";
import { type Database, deafHealth, openPostgres } from "../../src/store/database.ts";
import type { SealedGrant } from "../../src/store/row-sql.ts";
import type { TokenRow } from "../../src/store/token-row.ts";
import { createTokenStatements } from "../../src/store/token-statements.ts";
import { nextGeneration } from "../../src/store/token-row.ts";
import { placeOf } from "../../src/tokens/seal.ts";
import { createKeyring } from "../../src/vault/keyring.ts";
import { createTokenVault, type TokenVault } from "../../src/vault/vault.ts";
import { startPrivatePostgres } from "../../test/support/services/index.ts";
import { type BenchCase, format } from "../harness.ts";
import { needServices } from "../services.ts";

const connections = Number(process.env["BENCH_SIZE_CONNECTIONS"] ?? 3000);
const refreshes = 10;
const tokenBytes = 1024;
/** Postgres looks for tables to vacuum every second here, instead of every minute. So this is what a life of 20 minutes is in 60 times the time. */
const secondsPerRound = 20;
const atOnce = 6;

/**
 * All connections are claimed, permitted and committed by the store's own statements, ten times, with tokens of their own that nothing compresses.
 * They are spread over the round, as they are where they were connected at different times, and Postgres vacuums by the table's own settings meanwhile.
 */
export const size: BenchCase = {
  name: "size",
  number: 10,
  title: `the table of connections with its indexes and TOAST, after ${refreshes} refreshes of each of ${connections}, events apart; two tokens of 1 KB`,
  yardstick: "the sealed payload: both sealed tokens of each connection",
  aim: { atMost: 2 },
  unit: "bytes per connection",
  async run({ log }) {
    await needServices();
    await using server = await startPrivatePostgres({ vacuums: true });
    const database = await openPostgres(server.url, deafHealth);
    try {
      const vault = createTokenVault(createKeyring([{ id: "k1", key: randomBytes(32) }]));
      const rows = createTokenStatements(database);
      const all = await eachAtOnce(
        Array.from({ length: connections }),
        async (_none, at) => await connect({ database, vault, rows }, at),
      );
      for (let round = 1; round <= refreshes; round++) {
        const beganMs = performance.now();
        await eachAtOnce(all, async (row, at) => {
          const dueMs = beganMs + (at / connections) * secondsPerRound * 1000 - performance.now();
          if (dueMs > 0) await sleep(dueMs);
          all[at] = await refresh({ vault, rows }, row);
        });
        const { total } = await sizeOf(database);
        log(
          `${round} of ${refreshes}: ${format(total)} bytes per connection, after ${((performance.now() - beganMs) / 1000).toFixed(0)} s`,
        );
      }
      const { total, heap, toast, indexes, payload, vacuums } = await sizeOf(database);
      const rest = await tightSizeOf(database);
      return {
        ours: [total],
        yardstick: [payload],
        notes: [
          `rows ${format(heap)}, TOAST ${format(toast)}, indexes ${format(indexes)}; without any room for new rows it would be ${format(rest)}`,
          `autovacuum has been there ${vacuums} times`,
        ],
      };
    } finally {
      await database.close();
    }
  },
};

type Parts = { vault: TokenVault; rows: ReturnType<typeof createTokenStatements> };

async function connect({ database, vault, rows }: Parts & { database: Database }, at: number): Promise<TokenRow> {
  const id = randomUUID();
  const given = {
    id,
    name: `shop-${at}-orders`,
    provider: "sandbox",
    client: null,
    grant: "authorization_code",
    scopes: ["orders"],
    inputs: {},
    labels: {},
    credentials: null,
  };
  await createConnections(database, vault).insert(given);
  const row = (await rows.readById(id)) as TokenRow;
  const event = { type: "connected" as const, detail: {} };
  const stored = await rows.replaceGrant({ ...row, attemptId: randomUUID() }, sealedGrant(vault, row), {
    event,
    exclusive: true,
  });
  return stored as TokenRow;
}

/** As the sweeper does it: it notes that the row is read, claims it, takes its permit, and commits the new set. */
async function refresh({ vault, rows }: Parts, row: TokenRow): Promise<TokenRow> {
  await rows.markInUse([row]);
  await rows.hasten(row);
  const key = { connectionId: row.id, generation: row.generation, attemptId: randomUUID() };
  const ifAbandoned = { promptly: false, quietSeconds: 10 };
  const permit = {
    ...key,
    leaseSeconds: 30,
    statuses: ["connected"] as const,
    exclusive: true,
    takeover: null,
    ifAbandoned,
  };
  const permitted = await rows.takePermit(permit);
  if (permitted === null) throw new Error(`${row.name}: no permit`);
  const committed = await rows.commitRefresh(key, sealedGrant(vault, row), { attempt: key.attemptId });
  if (committed === null) throw new Error(`${row.name}: not committed`);
  return committed;
}

const newToken = () => randomBytes(tokenBytes * 0.75).toString("base64url");

function sealedGrant(vault: TokenVault, row: TokenRow): SealedGrant {
  const [accessToken, refreshToken] = [newToken(), newToken()];
  const place = placeOf({ ...row, captured: {}, accountCaptured: {}, generation: nextGeneration(row) });
  const issuedAt = new Date();
  const after = (seconds: number) => new Date(issuedAt.getTime() + seconds * 1000);
  return {
    ...(vault.sealTokens({ accessToken, refreshToken }, place) as Pick<SealedGrant, "accessToken" | "refreshToken">),
    refreshFingerprint: vault.fingerprint(refreshToken, row.clientRef ?? row.provider),
    tokenType: "Bearer",
    grantedScopes: ["orders"],
    captured: {},
    redirectUri: null,
    accountCaptured: {},
    issuedAt,
    expiresAt: after(3600),
    refreshTokenExpiresAt: null,
    keepsRefreshToken: false,
    noRefreshTokenSince: null,
    unreadableLifetime: false,
    lastError: null,
    refreshDueAt: after(2700),
    keepAliveAt: null,
  };
}

/** In order, some at once; in the result each is at its place. */
async function eachAtOnce<Item, Result>(
  items: readonly Item[],
  work: (item: Item, at: number) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  let next = 0;
  const lane = async () => {
    for (let at = next++; at < items.length; at = next++) results[at] = await work(items[at] as Item, at);
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  return results;
}

type Size = { total: number; heap: number; toast: number; indexes: number; payload: number; vacuums: number };

/** Bytes per connection, and how often autovacuum has finished the table or its TOAST. */
async function sizeOf({ prisma }: Database): Promise<Size> {
  const [found] = await prisma.$queryRawUnsafe<Size[]>(`
    SELECT pg_total_relation_size(c.oid)::float8 / ${connections} AS total, pg_relation_size(c.oid)::float8 / ${connections} AS heap,
      pg_total_relation_size(c.reltoastrelid)::float8 / ${connections} AS toast, pg_indexes_size(c.oid)::float8 / ${connections} AS indexes,
      (SELECT avg(octet_length(access_token_sealed) + octet_length(refresh_token_sealed))::float8 FROM connections) AS payload,
      (SELECT sum(autovacuum_count)::float8 FROM pg_stat_all_tables s WHERE s.relid IN (c.oid, c.reltoastrelid)) AS vacuums
    FROM pg_class c WHERE c.oid = 'public.connections'::regclass`);
  return found as Size;
}

/** What the same rows take when they are written anew. */
async function tightSizeOf(database: Database): Promise<number> {
  await database.prisma.$executeRawUnsafe("VACUUM FULL connections");
  return (await sizeOf(database)).total;
}
