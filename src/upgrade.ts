import { createDecipheriv } from "node:crypto";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import type { SpoolPlace } from "./coordination/spool.ts";
import { StartupError } from "./errors.ts";
import type { ProviderDefinition } from "./providers/format/definition.ts";
import { hostInputs } from "./providers/format/requirements.ts";
import { unconfirmedColumns, type UnconfirmedGrant } from "./store/accounts.ts";
import { type ApiKeyRow, keyColumns } from "./store/api-keys.ts";
import { clientColumns, type ClientRow } from "./store/clients.ts";
import { type Columns, selectList } from "./store/columns.ts";
import { type ConsentLinkRow, linkColumns } from "./store/consents.ts";
import { migrationLock, type MigrationSession } from "./store/migrate.ts";
import { tokenColumns, type TokenRow } from "./store/token-row.ts";
import { replicaTimes } from "./time.ts";
import {
  type AnswerRecord,
  clientDestination,
  secretsDestination,
  secretsPlace,
  grantDestination,
  placeOf,
  readRecord,
  sealRecord,
} from "./tokens/seal.ts";
import { commonKey, keyCheckPlace, type Keyring, type Place, sealKeyCheck, verifyKeyring } from "./vault/keyring.ts";
import * as places from "./vault/vault.ts";

/** A note in DATA_DIR: a process with this folder has seen a database with sealed format 2. */
export type FormatMemory = { exists(): boolean; write(): Promise<void> };

/** A file in `DATA_DIR`. If somebody deletes it, an older database is accepted once more. */
export function createFormatMemory(path: string): FormatMemory {
  return {
    exists: () => existsSync(path),
    write: async () =>
      await writeFile(path, "2\n", { mode: 0o600, flush: true }).catch((error: NodeJS.ErrnoException) => {
        throw new StartupError(`DATA_DIR: ${path} cannot be written (${error.code})`);
      }),
  };
}

export type SealedFormatParts = {
  keys: readonly { id: string; key: Buffer }[];
  /** Of these keys. Its current key is chosen here, before anything is sealed. */
  keyring: Keyring;
  /** Who starts, and under which keys something waits in its DATA_DIR; null: no other process can be there. */
  self: { id: string; name: string; held: () => Promise<string[]> } | null;
  definitions: Resealing["definitions"];
  onSetAside: Resealing["onSetAside"];
  memory: FormatMemory;
  /** The spool in this process's own folder. */
  files: SpoolPlace;
  /** The spool that all replicas share; null: there is none. @throws StartupError when it does not answer */
  shared: () => Promise<(SpoolPlace & AsyncDisposable) | null>;
};

/**
 * Makes sure that a database has sealed format 2, in which secrets are bound to where they are sent and rows are proven, and that
 * this keyring fits it. Called at every start, on a session of its own, after the migrations and under their lock.
 *
 * Each key's check record in `encryption_keys` shows the format. As soon as one has format 2, format 1 is refused. An upgrade seals
 * everything again in one transaction, the check records included. If the process dies in the middle, the database stays as it was, and
 * the next start begins again. How a database is recognised (docs/decisions/0017):
 *
 * | `encryption_keys`        | elsewhere                     | it is                                              |
 * | ------------------------ | ----------------------------- | -------------------------------------------------- |
 * | empty                    | empty                         | new: it begins with format 2                       |
 * | empty                    | anything                      | its check records are missing: refused             |
 * | format 1                 | nothing of format 2           | from before: sealed again; refused if DATA_DIR notes format 2 |
 * | format 1                 | anything of format 2          | its check records are missing: refused             |
 * | format 2                 |                               | ready                                              |
 *
 * Then the current key gets its check record, before anything is sealed with it. Other keys get theirs when they become the current one.
 *
 * @throws StartupError for what the operator must look at
 */
export async function ensureSealedFormat(session: MigrationSession, parts: SealedFormatParts): Promise<void> {
  await session.execute("BEGIN");
  try {
    await session.query("SELECT pg_advisory_xact_lock($1)::text", [migrationLock]);
    await ensureUnderLock(session, parts);
    await session.execute("COMMIT");
  } catch (error) {
    await session.execute("ROLLBACK").catch(() => undefined); // if the connection is lost, Postgres has rolled back already
    throw error;
  }
  if (!parts.memory.exists()) await parts.memory.write();
}

