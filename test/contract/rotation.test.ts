import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock, type WakingSignal } from "../../src/clock.ts";
import type { ResealedSpool, SpoolEntry } from "../../src/coordination/spool.ts";
import { createCurrentKey } from "../../src/encryption/current-key.ts";
import { createResealing, type Unopened } from "../../src/encryption/resealing.ts";
import { createRotationWorker } from "../../src/encryption/rotation.ts";
import { createEncryptionService } from "../../src/encryption/service.ts";
import { createAccountRows } from "../../src/store/accounts.ts";
import { createApiKeys } from "../../src/store/api-keys.ts";
import { createWorkloads } from "../../src/store/workloads.ts";
import { createConsentLinks } from "../../src/store/consents.ts";
import { createDatabaseHealth, openPostgres } from "../../src/store/database.ts";
import type { Database } from "../../src/store/database.ts";
import { createEncryptionKeys, createReplicas } from "../../src/store/replicas.ts";
import { createRotations } from "../../src/store/rotations.ts";
import { createSealedRows, type SealedRows, sealedTableNames } from "../../src/store/sealed-rows.ts";
import type { TokenRow } from "../../src/store/token-row.ts";
import {
  type AnswerRecord,
  clientDestination,
  grantDestination,
  openRecord,
  openTokens,
  placeOf,
  sealRecord,
  secretsDestination,
  secretsPlace,
} from "../../src/tokens/seal.ts";
import { createKeyring, keyIdOf, sealKeyCheck, verifyKeyring } from "../../src/vault/keyring.ts";
import { createTokenVault } from "../../src/vault/vault.ts";
import { until } from "../support/patience.ts";
import { useEmbedded } from "../support/services/embedded.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { type Columns, newWorkload, sealedBytes, sealedGrant, StoreStage, stageKey, vault } from "./store/stage.ts";

const newKey = { id: "k2.new", key: randomBytes(32) };
const both = [newKey, stageKey];
const actor = { kind: "key", id: "tests", name: null } as const;
const principal = {
  callerId: "tests",
  labels: {},
  actor,
  abilities: ["admin" as const],
  connections: ["*"],
  expiresAt: null,
};

/** What a replica with both keys, the new one first, makes of a database. */
class Replica {
  readonly self = { id: randomUUID(), name: `replica-${randomUUID().slice(0, 8)}:8080` };
  readonly keyring = createKeyring(both);
  readonly vault = createTokenVault(this.keyring);
  readonly errors: unknown[] = [];
  readonly told: string[] = [];
  /** Keys that faulty chains of the audit need. */
  auditNeeds: { keyId: string; process: string }[] = [];
  /** Whether Redis, with its marks and its spool, does not answer. */
  isRedisAway = false;
  /** What happens beside it before keys are forgotten. */
  beforeForgetting = () => {};
  readonly worker;
  readonly service;
  readonly currentKey;
  readonly replicas;
  readonly known;
  readonly rotations;

  constructor({ database }: StoreStage, rows: SealedRows = pagedRows(database)) {
    const resealing = createResealing(this.keyring, this.vault);
    this.replicas = createReplicas(database);
    this.known = createEncryptionKeys(database);
    this.rotations = createRotations(database);
    this.currentKey = createCurrentKey({
      self: this.self,
      keyring: this.keyring,
      known: this.known,
      files: emptySpool,
      records: resealing.record,
      unstored: () => [],
      inJournal: async () => [],
      clock: systemClock,
      log: { error: (_fields, text) => void this.errors.push(text) },
      onError: (error) => void this.errors.push(error),
    });
    const common = {
      self: this.self,
      keyring: this.keyring,
      resealing,
      rows,
      tables: sealedTableNames,
      rotations: this.rotations,
      replicas: this.replicas,
      known: this.known,
      currentKey: this.currentKey,
      marks: { count: async () => (this.isRedisAway ? null : { byKey: new Map<string, number>(), resigned: 0 }) },
      shared: {
        ...emptySpool,
        list: async () => (this.isRedisAway ? await Promise.reject(new Error("Redis is away")) : []),
      },
      clock: { ...systemClock, sleep: hurriedSleep },
      onError: (error: unknown) => void this.errors.push(error),
      beforeForgetting: async () => {
        this.beforeForgetting();
        return this.auditNeeds;
      },
      onForgotten: async (ids: readonly string[]) => void this.told.push(...ids),
    };
    this.worker = createRotationWorker(common);
    this.service = createEncryptionService({ ...common, worker: this.worker });
  }

  async beat(): Promise<void> {
    const beat = await this.replicas.beat({ ...this.self, heardAt: null, keys: await this.currentKey.told() });
    this.currentKey.heard(beat);
  }

