import { randomBytes, randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { keyIdsInJournals } from "../audit/journal.ts";
import { systemClock, withDeadline } from "../clock.ts";
import type { Config, EncryptionKeySetting } from "../config.ts";
import { createRedisEnds, noEnds } from "../coordination/end-messages.ts";
import { createMemoryLeases, createRedisLeases } from "../coordination/leases.ts";
import { createFileMarks, createRedisMarks } from "../coordination/marks.ts";
import { connectRedis } from "../coordination/redis.ts";
import { createFileSpool, createRedisSpool, type SpoolEntry, type SpoolPlace } from "../coordination/spool.ts";
import { keyIdsInSpool } from "../encryption/current-key.ts";
import { createResealing } from "../encryption/resealing.ts";
import { StartupError, UnreadableSecretError, whyNotOnDisk } from "../errors.ts";
import { AnswerRoom } from "../providers/http/answer-room.ts";
import { createDocumentReader } from "../providers/http/document.ts";
import { createEgress, parseNetworks } from "../providers/http/egress.ts";
import { readProxies } from "../providers/http/outbound-proxy.ts";
import { type Catalog, loadCatalog, passedOverIn } from "../providers/load/catalog.ts";
import { redirectUriOf } from "../providers/oauth/authorization-request.ts";
import { createDiscovery } from "../providers/oauth/discovery.ts";
import { createOAuthClient, type Untold } from "../providers/oauth/oauth-client.ts";
import { projectRoot } from "../root.ts";
import { createAccountRows } from "../store/accounts.ts";
import { createAuditStore, setRetention } from "../store/audit.ts";
import { createClients } from "../store/clients.ts";
import { createConnections } from "../store/connections.ts";
import { createConsentLinks } from "../store/consents.ts";
import { whyAway } from "../store/database-errors.ts";
import { createDatabaseHealth, type DatabaseHealth, openPostgres } from "../store/database.ts";
import { type DataDir, holdDataDir } from "../store/data-dir.ts";
import { createDeviceAuthorizations } from "../store/devices.ts";
import { openEmbedded } from "../store/embedded.ts";
import { createTombstones } from "../store/token-sets.ts";
import type { MigrationSession } from "../store/migrate.ts";
import { createEncryptionKeys, createReplicas } from "../store/replicas.ts";
import { createRequestLimits } from "../store/request-limits.ts";
import { createRotations } from "../store/rotations.ts";
import { createSealedRows } from "../store/sealed-rows.ts";
import { createTokenStatements } from "../store/token-statements.ts";
import { createOutage } from "../telemetry/outage.ts";
import { callerTimes, processTimes } from "../time.ts";
import type { Alarms } from "../tokens/core.ts";
import { createFormatMemory, ensureSealedFormat } from "../upgrade.ts";
import { createKeyList, createKeyring } from "../vault/keyring.ts";
import { createSharedProofs } from "../vault/row-proofs.ts";
import { createTokenVault, type TokenVault } from "../vault/vault.ts";
import { describeRedis, watchRedis } from "./redis-watch.ts";

const builtinProviders = fileURLToPath(new URL("providers", projectRoot));
const clock = systemClock;

/** What lies outside of the process, opened: the broker's composition root puts it together. */
export type Providers = ReturnType<typeof openProviders>;
export type Storage = Awaited<ReturnType<typeof openStorage>>;
export type Shared = Awaited<ReturnType<typeof openShared>>;

/** Provider definitions, and the way to their hosts. @throws StartupError for a faulty file */
export function openProviders(config: Config, log: Pick<Logger, "info" | "warn">) {
  const sandboxAddress = sandboxAddressOf(config);
  const catalog = loadCatalog({
    builtinFolder: builtinProviders,
    extraFolder: config.providersDir,
    sandbox: sandboxAddress,
  });
  if (config.providersDir !== null) warnOfFolder(config.providersDir, catalog, log);
  const egress = createEgress({
    networks: config.providerNetworks.length === 0 ? null : parseNetworks(config.providerNetworks.join(",")),
    trustedOrigin: sandboxAddress === null ? null : new URL(sandboxAddress.localUrl).origin,
    proxies: readProxies(config.proxy),
  });
  const onUntold = ({ provider, host, detail }: Untold) =>
    log.info({ provider, host, said: detail }, "a request failed, and callers are not told how");
  const oauth = createOAuthClient({ egress, onUntold });
  const readDocument = createDocumentReader({ egress, room: new AnswerRoom(), totalMs: callerTimes.issuerCallMs });
  const redirectUri = (provider: string) => redirectUriOf(config.publicUrl, { provider, client: null });
  return { catalog, oauth, discovery: createDiscovery({ oauth, clock }), redirectUri, sandboxAddress, readDocument };
}

function warnOfFolder(folder: string, { count }: Pick<Catalog, "count">, log: Pick<Logger, "warn">): void {
  const names = passedOverIn(folder);
  const isNone = "holds no file that ends with .yaml or .yml, so no provider comes from it: correct the path";
  const isOther = `holds ${names.join(", ")}, and reads only files that end with .yaml or .yml: rename what is meant to be read`;
  if (names.length === 0 && count.own > 0) return;
  log.warn({ variable: "PROVIDERS_DIR" }, `PROVIDERS_DIR ${folder} ${names.length === 0 ? isNone : isOther}`);
}

/** DATA_DIR, the database, and what seals its secrets. @throws StartupError for what the operator must mend */
export async function openStorage(
  config: Config,
  {
    catalog,
    alarms,
    log,
  }: Pick<Providers, "catalog"> & Pick<Telling, "alarms"> & { log: Pick<Logger, "warn" | "info"> },
) {
  const dataDir = await holdDataDir(config.dataDir);
  for (const text of dataDir.opened) log.warn({ variable: "DATA_DIR" }, text);
  const secrets = await findSecrets(config, dataDir);
  const keyring = createKeyring(secrets.encryptionKeys);
  const self = { id: await replicaId(dataDir), name: `${hostname()}:${config.port}`.replaceAll(/[^\w.:-]/g, "-") };
  const files = createFileSpool(dataDir.spool, () => {});
  const { record } = createResealing(keyring, createTokenVault(keyring));
  // What cannot be read may be under any of them.
  const held = async () =>
    await Promise.all([keyIdsInSpool(record, files), keyIdsInJournals(dataDir.audit, keyring)]).then(
      (ids) => [...new Set(ids.flat())],
      () => [...keyring.ids],
    );
  const afterwards = async (session: MigrationSession) => {
    await setRetention(session, config.auditRetentionDays);
    await ensureSealedFormat(session, {
      keys: secrets.encryptionKeys,
      keyring,
      self: config.databaseUrl === null ? null : { ...self, held },
      definitions: (id) => catalog.get(id),
      onSetAside({ table, id, name }) {
        const error = new UnreadableSecretError(
          { table, row: id, column: "mac" },
          { keyId: null, reason: "no_record" },
        );
        alarms.unreadable(name !== null && table === "connections" ? error.of(name) : error);
      },
      memory: createFormatMemory(dataDir.sealedFormat),
      files,
      shared: async () => await openSharedSpool(config.redisUrl),
    });
  };
  const onWarning = (text: string) => log.warn(text);
  const health = tellingHealth(log);
  const database =
    config.databaseUrl === null
      ? await openEmbedded(dataDir.embeddedDatabase, health, { afterwards, onWarning })
      : await openPostgres(config.databaseUrl, health, {
          migrationUrl: config.databaseMigrationUrl,
          afterwards,
          onWarning,
        });
  const known = createEncryptionKeys(database);
  const keys = createKeyList(async () => (await known.list()).map(({ id }) => id));
  const vault = createTokenVault(keyring, {
    onForged: (error) => alarms.unreadable(error),
    isSilent: (error) => keys.isSilent(error),
  });
  const tables = {
    rows: createTokenStatements(database),
    requestLimits: createRequestLimits(database),
    accounts: createAccountRows(database, vault),
    deviceCodes: createDeviceAuthorizations(database),
    links: createConsentLinks(database.prisma, vault),
    clients: createClients(database, vault),
    connections: createConnections(database, vault),
    tombstones: createTombstones(database),
    replicas: createReplicas(database),
    auditEntries: createAuditStore(database),
    rotations: createRotations(database),
    sealedRows: createSealedRows(database),
    known,
  };
  return { ...tables, self, dataDir, secrets, keyring, keys, vault, health, database };
}

/** What replicas share beside the database, or one process has for itself: locks, messages, spools, and marks. */
export async function openShared(config: Config, storage: Storage, { log, alarms }: Telling) {
  const { redisUrl, keyTrustSeconds } = config;
  const { self, dataDir, keyring, keys, vault } = storage;
  const disk = createOutage({ log, monotonicMs, name: "DATA_DIR", meanwhile: "Freshet serves all the same" });
  const files = createFileSpool(dataDir.spool, (error) =>
    disk.trouble(`a file of its folder spool cannot be read ${whyNotOnDisk(error)}`),
  );
  await files.finishParts((entry) => isWhole(vault, entry));
  if (redisUrl === null) {
    const leases = createMemoryLeases({ monotonicMs });
    const marks = createFileMarks(dataDir.marks, (error) =>
      disk.trouble(`its file marks, by which a restored database is known, cannot be kept ${whyNotOnDisk(error)}`),
    );
    const close = async () => {
      await leases.close();
      marks.end();
    };
    const alone = { files, spoolPlaces: [files], sharedSpool: null };
    return { leases, ends: noEnds, marks, ...alone, redisEpoch: () => 0, close, ...noRedis };
  }
  const redis = connectRedis(redisUrl);
  const { onError, onTaken, stop } = watchRedis(redis, { redisUrl, log, monotonicMs });
  const proofs = createSharedProofs(keyring, keys);
  const subscriber = connectRedis(redisUrl);
  const leases = createRedisLeases({
    redis,
    subscriber,
    keyring,
    onError,
    onTaken,
    onRejected: () => alarms.rejected("news", null),
  });
  redis.on("ready", () => void leases.available()); // an outage ends when Redis accepts writes
  const ends = createRedisEnds({
    redis,
    subscriber,
    keyring,
    self: self.id,
    ttlSeconds: keyTrustSeconds,
    onError,
    onRejected: (id) => alarms.rejected("end", id),
  });
  let epoch = 0;
  redis.on("ready", () => void (epoch += 1));
  // So that answers in its spool are found at once. A Redis that is away must not prevent the start.
  await withDeadline(
    new Promise((resolve) => void redis.once("ready", () => resolve(true))),
    processTimes.redisPatienceMs,
    clock,
  );
  const sharedSpool = createRedisSpool(redis, (row) => alarms.rejected("spool", row));
  return {
    leases,
    ends,
    marks: createRedisMarks({ redis, proofs, onError, onRejected: (row) => alarms.rejected("mark", row) }),
    files,
    spoolPlaces: [files, sharedSpool],
    sharedSpool,
    redisEpoch: () => epoch,
    onRedisError: onError,
    describeRedis: async () => await describeRedis(redis, { redisUrl, isThere: await leases.available(), log }),
    async close() {
      stop();
      await leases.close();
    },
  };
}

type Telling = { log: Logger; alarms: Alarms };

const noRedis = { onRedisError: () => {}, describeRedis: async () => "none" };

const { monotonicMs } = clock;

/** Tells when Postgres goes, and when it is back. */
function tellingHealth(log: Pick<Logger, "warn" | "info">): DatabaseHealth {
  const meanwhile = "Freshet serves what it has in memory, and goes on trying";
  const outage = createOutage({ log, monotonicMs, name: "Postgres", meanwhile });
  return createDatabaseHealth(monotonicMs, (lost) =>
    lost === null ? outage.well() : outage.trouble(whyAway(lost.error)),
  );
}

/** The replica's id stands in its folder, so that it is the same after a restart. */
async function replicaId(dataDir: DataDir): Promise<string> {
  const { value } = await dataDir.secret("replica-id", randomUUID);
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value) ? value : randomUUID();
}

