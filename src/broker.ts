import { randomBytes, randomUUID } from "node:crypto";
import type { Logger } from "pino";
import manifest from "../package.json" with { type: "json" };
import { createAudit } from "./audit/audit.ts";
import type { Audit } from "./audit/entries.ts";
import { publicName } from "./text.ts";
import { systemClock, withDeadline } from "./clock.ts";
import { shareAnswer } from "./concurrency.ts";
import type { Config } from "./config.ts";
import { createCodeOutcomes } from "./consent/code-outcomes.ts";
import { createCompletion } from "./consent/completion.ts";
import { createCopiedCodes } from "./consent/copied-code.ts";
import { createCodeAudit, createConsentAudit } from "./consent/audit.ts";
import { createContextOf, createLinks } from "./consent/links.ts";
import { createOutcomes } from "./consent/outcome.ts";
import { createRoundTrip } from "./consent/round-trip.ts";
import { createCurrentKey } from "./encryption/current-key.ts";
import { createResealing } from "./encryption/resealing.ts";
import { createRotationWorker } from "./encryption/rotation.ts";
import { createEncryptionService } from "./encryption/service.ts";
import {
  DatabaseBusyError,
  isStorageUnavailable,
  openedOrNull,
  UnreadableSecretError,
  whyNotOnDisk,
} from "./errors.ts";
import { buildApp } from "./http/app.ts";
import { wrongKeysPerMinute } from "./http/auth.ts";
import { createConsentLimits, createMinuteLimit } from "./http/limits.ts";
import { createClientService } from "./services/clients.ts";
import { type ConnectionService, createConnectionService } from "./services/connections.ts";
import { createGiverOf } from "./callers/givers.ts";
import { createIssuerKeys, type IssuerKeys } from "./callers/issuer-keys.ts";
import { createKeyUses } from "./callers/key-uses.ts";
import { createKeyService } from "./callers/keys.ts";
import { createWorkloadService } from "./callers/workloads.ts";
import { createPeers, noPeers, type Peers } from "./services/peers.ts";
import { createRestoredRowsService } from "./services/restored-rows.ts";
import { openProviders, openShared, openStorage, type Providers, type Shared, type Storage } from "./start/outside.ts";
import { type ReadWorkloads, readWorkloads } from "./start/workloads-file.ts";
import { createApiKeys } from "./store/api-keys.ts";
import { createAuthorizationRequests, createConsentAttempts } from "./store/consents.ts";
import { whyAway } from "./store/database-errors.ts";
import type { Database } from "./store/database.ts";
import { sealedTableNames } from "./store/sealed-rows.ts";
import { createWorkloads } from "./store/workloads.ts";
import {
  createAlarms,
  createMetrics,
  createRefreshObserver,
  measurePermits,
  type Metrics,
} from "./telemetry/metrics.ts";
import { createOutage } from "./telemetry/outage.ts";
import { processTimes, storeTimes } from "./time.ts";
import { createRequestDescriber } from "./tokens/api-requests.ts";
import { type Alarms, createTokenCore, type TokenCore } from "./tokens/core.ts";
import { clientDestination } from "./tokens/seal.ts";
import { keyIdOfProof, type Keyring } from "./vault/keyring.ts";

const clock = systemClock;

/** A broker that has not begun to listen. */
export type Broker = Awaited<ReturnType<typeof createBroker>>;