  /** Begins a rotation, works on it, and waits until it is finished. */
  async rotate(options?: { acceptsAuditFaults: boolean }) {
    await this.service.rotate(principal, [], options);
    this.worker.start();
    await until("the rotation is finished", async () => (await this.rotations.newest())?.finishedAt instanceof Date);
    await this.worker.stop();
    expect(this.errors).toEqual([]);
    return await this.service.rotation(principal);
  }
}

/** Rows are moved in pages of ten. */
function pagedRows(database: Database): SealedRows {
  const real = createSealedRows(database);
  return { ...real, page: async (name, after, size?: number) => await real.page(name, after, size ?? pageSize) };
}

const pageSize = 10;
/** As many connections stand on two pages. */
const twoPages = 12;

/** The pauses between two looks, without their length. */
const hurriedSleep = async (_ms: number, signal?: WakingSignal) => await systemClock.sleep(20, signal);

const emptySpool: ResealedSpool = {
  name: "data_dir",
  put: async () => {},
  remove: async () => {},
  replace: async () => false,
  list: async (): Promise<SpoolEntry[]> => [],
  find: async () => [],
};

/** One of everything that is sealed or signed, under the key from before. */
async function fill(stage: StoreStage) {
  const clientId = randomUUID();
  const shop = { id: clientId, name: `k-${clientId}`, provider: "own", inputs: { shop: "north" } };
  const destination = clientDestination(shop);
  const secret = vault.sealClientSecret("secret", { clientId, revision: 0, destination });
  const ofClient = { clientId: "app", scopes: [], patterns: ["*"], ownRedirectUri: true };
  await stage.clients.insert({ ...shop, ...ofClient, secret, secretRevision: 0 });
  const older = vault.sealClientSecret("older", { clientId, revision: -1, destination });
  await run(stage, "UPDATE clients SET previous_secret_sealed = $2 WHERE id = $1::uuid", [clientId, older]);
  const row = await connection(stage, clientId);
  const keyId = randomUUID().slice(0, 12);
  const bounds = { abilities: ["tokens" as const], connections: ["*"], labels: {}, expiresAt: null };
  await stage.keys.insert({ id: keyId, name: "n", secretHash: new Uint8Array(32), ...bounds }, null);
  const workload = await stage.workloads.insert(newWorkload(), null);
  const linkId = randomUUID().slice(0, 12);
  const ofLink = {
    returnTo: null,
    manual: false,
    purpose: null,
    endUser: null,
    createdBy: "x",
    expiresInSeconds: 3600,
  };
  await stage.links.insert({ id: linkId, connectionId: row.id, secretHash: new Uint8Array(32), ...ofLink });
  const at = { connectionId: row.id, generation: row.generation };
  const [held, candidate] = [recordOf(row, "held"), recordOf(row, "refresh")];
  const proven = { ...at, attemptId: held.attemptId, account: "bob", accountLabel: null, linkId, accepted: false };
  await run(
    stage,
    "INSERT INTO held_grants (attempt_id, connection_id, generation, account, link_id, record_sealed, mac) VALUES ($1::uuid, $2::uuid, $3::int, $4, $5, $6, $7)",
    [
      held.attemptId,
      row.id,
      row.generation,
      "bob",
      linkId,
      sealRecord(vault, held),
      vault.unconfirmedGrants.sign(proven),
    ],
  );
  await run(
    stage,
    "INSERT INTO candidates (attempt_id, connection_id, authorization_seq, base_generation, record_sealed) VALUES ($1::uuid, $2::uuid, 0, $3::int, $4)",
    [candidate.attemptId, row.id, row.generation, sealRecord(vault, candidate)],
  );
  await run(
    stage,
    "INSERT INTO unread_answers (connection_id, generation, answer_sealed) VALUES ($1::uuid, $2::int, $3)",
    [row.id, row.generation, vault.sealAnswer("raw answer", at)],
  );
  const [deviceId, requestId] = [randomUUID(), randomUUID()];
  const code = vault.sealDeviceCode("device code", { requestId: deviceId, destination: secretsDestination(row) });
  await run(
    stage,
    `INSERT INTO device_authorizations (connection_id, id, device_code_sealed, user_code, verification_uri, interval_s, next_poll_at, expires_at)
     VALUES ($1::uuid, $2::uuid, $3, 'c', 'u', 5, now(), now() + interval '1 hour')`,
    [row.id, deviceId, code],
  );
  await run(
    stage,
    `INSERT INTO authorization_requests (id, state_hash, connection_id, link_id, browser_hash, request_sealed, expires_at)
     VALUES ($1::uuid, $2, $3::uuid, $4, $5, $6, now() + interval '1 hour')`,
    [requestId, sealedBytes(), row.id, linkId, sealedBytes(), vault.sealRequest("request", { requestId })],
  );
  return {
    clientId,
    connectionId: row.id,
    keyId,
    workloadId: workload?.id ?? "",
    linkId,
    deviceId,
    requestId,
    held,
    candidate,
  };
}