async function ensureUnderLock(session: MigrationSession, parts: SealedFormatParts): Promise<void> {
  const { keys, keyring, memory, files } = parts;
  const checks = await session.query<{ id: string; check: Uint8Array }>(
    `SELECT id, check_sealed AS "check" FROM encryption_keys`,
  );
  const resealing: Resealing = {
    session,
    keyring,
    definitions: parts.definitions,
    onSetAside: parts.onSetAside,
    openOld: opener(keys),
  };
  const inUse: string[] = [];
  if (checks.length === 0) {
    if (await anyExists(session, anything)) {
      throw formatRecordMissing("its table encryption_keys is empty, and other tables are not");
    }
    await chooseCurrentKey(session, parts);
  } else if (checks.every(({ check }) => isOldFormat(check))) {
    verifyOldChecks(keys, checks);
    if (await anyExists(session, anythingNew)) {
      throw formatRecordMissing("its encryption_keys have the form from before, and other rows do not");
    }
    if (memory.exists()) {
      throw formatRecordMissing(
        "its encryption_keys have the form from before; delete the file sealed-format in DATA_DIR if it is an old backup",
      );
    }
    await chooseCurrentKey(session, parts);
    await using shared = await parts.shared();
    await resealDatabase(resealing);
    await resealSpools(resealing, shared === null ? [files] : [files, shared]);
    await session.execute("DELETE FROM encryption_keys");
    inUse.push(...checks.map(({ id }) => id)); // the folders of other replicas may hold answers under them
  } else {
    verifyKeyring(keyring, checks);
    await chooseCurrentKey(session, parts);
    // Another replica has upgraded the database. The spool folder of this one may still have answers in format 1.
    if (!memory.exists()) await resealSpools(resealing, [files]);
  }
  for (const id of [keyring.current(), ...inUse]) {
    await session.query("INSERT INTO encryption_keys (id, check_sealed) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING", [
      id,
      sealKeyCheck(keyring, id),
    ]);
  }
  await register(session, parts);
}

/**
 * The first key of its own list that every replica has that was seen in the last minute. Under the lock of migrations no other replica begins
 * to use a key, or starts with other keys, meanwhile (docs/internals/key-rotation.md).
 */
async function chooseCurrentKey(session: MigrationSession, { keyring, self }: SealedFormatParts): Promise<void> {
  if (self === null) return;
  const others = await session.query<{ ids: string[] }>(
    `SELECT COALESCE(NULLIF(key_ids, '{}'), (SELECT array_agg(e.id) FROM encryption_keys e)) AS ids FROM replicas
     WHERE id <> $1::uuid AND seen_at > clock_timestamp() - make_interval(secs => $2::float8)`,
    [self.id, replicaTimes.presentSeconds],
  );
  const lists = others.map(({ ids }) => ids);
  const common = commonKey(keyring.ids, lists);
  if (common === null) {
    const theirs = [...new Set(lists.flat())].join(", ");
    throw new StartupError(
      `ENCRYPTION_KEYS has no key in common with the replicas that run: it has ${keyring.ids.join(", ")}, and they have ${theirs}`,
    );
  }
  keyring.use(common);
}

/**
 * From here on other replicas know which keys this one has. It serves nothing before its first beat, so it has no ends to receive (`heard_at` lies
 * ahead), and has sealed nothing yet (no `current_key`).
 */
async function register(session: MigrationSession, { keyring, self }: SealedFormatParts): Promise<void> {
  if (self === null) return;
  await session.query(
    `INSERT INTO replicas (id, name, heard_at, seen_at, key_ids, held_key_ids)
     VALUES ($1::uuid, $2, clock_timestamp() + make_interval(hours => $5::int), clock_timestamp(), $3::text[], $4::text[])
     ON CONFLICT (id) DO UPDATE SET name = excluded.name, heard_at = excluded.heard_at, seen_at = excluded.seen_at,
       key_ids = excluded.key_ids, current_key = NULL, held_key_ids = excluded.held_key_ids, left_at = NULL`,
    [self.id, self.name, keyring.ids, await self.held(), replicaTimes.forgetHours],
  );
}