/** Puts the parts together: the only place where they meet. @throws StartupError for what the operator must mend */
export async function createBroker(config: Config, log: Logger) {
  const providers = openProviders(config, log);
  const declared = readWorkloads(config.workloadsFile);
  const metrics = createMetrics();
  const alarms = createAlarms(metrics, log, () => clock.monotonicMs());
  const storage = await openStorage(config, { ...providers, alarms, log });
  measurePermits(metrics, () => storage.rows.permitAges());
  const shared = await openShared(config, storage, { log, alarms });
  const { keyTrustSeconds: trustSeconds } = config;
  const peers = config.databaseUrl === null ? noPeers() : createPeers({ ...storage, ...shared, trustSeconds, clock });
  const audit = openAudit(config, { ...storage, ...shared, log });
  const issuerKeys = openIssuerKeys(providers, log);
  const core = openCore(config, { ...providers, ...storage, ...shared, peers, audit, log, metrics, alarms });
  const registry = createRegistry(config, {
    ...providers,
    ...storage,
    ...core,
    ...declared,
    issuerKeys,
    peers,
    audit,
    log,
  });
  const encryption = openEncryption({ ...storage, ...shared, core, audit, log });
  const { database, dataDir, keyring, vault, secrets, connections: records } = storage;
  const lifecycle = { ready: false };
  const sandbox = providers.sandboxAddress === null ? null : sandboxOptions(config, keyring);
  const metricsRoute = {
    render: shareAnswer(async () => await metrics.registry.metrics(), clock),
    metricsKey: config.metricsKey,
    wrongKeys: createMinuteLimit(wrongKeysPerMinute, clock),
  };
  const app = await buildApp({
    ...metricsRoute,
    ...registry,
    encryption: encryption.service,
    log,
    tokens: core.tokens,
    catalog: providers.catalog,
    describeRequest: createRequestDescriber({ ...providers, ...storage, ...core, clock }),
    onUnreadable: (error) => alarms.unreadable(error),
    countReadResult({ by, connection, result }) {
      metrics.readsWith(result).count += 1;
      audit.countRead({ actor: by.actor, connection, result });
    },
    readCounter({ by, result }) {
      const reads = metrics.readsWith(result);
      const countInAudit = audit.readCounter({ actor: by.actor, result });
      return (connection) => {
        reads.count += 1;
        countInAudit(connection);
      };
    },
    audit,
    clock,
    publicUrl: config.publicUrl,
    organisation: config.organisation,
    providerNetworks: config.providerNetworks,
    randomBytes,
    nowMs: core.nowMs,
    isReady: () => lifecycle.ready,
    check: shareAnswer(
      async () => ({
        database:
          (await withDeadline(canServe(database), processTimes.healthCheckMs, clock)) === true ? "ok" : "unavailable",
        redis: config.redisUrl === null ? "not_configured" : (await shared.leases.available()) ? "ok" : "unavailable",
      }),
      clock,
    ),
    limits: createConsentLimits(config, clock),
    metricsOnApi: config.metricsPort === null,
    sandbox,
    trustProxy: config.trustProxy,
  });

  const keyUses = createKeyUses({ keys: registry.keys, table: registry.keyTable, nowMs: core.nowMs, clock });
  await peers.start(encryption.currentKey);
  await audit.start();
  encryption.worker.start();
  keyUses.start();
  void registry.workloads.start();

  /** Call it after the last request. The parts finish what they have begun first. */
  const close = async () => {
    await encryption.worker.stop();
    await issuerKeys.stop();
    await withDeadline(keyUses.stop(), processTimes.lastWordMs, clock);
    await audit.stop();
    // After the audit: it says which keys this replica's folder still needs, its entries included.
    await peers.stop();
    await shared.close();
    await database.close();
    dataDir.release();
  };
  return {
    ...registry,
    app,
    catalog: providers.catalog,
    lifecycle,
    core,
    records,
    audit,
    sandbox,
    /** Whether the stored secret of the sandbox's client was made with another key than the current one: it ends with that key. */
    hasOldSandboxSecret: async (): Promise<boolean> => {
      const { id: clientId, secret, secretRevision: revision, ...client } = await registry.clients.get("sandbox");
      const at = { clientId, revision, destination: clientDestination({ ...client, id: clientId }) };
      const opened = openedOrNull(() => secret && vault.openClientSecret(secret, at));
      return opened === null || keyIdOfProof(opened) !== keyring.current();
    },
    metricsRoute,
    adminKeyFile: secrets.adminKeyFile,
    /** Whether any key that works, here or at another replica, may do everything with keys, clients and connections. */
    hasAdmin: async () => secrets.adminKeys.length > 0 || (await registry.keyTable.hasAdmin(core.nowMs())),
    describeDatabase: async () => await describeDatabase(database, config),
    describeRedis: shared.describeRedis,
    close,
  };
}

/** Its version, and where it is. It has answered, so no part of a mistyped URL can stand there. */
async function describeDatabase({ prisma }: Database, { databaseUrl, dataDir }: Config): Promise<string> {
  const [row] = await prisma.$queryRaw<{ version: string }[]>`SELECT current_setting('server_version') AS version`;
  const version = `Postgres ${row?.version.split(" ", 1)[0] ?? ""}`;
  if (databaseUrl === null) return `embedded ${version} in ${dataDir}`;
  const { host, pathname } = new URL(databaseUrl);
  return `${version} at ${host}${pathname}`;
}