/** A connection with tokens and credentials, all of them sealed with the key from before. */
async function connection(stage: StoreStage, clientRef: string | null = null): Promise<TokenRow> {
  const { id } = await stage.insert({ clientRef, inputs: { region: "eu" }, labels: { tenant: "acme" } });
  await setTokens(stage, id, ["access", "refresh"]);
  return await stage.row(id);
}

async function setTokens(stage: StoreStage, id: string, [accessToken, refreshToken]: [string, string]): Promise<void> {
  const row = await stage.row(id);
  const hosts = Object.keys(row.inputsInForce);
  const place = placeOf(row);
  const tokens = vault.sealTokens(
    { accessToken, refreshToken },
    { ...place, destination: { ...place.destination, hosts } },
  );
  const ofSecrets = secretsPlace(row, { revision: row.credentialsRevision, hosts });
  await run(
    stage,
    "UPDATE connections SET access_token_sealed = $2, refresh_token_sealed = $3, credentials_sealed = $4, status = 'connected', enabled_status = 'connected' WHERE id = $1::uuid",
    [id, tokens.accessToken, tokens.refreshToken, vault.sealCredentials({ username: "u" }, ofSecrets)],
  );
}

/** An answer with a second set, and a further token. */
function recordOf(row: TokenRow, kind: AnswerRecord["kind"]): AnswerRecord {
  const sealedFor = row.generation + 1;
  const place = placeOf({ ...row, captured: {}, accountCaptured: {}, generation: sealedFor });
  const one = (token: string): AnswerRecord => ({
    kind,
    connectionId: row.id,
    generation: row.generation,
    authorization: row.authorization,
    attemptId: randomUUID(),
    event: "refreshed",
    sealedFor,
    destination: grantDestination(row, []),
    grant: { ...sealedGrant(), ...vault.sealTokens({ accessToken: `a ${token}`, refreshToken: `r ${token}` }, place) },
  });
  return { ...one("own"), other: one("other"), further: [one("further")] };
}

async function run(stage: StoreStage, sql: string, values: unknown[] = []): Promise<void> {
  await stage.database.prisma.$executeRawUnsafe(sql, ...values);
}

/** Every row of every table, without what a rotation may change. */
async function unsealed(stage: StoreStage): Promise<Columns> {
  const found: Columns = {};
  for (const table of sealedTableNames) {
    const rows = await stage.query<{ row: Columns }>(`SELECT to_jsonb(t) AS row FROM ${table} t ORDER BY t::text`);
    found[table] = rows.map(({ row }) =>
      Object.entries(row)
        .filter(([column]) => column !== "mac" && !column.endsWith("_sealed"))
        .map(([column, value]) => `${column}=${JSON.stringify(value)}`)
        .sort()
        .join("\n"),
    );
    (found[table] as string[]).sort();
  }
  return found;
}

const whole = ["access_token_sealed", "refresh_token_sealed", "credentials_sealed", "mac"];

const sumOf = (counts: readonly { seals: number; macs: number }[]) =>
  counts.reduce((sum, { seals, macs }) => sum + seals + macs, 0);

/** The same database, on which a rotation moves everything right before the first statement with this text. */
function rotatingBefore(database: Database, { marker, rotate }: { marker: string; rotate: () => Promise<void> }) {
  let isOver = false;
  const prisma = new Proxy(database.prisma, {
    get(target, name) {
      const own = Reflect.get(target, name) as (...given: unknown[]) => Promise<unknown>;
      if (name !== "$queryRaw" && name !== "$executeRaw") return own;
      return async (text: readonly string[], ...values: unknown[]) => {
        if (!isOver && text.join("").includes(marker)) {
          isOver = true;
          await rotate();
        }
        return await own.call(target, text, ...values);
      };
    },
  });
  return { ...database, prisma };
}

type Given = { made: Awaited<ReturnType<typeof fill>>; proofs: typeof vault };
type ChangeUnderWay = { marker: string; change: (on: Database, given: Given) => Promise<void> };