const tables = ["api_keys", "clients", "connections", "consent_links", "held_grants"];
const anything = tables.map((table) => `EXISTS (SELECT 1 FROM ${table})`);
const sealedColumns = {
  clients: ["secret_sealed"],
  connections: ["access_token_sealed", "refresh_token_sealed", "credentials_sealed"],
  candidates: ["record_sealed"],
  unread_answers: ["answer_sealed"],
  held_grants: ["record_sealed"],
};
/** The first byte of a record is its format. Each query stops at the first row. */
const anythingNew = [
  ...tables.map((table) => `EXISTS (SELECT 1 FROM ${table} WHERE mac IS NOT NULL)`),
  ...Object.entries(sealedColumns).flatMap(([table, columns]) =>
    columns.map((column) => `EXISTS (SELECT 1 FROM ${table} WHERE substr(${column}, 1, 1) = '\\x02')`),
  ),
];

async function anyExists(session: MigrationSession, conditions: readonly string[]): Promise<boolean> {
  const [row] = await session.query<{ found: boolean }>(`SELECT ${conditions.join(" OR ")} AS found`);
  return row?.found === true;
}

function formatRecordMissing(what: string): StartupError {
  return new StartupError(
    `DATABASE_URL (or DATA_DIR, without one): the database has lost the mark of its sealed format: ${what}. Somebody may have changed it by hand: restore a backup, see docs/security.md`,
  );
}

function opener(keys: SealedFormatParts["keys"]): Resealing["openOld"] {
  const byId = new Map(keys.map(({ id, key }) => [id, key]));
  return (record, place) => openOldFormat(record, (id) => byId.get(id), place);
}

function verifyOldChecks(keys: SealedFormatParts["keys"], checks: readonly { id: string; check: Uint8Array }[]): void {
  const openOld = opener(keys);
  const open = (record: Uint8Array, id: string) => openOld(record, keyCheckPlace(id));
  verifyKeyring({ ids: keys.map(({ id }) => id), open: (record, place) => open(record, place.row) }, checks);
}

type Resealing = {
  session: MigrationSession;
  keyring: Keyring;
  /** By the provider's id; undefined: it is gone. */
  definitions: (id: string) => ProviderDefinition | undefined;
  /** Opens a record of format 1. @throws when it cannot be opened */
  openOld: (record: Uint8Array, place: Place) => string;
  /** Called for a row that gets no MAC, since it holds a value that no broker writes. It stays as it is and counts as absent. */
  onSetAside: (row: { table: string; id: string; name: string | null }) => void;
};

type Sealed = Uint8Array | null;
type UnreadAnswer = { id: string; connectionId: string; generation: number; answer: Uint8Array };
const unreadColumns: Columns<UnreadAnswer> = {
  id: "c.id::text",
  connectionId: "c.connection_id::text",
  generation: "c.generation",
  answer: "c.answer_sealed",
};

/** An answer that is not in its row yet. */
type Persisted = { connectionId: string; generation: number; record: Uint8Array };
const candidateColumns: Columns<Persisted & { id: string }> = {
  id: "c.attempt_id::text",
  connectionId: "c.connection_id::text",
  generation: "c.base_generation",
  record: "c.record_sealed",
};

const batchSize = 500;

