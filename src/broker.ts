import { randomBytes, randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { systemClock, withDeadline } from "./clock.ts";
import type { Config } from "./config.ts";
import { createConsentService } from "./consent/consent-service.ts";
import { StartupError } from "./errors.ts";
import { findSecrets, type FirstSecrets } from "./first-secrets.ts";
import { buildApp } from "./http/app.ts";
import { createMemoryLeases } from "./leases/memory-lease.ts";
import { createRedisLeases } from "./leases/redis-lease.ts";
import { createFileMarks } from "./marks/file-marks.ts";
import { createRedisMarks } from "./marks/redis-marks.ts";
import { loadCatalog } from "./providers/catalog.ts";
import { createEgress, parseNetworks } from "./providers/egress.ts";
import { createOAuthClient } from "./providers/oauth-client.ts";
import { connectRedis } from "./redis.ts";
import { createClientService } from "./registry/client-service.ts";
import { createConnectionService } from "./registry/connection-service.ts";
import { createConsentCalls } from "./registry/consent-calls.ts";
import { createConsentContext } from "./registry/consent-context.ts";
import { createKeyService } from "./registry/key-service.ts";
import { createRecoveryService } from "./registry/recovery-service.ts";
import { createFileSpool } from "./spool/file-spool.ts";
import { createRedisSpool } from "./spool/redis-spool.ts";
import { createApiKeys } from "./store/api-keys.ts";
import { createAuthorizationRequests } from "./store/authorization-requests.ts";
import { createClients } from "./store/clients.ts";
import { createConnections } from "./store/connections.ts";
import { createConsentLinks } from "./store/consent-links.ts";
import { holdDataDir } from "./store/data-dir.ts";
import { createDatabaseHealth } from "./store/database-health.ts";
import { openEmbedded, openPostgres, type Database } from "./store/database.ts";
import { createEncryptionKeys } from "./store/encryption-keys.ts";
import { createTokenRows } from "./store/token-rows.ts";
import { createTombstones } from "./store/tombstones.ts";
import { createMetrics, measurePermits, type Metrics } from "./telemetry/metrics.ts";
import { createRefreshObserver } from "./telemetry/refresh-observer.ts";
import { createRequestDescriber } from "./tokens/api-requests.ts";
import { createTokenCore, type TokenCore } from "./tokens/token-core.ts";
import { createKeyring, sealKeyCheck, verifyKeyring, type Keyring } from "./vault/keyring.ts";
import { createTokenVault } from "./vault/token-vault.ts";

const builtinProviders = fileURLToPath(new URL("../providers", import.meta.url));
const healthCheckMs = 1000;
const redisPatienceMs = 2000;
const clock = systemClock;

/** A broker that has not begun to listen. */
export type Broker = Awaited<ReturnType<typeof createBroker>>;

/** Puts the parts together: the only place where they meet. @throws StartupError for what the operator must mend */
export async function createBroker(config: Config, log: Logger) {
  const providers = openProviders(config);
  const storage = await openStorage(config);
  const metrics = createMetrics();
  measurePermits(metrics, () => storage.rows.permitAges());
  const shared = await openShared(config, storage, log);
  const core = openCore({ ...providers, ...storage, ...shared, log, metrics });
  const registry = createRegistry(config, { ...providers, ...storage, ...core });
  const { database, dataDir, keyring, secrets, connections: records } = storage;
  const lifecycle = { ready: false };
  const sandbox = providers.sandboxAddress === null ? null : sandboxOptions(config, keyring);
  const app = await buildApp({
    ...registry,
    log,
    tokens: core.tokens,
    catalog: providers.catalog,
    describeRequest: createRequestDescriber({ ...providers, ...storage, ...core, clock }),
    observeRead: (result) => metrics.reads.inc({ result }),
    publicUrl: config.publicUrl,
    randomBytes,
    nowMs: core.nowMs,
    isReady: () => lifecycle.ready,
    check: async () => ({
      database: (await withDeadline(canQuery(database), healthCheckMs, clock)) === true ? "ok" : "unavailable",
      redis: config.redisUrl === null ? "not_configured" : shared.leases.available() ? "ok" : "unavailable",
    }),
    render: async () => await metrics.registry.metrics(),
    metricsKey: config.metricsKey,
    metricsOnApi: config.metricsPort === null,
    sandbox,
    trustProxy: config.trustProxy,
  });

  /** After the last request: what still runs is finished by its owner first. */
  const close = async () => {
    await shared.close();
    await database.close();
    dataDir.release();
  };
  return {
    ...registry,
    app,
    lifecycle,
    core,
    records,
    sandbox,
    metrics,
    adminKeyFile: secrets.adminKeyFile,
    close,
  };
}

function openProviders(config: Config) {
  const sandboxAddress = sandboxAddressOf(config);
  const catalog = loadCatalog({
    builtinFolder: builtinProviders,
    extraFolder: config.providersDir,
    sandbox: sandboxAddress,
  });
  const egress = createEgress({
    networks: readNetworks(config.providerNetworks),
    trustedOrigin: sandboxAddress === null ? null : new URL(sandboxAddress.localUrl).origin,
  });
  return { catalog, oauth: createOAuthClient({ egress }), sandboxAddress };
}

async function openStorage(config: Config) {
  const dataDir = await holdDataDir(config.dataDir);
  const secrets = await findSecrets(config, dataDir);
  const keyring = createKeyring(secrets.encryptionKeys);
  const health = createDatabaseHealth(() => clock.monotonicMs());
  const database =
    config.databaseUrl === null
      ? await openEmbedded(dataDir.embeddedDatabase, health)
      : await openPostgres(config.databaseUrl, health);
  await checkKeyring(database, keyring, secrets);
  const tables = {
    rows: createTokenRows(database),
    clients: createClients(database),
    connections: createConnections(database),
    tombstones: createTombstones(database),
  };
  return { ...tables, dataDir, secrets, keyring, vault: createTokenVault(keyring), health, database };
}

/** What replicas share beside the database, or one process has for itself: locks, messages, spools, and marks. */
async function openShared({ redisUrl }: Config, { dataDir }: Storage, log: Logger) {
  const onError = (err: Error) => log.debug({ err }, "redis");
  const files = createFileSpool(dataDir.spool);
  if (redisUrl === null) {
    const leases = createMemoryLeases({ monotonicMs: () => clock.monotonicMs() });
    const marks = createFileMarks(dataDir.marks, (err) => log.warn({ err }, "the marks in DATA_DIR"));
    const close = async () => {
      await leases.close();
      marks.end();
    };
    return { leases, marks, spoolPlaces: [files], redisEpoch: () => 0, close };
  }
  const redis = connectRedis(redisUrl);
  const leases = createRedisLeases({ redis, subscriber: connectRedis(redisUrl), onError });
  let epoch = 0;
  redis.on("ready", () => void (epoch += 1));
  // So that what waits in its spool is found at once; a Redis that is away must not keep the broker from starting.
  await withDeadline(new Promise((resolve) => void redis.once("ready", () => resolve(true))), redisPatienceMs, clock);
  return {
    leases,
    marks: createRedisMarks(redis, onError),
    spoolPlaces: [files, createRedisSpool(redis)],
    redisEpoch: () => epoch,
    close: () => leases.close(),
  };
}

type Providers = ReturnType<typeof openProviders>;
type Storage = Awaited<ReturnType<typeof openStorage>>;
type Shared = Awaited<ReturnType<typeof openShared>>;

function openCore(parts: Providers & Storage & Shared & { log: Logger; metrics: Metrics }): TokenCore {
  const { log, metrics } = parts;
  return createTokenCore({
    ...parts,
    clock,
    random: Math.random,
    observer: createRefreshObserver(metrics, log),
    onSpoolError(place, err) {
      metrics.spoolFailures.inc({ place });
      log.error({ place, err }, "a place for answers that wait to be stored does not work");
    },
    onBackgroundError: (err) => log.warn({ err }, "work in the background failed"),
  });
}

function createRegistry(config: Config, parts: Providers & Storage & TokenCore) {
  const { database, secrets, connections: records } = parts;
  const connections = createConnectionService({ ...parts, randomBytes });
  const consent = createConsentService({
    ...createConsentContext({ ...parts, records }),
    links: createConsentLinks(database.prisma),
    requests: createAuthorizationRequests(database.prisma),
    vault: parts.vault,
    publicUrl: config.publicUrl,
    returnOrigins: config.returnOrigins,
    random: { bytes: randomBytes, uuid: randomUUID },
    formKey: parts.keyring.derive("consent forms"),
  });
  const keyTable = createApiKeys(database);
  return {
    connections,
    consent,
    consentCalls: createConsentCalls({ consent, connections }),
    recovery: createRecoveryService(parts),
    clients: createClientService(parts),
    keys: createKeyService({ keys: keyTable, adminKey: secrets.adminKey, clock, nowMs: parts.nowMs, randomBytes }),
  };
}

function readNetworks(networks: readonly string[]) {
  try {
    return networks.length === 0 ? null : parseNetworks(networks.join(","));
  } catch (error) {
    throw new StartupError(`PROVIDER_NETWORKS must be a comma list of CIDR blocks: ${(error as Error).message}`);
  }
}

/** The sandbox is asked for tokens on this machine, and shown to browsers at the public address. */
function sandboxAddressOf({ sandbox, publicUrl, host, port }: Config) {
  if (!sandbox) return null;
  const anywhere = host === "0.0.0.0" || host === "::";
  const local = anywhere ? "127.0.0.1" : host.includes(":") ? `[${host}]` : host;
  return { publicUrl: `${publicUrl}/sandbox`, localUrl: `http://${local}:${port}/sandbox` };
}

function sandboxOptions({ publicUrl }: Config, keyring: Keyring) {
  return {
    signingKey: keyring.derive("sandbox tokens"),
    clientId: "sandbox",
    clientSecret: Buffer.from(keyring.derive("sandbox client")).toString("base64url"),
    redirectUri: `${publicUrl}/callback/sandbox`,
    now: () => clock.wallMs(),
    randomBytes,
  };
}

/** Data that this keyring cannot open must be found at the start, not at the first refresh. */
async function checkKeyring(database: Database, keyring: Keyring, { encryptionKeys }: FirstSecrets): Promise<void> {
  const known = createEncryptionKeys(database);
  verifyKeyring(keyring, await known.list());
  for (const key of encryptionKeys) await known.remember({ id: key.id, check: sealKeyCheck(key) });
}

async function canQuery({ prisma }: Database): Promise<boolean> {
  return await prisma.$queryRaw`SELECT 1`.then(
    () => true,
    () => false,
  );
}