function openAudit(config: Config, parts: Storage & Shared & { log: Logger }): Audit {
  const { auditEntries: store, dataDir, keyring, health, self, log } = parts;
  const { monotonicMs } = clock;
  const meanwhile = "Its entries wait in DATA_DIR, and counts of token reads in memory";
  const outage = createOutage({ log, monotonicMs, name: "The audit", meanwhile });
  const withoutDisk =
    "Entries of the audit go to the database, and changes are refused where that does not take them, either";
  const disk = createOutage({ log, monotonicMs, name: "DATA_DIR", meanwhile: withoutDisk });
  return createAudit({
    store,
    folder: dataDir.audit,
    keyring,
    keyIdOf: keyIdOfProof,
    self: { replica: self.id, name: self.name, version: manifest.version },
    process: randomUUID(),
    retentionDays: config.auditRetentionDays,
    clock,
    onHead: (head) => log.info({ audit_head: head }, "the newest entry of the audit"),
    onTrouble(error) {
      const why =
        error instanceof DatabaseBusyError
          ? error.message.replace(/\.$/, "")
          : whyAway((error as Error).cause ?? error);
      // An outage of Postgres is logged once, elsewhere.
      if (health.uninterruptedMs() > 0) outage.trouble(why, storeTimes.longestSilenceMs);
    },
    onWell: () => outage.well(),
    onDiskTrouble: (error) => disk.trouble(`entries of the audit cannot be kept there ${whyNotOnDisk(error)}`),
    onDiskWell: () => disk.well(),
    onRejected: ({ file, lines }) =>
      log.error(
        { path: file },
        `${lines} lines in DATA_DIR are no entries that this broker has written for the audit; they were put aside`,
      ),
  });
}

type CoreParts = Providers &
  Storage &
  Shared & { peers: Peers; audit: Audit; log: Logger; metrics: Metrics; alarms: Alarms };

function openCore({ consentCompletion: completion }: Config, parts: CoreParts): TokenCore {
  const { peers, log, metrics, alarms } = parts;
  const meanwhile = "The answers are in memory, and in Redis if there is one";
  const disk = createOutage({ log, monotonicMs: () => clock.monotonicMs(), name: "DATA_DIR", meanwhile });
  const core = createTokenCore({
    ...parts,
    isAlone: () => peers.isAlone(),
    audited: createCodeAudit(parts),
    completion,
    onServed: (connectionId) => peers.uses("connection", connectionId),
    clock,
    random: Math.random,
    observer: createRefreshObserver(metrics, log),
    onSpoolError(place, err) {
      metrics.spoolFailures.inc({ place });
      // An outage of Redis is logged once, elsewhere, for everything that fails by it.
      if (place === "redis") parts.onRedisError(err as Error);
      else disk.trouble(`answers that wait to be stored cannot be kept there ${whyNotOnDisk(err)}`);
    },
    onBackgroundError(err) {
      if (err instanceof UnreadableSecretError) alarms.unreadable(err);
      else if (!isStorageUnavailable(err)) log.warn({ err }, "work in the background failed"); // an outage is logged once, elsewhere
    },
  });
  peers.listen(({ kind, id, atMs }) => {
    if (kind === "connection") core.cache.end(id, atMs);
  });
  return core;
}

function createRegistry(
  config: Config,
  parts: Providers &
    Storage &
    TokenCore &
    ReadWorkloads & { issuerKeys: IssuerKeys; peers: Peers; audit: Audit; log: Logger },
) {
  const { log, database, secrets } = parts;
  const connections = createConnectionService({
    ...parts,
    fileLabels: new Set(parts.file.flatMap(({ labels }) => Object.keys(labels))),
    onUnrevoked: (connection, why) =>
      log.warn(
        { connection: publicName(connection), said: why },
        "a deleted connection could not be revoked at its provider, where its grant goes on; revoke it there",
      ),
  });
  const keyTable = createApiKeys(database, parts.vault);
  const workloadTable = createWorkloads(database, parts.vault);
  const giverOf = createGiverOf({ keys: keyTable, workloads: workloadTable });
  const ofCallers = { ...parts, giverOf, trustSeconds: config.keyTrustSeconds, clock };
  return {
    connections,
    keyTable,
    consent: createConsent(config, { ...parts, registry: connections }),
    recovery: createRestoredRowsService({ ...parts, keys: keyTable }),
    clients: createClientService(parts),
    keys: createKeyService({ ...ofCallers, keys: keyTable, adminKeys: secrets.adminKeys, randomBytes }),
    workloads: createWorkloadService({
      ...ofCallers,
      workloads: workloadTable,
      onRefused: (why) => log.debug({ refused: why }, "a token of a workload was refused"),
    }),
  };
}

/** The public keys of workloads' issuers. */
function openIssuerKeys({ readDocument }: Providers, log: Pick<Logger, "warn" | "info">): IssuerKeys {
  return createIssuerKeys({
    fetchDocument: readDocument,
    clock,
    onTrouble: ({ issuer, detail }) =>
      log.warn(
        { issuer, said: detail },
        "the keys of an issuer of workloads cannot be fetched; those that were fetched before count on",
      ),
    onWell: (issuer) => log.info({ issuer }, "the keys of an issuer of workloads are fetched again"),
  });
}