/** Seals everything in the database for its destination, and adds a MAC to every row. Values that cannot be opened are left unchanged. */
async function resealDatabase(given: Resealing): Promise<void> {
  const vault = places.createTokenVault(given.keyring);
  const reseal = resealer(given);
  const placeFor = (row: TokenRow) => withHosts(placeOf(row), hostsFor(given, row));

  await eachRow<TokenRow>(
    given,
    { table: "connections", select: `SELECT ${tokenColumns.sql} FROM connections c` },
    (row) => {
      const hosts = hostsFor(given, row);
      const ofSecrets = secretsPlace(row, { revision: row.credentialsRevision, hosts });
      return [
        `UPDATE connections SET access_token_sealed = $2, refresh_token_sealed = $3, credentials_sealed = $4,
           mac = $5 WHERE id = $1::uuid`,
        [
          row.id,
          reseal(row.accessToken, places.accessTokenPlace(placeFor(row))),
          reseal(row.refreshToken, places.refreshTokenPlace(placeFor(row))),
          reseal(row.credentials, places.credentialsPlace(ofSecrets)),
          vault.connections.sign(row),
        ],
      ];
    },
  );

  await eachRow<ClientRow>(
    given,
    {
      table: "clients",
      select: `SELECT ${clientColumns.sql} FROM clients k`,
      id: "k.id",
    },
    (client) => {
      const destination = clientDestination(client);
      const at = (revision: number) => places.clientSecretPlace({ clientId: client.id, revision, destination });
      return [
        "UPDATE clients SET secret_sealed = $2, previous_secret_sealed = $3, mac = $4 WHERE id = $1::uuid",
        [
          client.id,
          reseal(client.secret, at(client.secretRevision)),
          reseal(client.previousSecret, at(client.secretRevision - 1)),
          vault.clients.sign(client),
        ],
      ];
    },
  );

  await eachRow<ApiKeyRow>(
    given,
    {
      table: "api_keys",
      select: `SELECT ${keyColumns.sql} FROM api_keys k`,
      id: "k.id",
    },
    (key) => ["UPDATE api_keys SET mac = $2 WHERE id = $1", [key.id, vault.keys.sign(key)]],
  );

  await eachRow<ConsentLinkRow>(
    given,
    {
      table: "consent_links",
      select: `SELECT ${linkColumns.sql} FROM consent_links`,
      id: "id",
    },
    (link) => ["UPDATE consent_links SET mac = $2 WHERE id = $1", [link.id, vault.links.sign(link)]],
  );

  await eachRow<UnreadAnswer>(
    given,
    { table: "unread_answers", select: `SELECT ${selectList(unreadColumns).sql} FROM unread_answers c` },
    ({ id, answer, ...at }) => [
      "UPDATE unread_answers SET answer_sealed = $2 WHERE id = $1::uuid",
      [id, reseal(answer, places.answerPlace(at))],
    ],
  );

  await eachRow<Persisted & { id: string }>(
    given,
    {
      table: "candidates",
      select: `SELECT ${selectList(candidateColumns).sql} FROM candidates c`,
      id: "c.attempt_id",
    },
    async ({ id, ...candidate }) => {
      const record = await resealRecord(given, candidate);
      return ["UPDATE candidates SET record_sealed = $2 WHERE attempt_id = $1::uuid", [id, record]];
    },
  );

  await eachRow<UnconfirmedGrant & { id: string }>(
    given,
    {
      table: "held_grants",
      select: `SELECT h.attempt_id::text AS id, ${unconfirmedColumns.sql} FROM held_grants h`,
      id: "h.attempt_id",
    },
    async (unconfirmed) => {
      const record = await resealRecord(given, unconfirmed);
      const proof = vault.unconfirmedGrants.sign(unconfirmed);
      return [
        "UPDATE held_grants SET record_sealed = $2, mac = $3 WHERE attempt_id = $1::uuid",
        [unconfirmed.id, record, proof],
      ];
    },
  );

  await resealDeviceCodes(given);
}

const deviceColumns = {
  id: "c.id::text",
  connectionId: "c.connection_id::text",
  deviceCode: "c.device_code_sealed",
  linkId: "c.link_id",
  userCode: "c.user_code",
  verificationUri: "c.verification_uri",
  verificationUriComplete: "c.verification_uri_complete",
  intervalSeconds: "c.interval_s",
  expiresInSeconds: "EXTRACT(EPOCH FROM c.expires_at - c.created_at)::int",
};
type Device = { id: string; connectionId: string; deviceCode: Uint8Array } & Record<
  keyof typeof deviceColumns,
  unknown
>;