/** A value that is sealed with a key that this replica lacks cannot be checked here, so it counts as whole. */
function isWhole(vault: TokenVault, entry: SpoolEntry): boolean {
  try {
    vault.openRecord(entry.record, entry);
    return true;
  } catch (error) {
    return error instanceof UnreadableSecretError && error.reason === "unknown_key";
  }
}

/** The sandbox is asked for tokens on this machine, and shown to browsers at the public address. */
function sandboxAddressOf({ sandbox, publicUrl, host, port }: Config) {
  if (!sandbox) return null;
  const anywhere = host === "0.0.0.0" || host === "::";
  const local = anywhere ? "127.0.0.1" : host.includes(":") ? `[${host}]` : host;
  return { publicUrl: `${publicUrl}/sandbox`, localUrl: `http://${local}:${port}/sandbox` };
}

/** The answers in Redis, for the one start that seals them anew. That start must miss none. */
async function openSharedSpool(redisUrl: string | null): Promise<(SpoolPlace & AsyncDisposable) | null> {
  if (redisUrl === null) return null;
  const redis = connectRedis(redisUrl);
  redis.on("error", () => {}); // reported below
  const ready = new Promise((resolve) => void redis.once("ready", () => resolve(true)));
  if ((await withDeadline(ready, processTimes.redisPatienceMs, clock)) === null) {
    redis.disconnect();
    throw new StartupError("REDIS_URL must be reachable at this start: it seals anew what waits there to be stored");
  }
  return { ...createRedisSpool(redis, () => {}), [Symbol.asyncDispose]: async () => redis.disconnect() };
}