const noSecret = new Uint8Array(32);
/** What names the MAC of a row that it has read. `marker`: of the statement that does. */
const changesUnderWay: Record<string, ChangeUnderWay> = {
  "the browser that claims a link": {
    marker: "UPDATE consent_links l SET claimed_by",
    async change({ prisma }, { made: { linkId: id }, proofs }) {
      const links = createConsentLinks(prisma, proofs);
      const claim = async (browser: number) =>
        await links.claim({ id, secretHash: noSecret }, new Uint8Array(32).fill(browser));
      expect([await claim(1), await claim(2)]).toEqual([true, false]);
    },
  },
  "the person who accepts another account": {
    marker: "UPDATE held_grants h SET account",
    async change(on, { made, proofs }) {
      const { attemptId } = made.held;
      const accounts = createAccountRows(on, proofs);
      const accepted = { attemptId, account: "bob", accepted: true };
      expect(await accounts.acceptUnconfirmed(attemptId)).toMatchObject(accepted);
      expect(await accounts.findUnconfirmed({ attemptId })).toMatchObject(accepted);
    },
  },
  "a new account of a grant that waits": {
    marker: "UPDATE held_grants h SET account",
    async change(on, { made, proofs }) {
      const { attemptId } = made.held;
      const accounts = createAccountRows(on, proofs);
      await accounts.describeUnconfirmed(attemptId, { account: "carol", label: null, linkId: made.linkId });
      expect(await accounts.findUnconfirmed({ attemptId })).toMatchObject({ account: "carol" });
    },
  },
  "the workload that makes a key": {
    marker: "INSERT INTO api_keys",
    async change(on, { made: { workloadId }, proofs }) {
      const made = { id: "made by a workload", name: "n", secretHash: noSecret, abilities: ["tokens" as const] };
      const gift = { ...made, connections: ["*"], labels: {}, expiresAt: null };
      const find = async () => await createWorkloads(on, proofs).giver(workloadId);
      expect(await createApiKeys(on, proofs).insert(gift, find)).toMatchObject(made);
    },
  },
  "the end of a workload": {
    marker: "UPDATE workloads w SET deleted_at",
    async change(on, { made: { workloadId }, proofs }) {
      const workloads = createWorkloads(on, proofs);
      const end = async () => {
        const row = (await workloads.all()).find(({ id }) => id === workloadId);
        return row === undefined || (await workloads.delete(row));
      };
      // As the service does: the row was signed anew meanwhile, and is read again.
      expect((await end()) || (await end())).toBe(true);
      expect(await workloads.all()).toEqual([]);
    },
  },
  "the key that makes another one": {
    marker: "INSERT INTO api_keys",
    async change(on, { made: { keyId }, proofs }) {
      const made = { id: "made", name: "n", secretHash: noSecret, abilities: ["tokens" as const] };
      const keys = createApiKeys(on, proofs);
      const gift = { ...made, connections: ["*"], labels: {}, expiresAt: null };
      const given = await keys.insert(gift, async () => await keys.giver(keyId));
      expect(given).toMatchObject(made);
    },
  },
};