/** Seals a device code together with what its person is shown, which had columns of its own before, and with the connection's scopes. */
async function resealDeviceCodes(given: Resealing): Promise<void> {
  await eachRow<Device>(
    given,
    {
      table: "device_authorizations",
      select: `SELECT ${selectList(deviceColumns).sql} FROM device_authorizations c`,
    },
    async ({ id, connectionId, deviceCode, ...shown }) => {
      const row = await rowOf(given, connectionId);
      if (row === null) return null;
      const destination = secretsDestination(row, hostsFor(given, row));
      const place = places.deviceCodePlace({ requestId: id, destination });
      const joined = (code: string) => JSON.stringify({ ...shown, scopes: row.scopes, deviceCode: code });
      const sealed = resealer(given)(deviceCode, place, joined);
      return ["UPDATE device_authorizations SET device_code_sealed = $2 WHERE id = $1::uuid", [id, sealed]];
    },
  );
}

/** Seals the answers in spools anew, where they are. */
async function resealSpools(given: Resealing, spools: readonly SpoolPlace[]): Promise<void> {
  for (const spool of spools) {
    const entries = await spool.list().catch((error: unknown) => cannot("read", spool, error));
    for (const entry of entries.filter(({ record }) => isOldFormat(record))) {
      const record = new Uint8Array(await resealRecord(given, entry));
      await spool.put({ ...entry, record }).catch((error: unknown) => cannot("written", spool, error));
    }
  }
}

/** A start that cannot reach a spool fails: after it, answers in the old form are refused, and one that was missed would be lost. */
function cannot(what: "read" | "written", { name }: SpoolPlace, error: unknown): never {
  const { code = "unknown error" } = error as NodeJS.ErrnoException;
  const place = name === "redis" ? "REDIS_URL: what waits in Redis" : "DATA_DIR: its folder spool";
  throw new StartupError(`${place} cannot be ${what} (${code}); this start seals anew what waits there to be stored`);
}

/** Seals a stored answer, and the tokens in it, for its row's destination. Records that cannot be opened are left unchanged. */
async function resealRecord(given: Resealing, stored: Persisted): Promise<Uint8Array> {
  const vault = places.createTokenVault(given.keyring);
  try {
    const record = readRecord(given.openOld(stored.record, places.recordPlace(stored)));
    return sealRecord(vault, await resealForRow(given, record));
  } catch {
    return stored.record;
  }
}

/** Seals the tokens of an answer, and of the answers in it, for their row. */
async function resealForRow(given: Resealing, record: AnswerRecord): Promise<AnswerRecord> {
  const row = (await rowOf(given, record.connectionId)) ?? (await tombstoneAsRow(given, record.connectionId));
  const hosts = hostsFor(given, row);
  const accountCaptured = record.account === undefined ? row.accountCaptured : {};
  const { captured } = record.grant;
  const at = { ...row, id: record.connectionId, generation: record.sealedFor, captured, accountCaptured };
  const place = withHosts(placeOf(at), hosts);
  const reseal = resealer(given);
  const grant = {
    ...record.grant,
    accountCaptured,
    accessToken: reseal(record.grant.accessToken, places.accessTokenPlace(place)),
    refreshToken: reseal(record.grant.refreshToken, places.refreshTokenPlace(place)),
  };
  const further = await Promise.all((record.further ?? []).map((one) => resealForRow(given, one)));
  const other = record.other && (await resealForRow(given, record.other));
  const more = { ...(other && { other }), ...(record.further && { further }) };
  return { ...record, grant, destination: grantDestination(row, hosts), ...more };
}

type Bound = Parameters<typeof grantDestination>[0] & Pick<TokenRow, "accountCaptured">;

async function rowOf({ session }: Resealing, id: string): Promise<TokenRow | null> {
  const sql = `SELECT ${tokenColumns.sql} FROM connections c WHERE c.id = $1::uuid`;
  return (await session.query<TokenRow>(sql, [id]))[0] ?? null;
}