/** The secrets that the broker itself needs, given or made on the first start of an embedded one. */
export type FirstSecrets = {
  encryptionKeys: readonly EncryptionKeySetting[];
  adminKeys: readonly string[];
  /** Where a made admin key is kept; null: it was given. */
  adminKeyFile: { path: string; value: string; isNew: boolean } | null;
};

/** @throws StartupError when a kept secret is damaged */
export async function findSecrets(config: Config, dataDir: DataDir): Promise<FirstSecrets> {
  if (config.databaseUrl !== null) {
    return { encryptionKeys: config.encryptionKeys ?? [], adminKeys: config.adminKeys, adminKeyFile: null };
  }
  const encryptionKeys = config.encryptionKeys ?? [await keptEncryptionKey(dataDir)];
  if (config.adminKeys.length > 0) return { encryptionKeys, adminKeys: config.adminKeys, adminKeyFile: null };
  const kept = await dataDir.secret("admin-key", () => randomBytes(32).toString("base64url"));
  if (!/^[\x21-\x7e]{32,}$/.test(kept.value)) {
    throw new StartupError(`${kept.path} must hold at least 32 printable ASCII characters, no spaces`);
  }
  return { encryptionKeys, adminKeys: [kept.value], adminKeyFile: kept };
}

async function keptEncryptionKey(dataDir: DataDir): Promise<EncryptionKeySetting> {
  const { value, path } = await dataDir.secret("encryption-key", () => `k1:${randomBytes(32).toString("base64")}`);
  const [id = "", encoded = ""] = value.split(":");
  const key = Buffer.from(encoded, "base64");
  if (id === "" || key.length !== 32) throw new StartupError(`${path} must hold one id:base64(32 bytes)`);
  return { id, key };
}