type ConsentNeeds = Providers & Storage & TokenCore & { registry: ConnectionService; audit: Audit };

/** The parts of a consent, each with what it needs of the others. */
function createConsent(config: Config, parts: ConsentNeeds) {
  const { database, keyring, vault, catalog, rows, accounts, links: linkRows, connections: records, registry } = parts;
  const { authorizations, devices, sender, limits, nowMs } = parts;
  const { publicUrl, organisation, returnOrigins, linkOpenRequests: openRequestsPerLink } = config;
  const { consentCompletion: completion } = config;
  const attempts = createConsentAttempts(database.prisma);
  const requests = createAuthorizationRequests(database.prisma);
  const contextOf = createContextOf({ catalog, discovery: parts.discovery, vault, publicUrl });
  const audited = createConsentAudit(parts.audit);
  const keys = { ticketKeys: keyring, formKeys: keyring };
  const common = { linkRows, records, authorizations, audited, ...keys, completion, nowMs, clock };
  const links = createLinks({
    ...common,
    connections: registry,
    rows,
    devices,
    contextOf,
    organisation,
    publicUrl,
    returnOrigins,
    randomBytes,
  });
  const outcomes = createOutcomes({ ...common, links, attempts, accounts, catalog });
  const roundTrip = createRoundTrip({
    ...common,
    links,
    outcomes,
    requests,
    attempts,
    rows,
    contextOf,
    devices,
    sender,
    limits,
    catalog,
    vault,
    publicUrl,
    openRequestsPerLink,
    random: { bytes: randomBytes, uuid: randomUUID },
  });
  const codeOutcomes = createCodeOutcomes({ ...common, attempts, accounts });
  const ofCodes = { ...common, attempts, codeOutcomes, connections: registry };
  return {
    links,
    outcomes,
    roundTrip,
    copiedCodes: createCopiedCodes({ ...ofCodes, links, outcomes, organisation }),
    completion: createCompletion({ ...ofCodes, requests, vault }),
  };
}

type EncryptionParts = Storage & Shared & { core: TokenCore; audit: Audit; log: Logger };

/** The current encryption key, and the rotation to another one. */
function openEncryption({ core, audit, log, ...parts }: EncryptionParts) {
  const { keyring, vault, sealedRows: rows, sharedSpool } = parts;
  const resealing = createResealing(keyring, vault);
  const onError = (err: unknown) => {
    if (!isStorageUnavailable(err)) log.warn({ err }, "work on encryption keys failed, and is tried again");
  };
  const common = { ...parts, resealing, rows, tables: sealedTableNames, shared: sharedSpool, clock, onError };
  const unstored = () => core.unstored();
  const inJournal = async () => await audit.heldKeyIds();
  const currentKey = createCurrentKey({ ...common, records: resealing.record, unstored, inJournal, log });
  // The audit verifies its entries, and signs a checkpoint with the new key, before the old one may go.
  const beforeForgetting = async () => (await audit.checkpoint()).keysBehindFaults;
  const onForgotten = async (ids: readonly string[]) => {
    for (const name of ids) {
      const target = { kind: "encryption", name } as const;
      const actor = { kind: "system", id: null, name: parts.self.name } as const;
      const entry = { actor, action: "encryption.forget", target, address: null } as const;
      await audit.end(await audit.begin(entry, { mustNotFail: true }), { result: "ok" });
    }
  };
  const worker = createRotationWorker({ ...common, currentKey, beforeForgetting, onForgotten });
  return { currentKey, worker, service: createEncryptionService({ ...common, currentKey, worker }) };
}

/** The sandbox's secret and tokens are checked with any key of the ring. */
function sandboxOptions({ publicUrl }: Config, keyring: Keyring) {
  const clientId = "sandbox";
  return {
    proofs: keyring,
    clientId,
    clientSecret: () => keyring.sign("sandbox client", clientId),
    isClientSecret: (secret: string) => keyring.verify("sandbox client", clientId, secret) === "authentic",
    redirectUri: `${publicUrl}/callback/sandbox`,
    now: () => clock.wallMs(),
    randomBytes,
  };
}

/** False also for one that takes no writes, and while somebody has locked the table that tokens are read from. */
async function canServe({ prisma }: Database): Promise<boolean> {
  const asked = prisma.$queryRaw<{ takesWrites: boolean }[]>`
    SELECT current_setting('transaction_read_only') = 'off' AS "takesWrites"
    FROM (SELECT) one LEFT JOIN (SELECT 1 FROM connections LIMIT 1) c ON true`;
  return await asked.then(
    ([row]) => row?.takesWrites === true,
    () => false,
  );
}