/** What a row is needed for, from the tombstone of a deleted connection. Its answer is revoked within a day, and is of no use after that. */
async function tombstoneAsRow({ session }: Resealing, id: string): Promise<Bound> {
  const [tombstone] = await session.query<Bound>(
    `SELECT name, NULL AS "parentId", provider, client_ref::text AS "clientRef", inputs
       || COALESCE((SELECT k.inputs FROM clients k WHERE k.id = client_ref), '{}') AS "inputsInForce",
       '{}'::jsonb AS "accountCaptured" FROM tombstones WHERE connection_id = $1::uuid`,
    [id],
  );
  return (
    tombstone ?? { name: "", parentId: null, provider: "", clientRef: null, inputsInForce: {}, accountCaptured: {} }
  );
}

/** If the provider's definition is gone, any input may fill a host. */
function hostsFor({ definitions }: Resealing, { provider, inputsInForce }: Pick<Bound, "provider" | "inputsInForce">) {
  const definition = definitions(provider);
  return definition === undefined ? Object.keys(inputsInForce) : hostInputs(definition);
}

function withHosts(at: places.TokenPlace, hosts: readonly string[]): places.TokenPlace {
  return { ...at, destination: { ...at.destination, hosts } };
}

/** A value that cannot be opened in format 1 is left unchanged. It concerns one row, and is reported when that row is used. */
function resealer({ keyring, openOld }: Resealing) {
  return <Record extends Sealed>(record: Record, place: Place, change = (text: string) => text) => {
    type Result = Record extends null ? null : Uint8Array<ArrayBuffer>;
    if (record === null) return null as Result;
    try {
      return keyring.seal(change(openOld(record, place)), place) as Result;
    } catch {
      return new Uint8Array(record) as Result;
    }
  };
}

/** The statement that changes a row, with its values; null: the row stays as it is. */
type Change = [sql: string, values: unknown[]] | null;

/** In batches, in the order of ids. A row that can get no MAC is left out. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- said by who writes the SELECT, as with `query`
async function eachRow<Row extends { id: string }>(
  { session, onSetAside }: Resealing,
  { table, select, id = "c.id" }: { table: string; select: string; id?: string },
  changeOf: (row: Row) => Change | Promise<Change>,
): Promise<void> {
  let rows: Row[] = [];
  do {
    const last = rows.at(-1)?.id ?? null;
    rows = await session.query<Row>(
      `${select} WHERE $1::text IS NULL OR ${id}::text > $1::text ORDER BY ${id}::text LIMIT ${batchSize}`,
      [last],
    );
    for (const row of rows) {
      let change: Change;
      try {
        change = await changeOf(row);
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        onSetAside({ table, id: row.id, name: "name" in row ? String(row.name) : null });
        continue;
      }
      if (change !== null) await session.query(change[0], change[1]);
    }
    // failpoint: rows sealed anew
  } while (rows.length === batchSize);
}

const formatVersion = 1;
const nonceBytes = 12;
const tagBytes = 16;

/** Whether a record has format 1. */
function isOldFormat(record: Uint8Array): boolean {
  return record[0] === formatVersion;
}

/**
 * Opens a record of that form: version (1 byte), length of key id (1), key id, nonce (12), tag (16), ciphertext. It binds no
 * destination. Only the upgrade reads it. @throws Error when it does not open
 */
function openOldFormat(record: Uint8Array, keyOf: (id: string) => Buffer | undefined, place: Place): string {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const nonceAt = 2 + (bytes[1] ?? 0);
  const tagAt = nonceAt + nonceBytes;
  const key = keyOf(bytes.toString("utf8", 2, nonceAt));
  if (!isOldFormat(bytes) || key === undefined) throw new Error("not a record of the old form, or its key is not here");
  const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(nonceAt, tagAt), { authTagLength: tagBytes });
  const { table, row, column, revision } = place;
  decipher.setAAD(
    Buffer.concat([bytes.subarray(0, nonceAt), Buffer.from(JSON.stringify([table, row, column, revision]))]),
  );
  decipher.setAuthTag(bytes.subarray(tagAt, tagAt + tagBytes));
  return Buffer.concat([decipher.update(bytes.subarray(tagAt + tagBytes)), decipher.final()]).toString("utf8");
}