/** `races`: with what happens between two statements of others. One database is enough for that. */
function rotating(open: () => Promise<Database>, { races = false } = {}): void {
  let stage: StoreStage;
  let replica: Replica;
  beforeAll(async () => {
    stage = new StoreStage(await open());
  });
  afterAll(async () => await stage.database.close());
  beforeEach(async () => {
    await run(
      stage,
      `TRUNCATE ${[...sealedTableNames, "encryption_keys", "rotations", "replicas"].join(", ")} CASCADE`,
    );
    const ring = createKeyring(both);
    for (const { id } of both) {
      const check = sealKeyCheck(ring, id);
      await stage.database.prisma.encryptionKey.create({ data: { id, check } });
    }
    replica = new Replica(stage);
    await replica.beat();
  });

  it("moves one of everything that is sealed or signed, changes nothing else, and then a start needs the old key no more", async () => {
    const made = await fill(stage);
    for (let each = 0; each < twoPages; each++) await stage.insert();
    const before = await unsealed(stage);
    const rotation = await replica.rotate();
    expect(rotation).toMatchObject({ targetKey: newKey.id, unopened: [], forgotten: [stageKey.id], waitsFor: null });
    expect(replica.told).toEqual([stageKey.id]);
    expect(await unsealed(stage)).toEqual(before);
    const status = await replica.service.status(principal);
    const [now, old] = [newKey.id, stageKey.id].map((key) => status.keys.find(({ id }) => id === key));
    expect(old).toMatchObject({ isFree: true, isNamed: false, tables: [], reasons: [] });
    expect(now?.tables.map(({ table }) => table).sort()).toEqual([...sealedTableNames].sort());
    expect(now?.tables.every((each) => sumOf([each]) > 0)).toBe(true);
    // All of it as a replica reads it that has only the new key.
    const ring = createKeyring([newKey]);
    verifyKeyring(ring, await replica.known.list());
    const alone = createTokenVault(ring);
    const row = await stage.row(made.connectionId);
    alone.connections.check(row);
    expect(alone.openAccessToken(row.accessToken ?? new Uint8Array(), placeOf(row))).toBe("access");
    expect(alone.openRefreshToken(row.refreshToken ?? new Uint8Array(), placeOf(row))).toBe("refresh");
    const ofSecrets = secretsPlace(row, { revision: row.credentialsRevision });
    expect(alone.openCredentials(row.credentials ?? new Uint8Array(), ofSecrets)).toEqual({ username: "u" });
    const [held] = await stage.query<{ record: Uint8Array }>("SELECT record_sealed AS record FROM held_grants");
    const [candidate] = await stage.query<{ record: Uint8Array }>("SELECT record_sealed AS record FROM candidates");
    for (const sealed of [held, candidate]) {
      const at = { connectionId: row.id, generation: row.generation };
      const record = openRecord(alone, sealed?.record ?? new Uint8Array(), at);
      const all = [record, record.other, ...(record.further ?? [])].map((one) => one && openTokens(alone, one));
      const sets = ["own", "other", "further"].map((name) => ({ accessToken: `a ${name}`, refreshToken: `r ${name}` }));
      expect(all).toEqual(sets);
    }
    const client = await new StoreClients(stage, alone).find(made.clientId);
    expect(client).toEqual(["secret", "older"]);
  });

  it("never writes over a row that has changed since it was read, and comes back for it", async () => {
    const rows = await Promise.all([connection(stage), connection(stage), connection(stage)]);
    const [, changed] = rows;
    const real = pagedRows(stage.database);
    let times = 0;
    const late: SealedRows = {
      ...real,
      async others(name, where) {
        const found = await real.others(name, where);
        // A refresh stores its set, as a replica that still seals with the key from before.
        if (name === "connections" && times++ === 0) {
          await setTokens(stage, changed.id, ["newer access", "newer refresh"]);
        }
        return found;
      },
    };
    replica = new Replica(stage, late);
    await replica.beat();
    expect((await replica.rotate()).unopened).toEqual([]);
    const row = await stage.row(changed.id);
    expect(keyIdOf(row.refreshToken ?? new Uint8Array())).toBe(newKey.id);
    expect(replica.vault.openRefreshToken(row.refreshToken ?? new Uint8Array(), placeOf(row))).toBe("newer refresh");
    expect(replica.vault.openAccessToken(row.accessToken ?? new Uint8Array(), placeOf(row))).toBe("newer access");
  });

  it("leaves what does not open, names it, and its key stays in use", async () => {
    const [good, moved, robbed, forged] = await Promise.all([1, 2, 3, 4].map(async () => await connection(stage)));
    const ids = [good, moved, robbed, forged].map((row) => row?.id ?? "");
    // Another row's tokens, another column's, no MAC, and another row's MAC.
    await run(
      stage,
      "UPDATE connections c SET refresh_token_sealed = o.refresh_token_sealed FROM connections o WHERE c.id = $1::uuid AND o.id = $2::uuid",
      [ids[1], ids[0]],
    );
    await run(
      stage,
      "UPDATE connections SET mac = NULL, access_token_sealed = refresh_token_sealed WHERE id = $1::uuid",
      [ids[2]],
    );
    await run(
      stage,
      "UPDATE connections c SET mac = o.mac FROM connections o WHERE c.id = $1::uuid AND o.id = $2::uuid",
      [ids[3], ids[0]],
    );
    const bytes = await stage.columns(ids[1] ?? "");
    const rotation = await replica.rotate();
    expect(rotation.forgotten).toEqual([]);
    const left = rotation.unopened.map(({ id, column, keyId }: Unopened) => `${ids.indexOf(id)} ${column} ${keyId}`);
    expect(left.sort()).toEqual(["1 refresh_token_sealed k1", "2 access_token_sealed k1", "3 mac k1"]);
    const after = await stage.columns(ids[1] ?? "");
    expect(after["refresh_token_sealed"]).toBe(bytes["refresh_token_sealed"]);
    expect(after["access_token_sealed"]).not.toBe(bytes["access_token_sealed"]);
    const status = await replica.service.status(principal);
    const old = status.keys.find(({ id }) => id === stageKey.id);
    expect(old).toMatchObject({ isFree: false, isNamed: true });
    expect(old?.reasons.join()).toContain(`connections ${moved?.name} (refresh_token_sealed)`);
    expect((await stage.columns(ids[2] ?? ""))["mac"]).toBeNull();
    await run(stage, "DELETE FROM connections WHERE id = ANY($1::uuid[])", [ids.slice(1)]);
    replica = new Replica(stage);
    await run(stage, "TRUNCATE replicas");
    await replica.beat();
    expect((await replica.rotate()).forgotten).toEqual([stageKey.id]);
  });

  it("a key that rows behind a fault of the audit need stays in use, and says so, until somebody accepts the faults", async () => {
    const process = randomUUID();
    replica.auditNeeds = [{ keyId: stageKey.id, process }];
    expect((await replica.rotate()).forgotten).toEqual([]);
    const oldKey = async () => (await replica.service.status(principal)).keys.find(({ id }) => id === stageKey.id);
    const old = await oldKey();
    expect(old).toMatchObject({ isFree: false, isNamed: true });
    for (const part of [process, "freshet audit verify", "--accept-audit-faults"]) {
      expect(old?.reasons.join()).toContain(part);
    }
    const again = new Replica(stage);
    again.auditNeeds = replica.auditNeeds;
    await run(stage, "TRUNCATE replicas");
    await again.beat();
    expect((await again.rotate({ acceptsAuditFaults: true })).forgotten).toEqual([stageKey.id]);
    replica = again;
    expect(await oldKey()).toMatchObject({ isFree: true, isNamed: false, reasons: [] });
  });

  it("goes on beside a row of its own, and of a replica, that somebody has filled with anything", async () => {
    await connection(stage);
    await replica.service.rotate(principal, []);
    const odd = '[null, 7, {"table": {}}, {"table": "clients", "id": "x", "name": 1, "column": "c", "keyId": "k1"}]';
    const place = "place = 'nowhere', after_id = '\\x00', seen = -1";
    for (const unopened of [odd, '"none"', "{}", "null"]) {
      await run(stage, `UPDATE rotations SET ${place}, unopened = $1::jsonb`, [unopened]);
      expect((await replica.service.status(principal)).rotation?.unopened).toEqual([]);
    }
    await run(stage, "UPDATE rotations SET unopened = $1::jsonb, begun_at = '-infinity'", [odd]);
    await run(stage, "UPDATE replicas SET seen_at = 'infinity', name = '' WHERE id = $1::uuid", [replica.self.id]);
    expect((await replica.rotate()).forgotten).toEqual([stageKey.id]);
  });

  it("makes nothing good that somebody has moved or made up: each stays, and concerns its own row only", async () => {
    const clientId = randomUUID();
    const ofClient = { clientId: "app", scopes: [], patterns: ["*"], ownRedirectUri: true, secretRevision: 0 };
    const shop = { id: clientId, name: `k-${clientId}`, provider: "own", inputs: {}, secret: null, ...ofClient };
    await stage.clients.insert(shop);
    const strange = createTokenVault(createKeyring([{ ...stageKey, key: randomBytes(32) }]));
    /** What is done to a row by hand, and which of its values are then left under the old key. */
    const attacks: [sql: string, values: (row: TokenRow) => unknown[], left: string[]][] = [
      ["access_token_sealed = refresh_token_sealed", () => [], ["access_token_sealed"]],
      ["generation = generation + 1", () => [], ["access_token_sealed", "refresh_token_sealed"]],
      ["client_ref = $2::uuid", () => [clientId], whole],
      ['inputs = \'{"region": "us"}\'', () => [], whole],
      ["name = name || '-other'", () => [], whole],
      ['captured = \'{"host": "a.test"}\'', () => [], ["access_token_sealed", "refresh_token_sealed"]],
      ["credentials_revision = 7", () => [], ["credentials_sealed", "mac"]],
      ['labels = \'{"tenant": "other"}\'', () => [], ["mac"]],
      ["scopes = '{admin}'", () => [], ["mac"]],
      ["mac = NULL", () => [], []],
      ["mac = $2", (row) => [strange.connections.sign(row)], ["mac"]],
      ["mac = 'k1.' || repeat('A', 43)", () => [], ["mac"]],
      ["access_token_sealed = '\\x02026b31'", () => [], ["access_token_sealed"]],
    ];
    const rows = [];
    for (const [sql, values] of attacks) {
      const row = await connection(stage);
      await run(stage, `UPDATE connections SET ${sql} WHERE id = $1::uuid`, [row.id, ...values(row)]);
      rows.push(row);
    }
    const before = await Promise.all(rows.map(async ({ id }) => await stage.columns(id)));
    const good = await connection(stage);
    const { unopened, forgotten } = await replica.rotate();
    expect(forgotten).toEqual([]);
    for (const [at, [sql, , left]] of attacks.entries()) {
      const id = rows[at]?.id ?? "";
      const named = unopened.filter((one) => one.id === id).map(({ column }) => column);
      expect(named.sort(), sql).toEqual([...left].sort());
      const now = await stage.columns(id);
      for (const column of left) expect(now[column], sql).toEqual(before[at]?.[column]);
      expect(now["mac"] === null, sql).toBe(sql === "mac = NULL");
    }
    expect(unopened.filter(({ id }) => id === good.id)).toEqual([]);
    expect(() => replica.vault.connections.check(good)).not.toThrow();
  });

  it("goes on at another replica where the first one stopped, not before its lease is over, and the first one cannot go on beside it", async () => {
    for (let each = 0; each < twoPages; each++) await stage.insert();
    const real = pagedRows(stage.database);
    const stopped = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    let pages = 0;
    const halting: SealedRows = {
      ...real,
      async replace(name, changes) {
        if (++pages === 2) {
          begun.resolve();
          await stopped.promise;
        }
        return await real.replace(name, changes);
      },
    };
    const first = new Replica(stage, halting);
    await first.beat();
    await first.service.rotate(principal, []);
    first.worker.start();
    await begun.promise;
    const second = new Replica(stage);
    await second.beat();
    expect(await second.rotations.take(second.self.id, newKey.id)).toBeNull();
    // As if it had been silent for longer than its lease.
    await run(stage, "UPDATE rotations SET lease_until = now() - interval '1 second'");
    const halfway = await first.rotations.newest();
    expect(halfway).toMatchObject({ place: "connections", moved: pageSize, pass: 1 });
    const rotation = await second.rotate();
    expect(rotation).toMatchObject({ moved: twoPages, forgotten: [stageKey.id] });
    stopped.resolve();
    await first.worker.stop();
    expect(first.errors).toEqual([]);
    expect(await second.rotations.newest()).toEqual(await first.rotations.newest());
    expect((await second.rotations.newest())?.moved).toBe(twoPages);
  });

  it("waits while Redis does not answer, and says so; if Redis has gone at the end, no key is forgotten", async () => {
    await connection(stage);
    replica.isRedisAway = true;
    await replica.service.rotate(principal, []);
    replica.worker.start();
    await until("it waits", async () => (await replica.rotations.newest())?.waitsFor?.startsWith("Redis") === true);
    expect(await replica.rotations.newest()).toMatchObject({ finishedAt: null, moved: 1, forgotten: [] });
    const old = (await replica.service.status(principal)).keys.find(({ id }) => id === stageKey.id);
    expect(old).toMatchObject({ isFree: false, marks: null, spooled: null });
    expect(old?.reasons).toContain("Redis does not answer");
    replica.isRedisAway = false;
    replica.beforeForgetting = () => void (replica.isRedisAway = true);
    expect((await replica.rotate()).forgotten).toEqual([]);
    const again = new Replica(stage);
    await run(stage, "TRUNCATE replicas");
    await again.beat();
    expect((await again.rotate()).forgotten).toEqual([stageKey.id]);
  });

  it("is refused while replicas seal with different keys, or one lacks the key, and names them", async () => {
    const other = new Replica(stage);
    const told = { ids: [stageKey.id], current: stageKey.id, held: [] };
    await other.replicas.beat({ ...other.self, heardAt: null, keys: told });
    const conflict = { code: "conflict", message: expect.stringContaining(other.self.name) as string };
    await expect(replica.service.rotate(principal, [])).rejects.toMatchObject(conflict);
    const added = { ...told, ids: [stageKey.id, newKey.id] };
    await other.replicas.beat({ ...other.self, heardAt: null, keys: added });
    await expect(replica.service.rotate(principal, [])).rejects.toMatchObject(conflict);
    expect(await replica.rotations.newest()).toBeNull();
    await other.beat();
    expect(await replica.service.rotate(principal, [])).toMatchObject({ targetKey: newKey.id, finishedAt: null });
    // Once more is the same one.
    const { id } = await replica.service.rotate(principal, []);
    expect((await replica.rotations.newest())?.id).toBe(id);
  });

  it("an instance that may hold something under a key keeps it in use, until it is seen without or is given up", async () => {
    const away = new Replica(stage);
    await away.replicas.beat({ ...away.self, heardAt: null, keys: { ids: ["k1"], current: "k1", held: ["k1"] } });
    await run(stage, "UPDATE replicas SET seen_at = now() - interval '2 days' WHERE id = $1::uuid", [away.self.id]);
    expect((await replica.rotate()).forgotten).toEqual([]);
    const keyOf = async () => (await replica.service.status(principal)).keys.find(({ id }) => id === "k1");
    expect(await keyOf()).toMatchObject({ isFree: false, isNamed: true, instances: [away.self.name] });
    expect((await keyOf())?.reasons.join()).toContain(`${away.self.name} has not been seen since`);
    const unknown = replica.service.rotate(principal, ["nobody:1"]);
    await expect(unknown).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining(away.self.name) as string,
    });
    await expect(replica.service.rotate(principal, [replica.self.name])).rejects.toMatchObject({ code: "conflict" });
    replica = new Replica(stage);
    await replica.beat();
    await run(stage, "DELETE FROM replicas WHERE id <> ALL(ARRAY[$1::uuid, $2::uuid])", [
      away.self.id,
      replica.self.id,
    ]);
    await replica.service.rotate(principal, [away.self.name]);
    expect((await replica.rotate()).forgotten).toEqual([stageKey.id]);
  });

  it("one that stopped in order keeps in use what its spool holds, and nothing else", async () => {
    const gone = new Replica(stage);
    const ids = ["k1", newKey.id];
    await gone.replicas.beat({ ...gone.self, heardAt: null, keys: { ids, current: "k1", held: ["k1"] } });
    await gone.replicas.leave(gone.self.id, ["k1"]);
    expect((await replica.rotate()).forgotten).toEqual([]);
    await gone.replicas.leave(gone.self.id, []);
    replica = new Replica(stage);
    await replica.beat();
    await run(stage, "DELETE FROM replicas WHERE id <> ALL(ARRAY[$1::uuid, $2::uuid])", [
      gone.self.id,
      replica.self.id,
    ]);
    expect((await replica.rotate()).forgotten).toEqual([stageKey.id]);
  });

  it("a key is used only once every replica that is present has it, and is named first", async () => {
    await stage.database.prisma.encryptionKey.delete({ where: { id: newKey.id } });
    const lacking = new Replica(stage);
    await lacking.replicas.beat({ ...lacking.self, heardAt: null, keys: { ids: ["k1"], current: "k1", held: [] } });
    replica.keyring.use("k1");
    await replica.beat();
    await replica.beat();
    expect(replica.keyring.current()).toBe("k1");
    const check = sealKeyCheck(replica.keyring, newKey.id);
    expect(await replica.known.adopt(replica.self.id, { id: newKey.id, check })).toBeNull();
    expect((await replica.known.list()).map(({ id }) => id)).toEqual(["k1"]);
    await lacking.beat(); // now it has both
    await replica.beat();
    await expect.poll(() => replica.keyring.current()).toBe(newKey.id);
    expect((await replica.known.list()).map(({ id }) => id).sort()).toEqual(["k1", newKey.id]);
    // What it sealed before may still be on its way.
    expect((await replica.currentKey.told()).held).toEqual(["k1"]);
    expect(replica.errors).toEqual([]);
  });

  const ofRaces = races ? Object.entries(changesUnderWay) : [];
  it.each(ofRaces)(
    "between a look at its row and the change, it does not fail %s",
    async (_who, { marker, change }) => {
      const rotate = async () => expect((await replica.rotate()).moved).toBeGreaterThan(0);
      const on = rotatingBefore(stage.database, { marker, rotate });
      await change(on, { made: await fill(stage), proofs: replica.vault });
      expect(await replica.rotations.newest()).toMatchObject({ forgotten: [stageKey.id] });
    },
  );

  it("a key whose bytes differ from those of another replica is not used, and that is told", async () => {
    const strange = createKeyring([{ ...newKey, key: randomBytes(32) }]);
    const check = sealKeyCheck(strange, newKey.id);
    await stage.database.prisma.encryptionKey.update({ where: { id: newKey.id }, data: { check } });
    replica.keyring.use("k1");
    await replica.beat();
    await expect.poll(() => replica.errors.join()).toContain('other bytes for the key "k2.new"');
    expect(replica.keyring.current()).toBe("k1");
  });
}

/** Opens the secrets of clients as a replica with other keys. */
class StoreClients {
  readonly stage: StoreStage;
  readonly vault: typeof vault;

  constructor(stage: StoreStage, by: typeof vault) {
    this.stage = stage;
    this.vault = by;
  }

  async find(clientId: string): Promise<string[]> {
    const client = await this.stage.clients.asItStands((await this.names(clientId))[0]?.name ?? "");
    if (client === null) throw new Error("the client is gone");
    this.vault.clients.check(client);
    const destination = clientDestination(client);
    return [client.secret, client.previousSecret].map((sealed, age) =>
      this.vault.openClientSecret(sealed ?? new Uint8Array(), {
        clientId,
        revision: client.secretRevision - age,
        destination,
      }),
    );
  }

  async names(clientId: string): Promise<{ name: string }[]> {
    return await this.stage.query<{ name: string }>("SELECT name FROM clients WHERE id = $1::uuid", clientId);
  }
}

describe("a rotation of encryption keys, embedded", () => rotating(useEmbedded));

describeWithServices(["postgres"], "a rotation of encryption keys, on Postgres", () => {
  const health = createDatabaseHealth(() => performance.now());
  rotating(async () => await openPostgres(await useDatabase(), health), { races: true });
});
