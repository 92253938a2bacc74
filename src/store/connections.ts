import { Prisma as Sql } from "../generated/prisma/client.ts";
import { grantsWithoutPerson, rulesOfGrant } from "../grant-types.ts";
import type { ProvenConnection, RowProofs } from "../proven-rows.ts";
import type { Labels } from "../labels.ts";
import { refreshTimes } from "../time.ts";
import type { ClientRow } from "./clients.ts";
import { type Columns, selectList } from "./columns.ts";
import type { Database } from "./database.ts";
import { type Bounds, carriesAll, hasOrAwaitsSecrets, json, seconds } from "./row-sql.ts";
import { type ConnectionStatus, type EventType, tokenColumns, type TokenRow } from "./token-row.ts";

/** A connection as operators see it, without any secret, sealed or not. */
export type ConnectionRecord = {
  id: string;
  name: string;
  provider: string;
  clientName: string | null;
  clientRef: string | null;
  grant: string;
  status: ConnectionStatus;
  scopes: string[];
  grantedScopes: string[];
  inputs: Record<string, string>;
  labels: Record<string, string>;
  account: string | null;
  accountLabel: string | null;
  credentialsRevision: number;
  generation: number;
  version: number;
  expiresAt: Date | null;
  refreshTokenExpiresAt: Date | null;
  lastRefreshedAt: Date | null;
  nextRefreshAt: Date | null;
  consecutiveFailures: number;
  lastErrorCode: string | null;
  lastErrorAt: Date | null;
  lastErrorDetail: string | null;
  /** Whether it has a refresh token. */
  holdsRefresh: boolean;
  /** Since when a needed refresh token is missing, or an older one has been kept that has not worked since; null: neither. */
  noRefreshTokenSince: Date | null;
  missingScopesSince: Date | null;
  /** Since when its grant counts as probably dead; null: it does not. */
  probablyDeadSince: Date | null;
  /** Since when its client's newest secret is refused while the one before works; null: not known. */
  newestRefusedSince: Date | null;
  /** Since when it is suspended because its row was restored from a backup; null: it is not. */
  goneBackAt: Date | null;
  createdAt: Date;
  updatedAt: Date;
  parentId: string | null;
  chain: string | null;
  /** The MAC over the columns that people set; see proven-rows.ts. */
  mac: string | null;
  /** Its further tokens, where they were asked for and there are some. */
  furtherTokens?: FurtherTokenRecord[];
};

/** A further token of a connection, as operators see it. */
export type FurtherTokenRecord = Pick<
  ConnectionRecord,
  | "status"
  | "grant"
  | "version"
  | "scopes"
  | "grantedScopes"
  | "expiresAt"
  | "refreshTokenExpiresAt"
  | "consecutiveFailures"
  | "lastErrorCode"
  | "lastErrorAt"
  | "lastErrorDetail"
  | "holdsRefresh"
  | "noRefreshTokenSince"
  | "probablyDeadSince"
> & { chain: string };

export type NewConnection = {
  id: string;
  name: string;
  provider: string;
  /** The client as it was when the caller's right to use it was checked. */
  client: ClientRow | null;
  grant: string;
  scopes: string[];
  inputs: Record<string, string>;
  labels: Record<string, string>;
  credentials: Uint8Array<ArrayBuffer> | null;
};

export type ConnectionFilter = {
  status?: ConnectionStatus;
  provider?: string;
  client?: string;
  label?: { key: string; value: string };
  nameContains?: string;
};

export type ConnectionChanges = {
  scopes?: string[];
  labels?: Record<string, string>;
  inputs?: Record<string, string>;
  credentials?: Uint8Array<ArrayBuffer>;
  disabled?: boolean;
};

export type ConnectionEventRow = { id: bigint; at: Date; type: EventType; detail: Record<string, unknown> };

/** `c`: the connection. */
const furtherTokenColumns: Columns<FurtherTokenRecord> = {
  chain: "c.chain",
  status: "c.status",
  grant: "c.grant_type",
  version: "c.version",
  scopes: "c.scopes",
  grantedScopes: "c.granted_scopes",
  holdsRefresh: "c.refresh_token_sealed IS NOT NULL",
  noRefreshTokenSince: "c.no_refresh_token_since",
  expiresAt: "c.expires_at",
  refreshTokenExpiresAt: "c.refresh_token_expires_at",
  consecutiveFailures: "c.consecutive_failures",
  lastErrorCode: "c.last_error_code",
  lastErrorAt: "c.last_error_at",
  lastErrorDetail: "c.last_error_detail",
  probablyDeadSince: "c.probably_dead_since",
};

/** `k`: its client, if it has one. */
const recordColumns: Columns<Omit<ConnectionRecord, "furtherTokens">> = {
  ...furtherTokenColumns,
  id: "c.id::text",
  name: "c.name",
  provider: "c.provider",
  clientName: "k.name",
  clientRef: "c.client_ref::text",
  inputs: "c.inputs",
  labels: "c.labels",
  account: "c.account",
  accountLabel: "c.account_label",
  credentialsRevision: "c.credentials_revision",
  generation: "c.generation",
  lastRefreshedAt: "c.last_refreshed_at",
  nextRefreshAt: "c.next_refresh_at",
  missingScopesSince: "c.missing_scopes_since",
  newestRefusedSince: "k.old_secret_since",
  goneBackAt: "CASE WHEN c.gone_back_from IS NOT NULL THEN c.gone_back_at END",
  createdAt: "c.created_at",
  updatedAt: "c.updated_at",
  parentId: "c.parent_id::text",
  mac: "c.mac",
};
const recordList = selectList(recordColumns);

export type Connections = ReturnType<typeof createConnections>;

/** Queries on connections, apart from their tokens. */
export function createConnections({ prisma }: Database, proofs: Pick<RowProofs, "connections">) {
  const find = async (condition: Sql.Sql): Promise<ConnectionRecord | null> => {
    const rows = await prisma.$queryRaw<ConnectionRecord[]>`
      SELECT ${recordList} FROM connections c LEFT JOIN clients k ON k.id = c.client_ref WHERE ${condition}`;
    return rows[0] ?? null;
  };

  return {
    /** Null also for a connection that does not carry each of these labels: that costs the same as a name that does not exist. */
    findByName: (name: string, labels: Labels = {}) =>
      find(Sql.sql`c.name = ${name} AND ${carriesAll(Sql.sql`c.labels`, labels)}`),
    findById: (id: string) => find(Sql.sql`c.id = ${id}::uuid`),

    /** Newest first. */
    async list(page: PageRequest, filter: ConnectionFilter, bounds: Bounds): Promise<ConnectionRecord[]> {
      const { client } = filter;
      // By its id, so that Postgres knows how many connections it has.
      const [known] =
        client === undefined
          ? []
          : await prisma.$queryRaw<{ id: string }[]>`SELECT id::text FROM clients WHERE name = ${client}`;
      if (client !== undefined && known === undefined) return [];
      const where = Sql.join(conditions({ ...filter, clientRef: known?.id }, page.after, bounds), " AND ");
      return await prisma.$queryRaw`
        SELECT ${recordList} FROM connections c LEFT JOIN clients k ON k.id = c.client_ref
        WHERE ${where} ORDER BY c.created_at DESC, c.id DESC LIMIT ${page.limit}`;
    },

    /**
     * A name that has been used before goes on from the version it had. False: the client is not as it was read any more.
     * @throws a unique violation when the name is in use
     */
    async insert(connection: NewConnection): Promise<boolean> {
      const { id, name, provider, client, grant, scopes, inputs, labels, credentials } = connection;
      const mac = proofs.connections.sign({ ...connection, clientRef: client?.id ?? null, ...newlyMade });
      const rows = await prisma.$queryRaw<unknown[]>`
        WITH ${unchanged(client)}, c AS (
          INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, inputs, labels,
            credentials_sealed, mac, version, next_refresh_at)
          SELECT ${id}::uuid, ${name}, ${provider}, ${client?.id ?? null}::uuid, ${grant}, ${scopes}::text[], '{}', ${json(inputs)},
            ${json(labels)}, ${credentials}, ${mac}, COALESCE((SELECT t.version FROM tombstones t WHERE t.name = ${name}), 0), ${firstTry(grant)}
          FROM k RETURNING id)
        INSERT INTO connection_events (connection_id, type) SELECT c.id, 'created' FROM c RETURNING type`;
      return rows.length > 0;
    },

    /**
     * Null: it is gone, or somebody has set something of it since it was read, or the client is not as it was; or a host would
     * change (`movesHost`) while there is something that was meant for the one before; or one of `freeLabels` binds a caller.
     * `freeLabels`: names of labels that change only while nobody is bound to them. `furtherTokens`: their rows, which are disabled and
     * enabled with it.
     */
    async update(
      record: ProvenConnection & Pick<TokenRow, "mac">,
      changes: ConnectionChanges,
      given: {
        client: ClientRow | null;
        movesHost: boolean;
        freeLabels?: readonly string[];
        furtherTokens?: readonly TokenRow[];
      },
    ): Promise<TokenRow | null> {
      const { id, mac } = record;
      const { disabled } = changes;
      // Only rows with a valid MAC are signed again: somebody who writes the table may have called any row a further token of this one.
      const ours = (given.furtherTokens ?? []).filter((row) => proofs.connections.isOurs(row));
      const sets = [...changeColumns(changes), Sql.sql`mac = ${proofs.connections.sign(changed(record, changes))}`];
      const ids = ours.map((row) => row.id);
      const seen = ours.map((row) => row.mac);
      const next = ours.map((row) => proofs.connections.sign(changed(row, { disabled: disabled ?? false })));
      const ofFurtherTokens =
        disabled === undefined
          ? Sql.empty
          : Sql.sql`further AS (UPDATE connections x SET
          ${Sql.join(changeColumns({ disabled }))}, mac = m.next
          FROM unnest(${ids}::uuid[], ${seen}::text[], ${next}::text[]) AS m(id, seen, next)
          WHERE x.id = m.id AND x.mac = m.seen AND x.parent_id IN (SELECT c.id FROM c)),`;
      const detail = { changed: Object.keys(changes) };
      // The lock is a statement of its own, so that the next statement sees what the last holder of the lock has committed.
      const lock = prisma.$executeRaw`SELECT 1 FROM connections
        WHERE ${given.movesHost} AND (id = ${id}::uuid OR parent_id = ${id}::uuid) ORDER BY id FOR UPDATE`;
      // The client is locked first, as wherever both are locked, so that there is no deadlock.
      const lockClient = prisma.$executeRaw`SELECT 1 FROM clients
        WHERE ${given.movesHost} AND id = ${given.client?.id ?? null}::uuid FOR SHARE`;
      const isFree = given.movesHost ? Sql.sql`AND NOT EXISTS (${holder(id)})` : Sql.empty;
      const { freeLabels = [] } = given;
      const bindsNobody = freeLabels.length > 0 ? Sql.sql`AND NOT EXISTS (${bindingLabels(freeLabels)})` : Sql.empty;
      const update = prisma.$queryRaw<TokenRow[]>`
        WITH ${unchanged(given.client)}, c AS (UPDATE connections c SET ${Sql.join(sets)} FROM k
          WHERE c.id = ${id}::uuid AND c.mac = ${mac} ${isFree} ${bindsNobody} RETURNING c.*),
        ${ofFurtherTokens}
        event AS (INSERT INTO connection_events (connection_id, type, detail)
          SELECT c.id, ${eventType(changes)}, ${json(detail)} FROM c)
        SELECT ${tokenColumns} FROM c`;
      const [, , rows] = await prisma.$transaction([lockClient, lock, update]);
      return rows[0] ?? null;
    },

    /** Those of the names of labels to which a caller is bound: a key or workload that has not ended. Those of WORKLOADS_FILE are not here. */
    async bindingLabels(names: readonly string[]): Promise<string[]> {
      if (names.length === 0) return [];
      return (await prisma.$queryRaw<{ name: string }[]>`${bindingLabels(names)}`).map(({ name }) => name);
    },

    /** Whether it has tokens or credentials, or may soon get some. */
    async hasOrAwaitsSecrets(id: string): Promise<boolean> {
      return (await prisma.$queryRaw<unknown[]>`${holder(id)}`).length > 0;
    },

    /** Deletes, its further tokens included, and leaves tombstones, in one statement; returns the rows as they last were. */
    async delete(id: string): Promise<TokenRow[]> {
      return await prisma.$queryRaw<TokenRow[]>`
        WITH locked AS MATERIALIZED (SELECT id FROM connections WHERE id = ${id}::uuid OR parent_id = ${id}::uuid ORDER BY id FOR UPDATE),
        c AS (DELETE FROM connections d USING locked WHERE d.id = locked.id RETURNING d.*),
        tombstone AS (
          INSERT INTO tombstones (name, connection_id, version, authorization_seq, provider, client_ref, inputs, captured)
          SELECT c.name, c.id, GREATEST(c.version, c.version_floor)
            + CASE WHEN c.attempt_id IS NULL THEN 0 ELSE 1 + c.attempt_replays END, c.authorization_seq, c.provider, c.client_ref, c.inputs, c.captured FROM c
          ON CONFLICT (name) DO UPDATE SET connection_id = excluded.connection_id, version = excluded.version,
            authorization_seq = excluded.authorization_seq, provider = excluded.provider, client_ref = excluded.client_ref,
            inputs = excluded.inputs, captured = excluded.captured, deleted_at = clock_timestamp())
        , unread AS (DELETE FROM unread_answers u USING c WHERE u.connection_id = c.id)
        SELECT ${tokenColumns} FROM c ORDER BY c.parent_id NULLS FIRST`;
    },

    /** The further tokens of a connection, by name. */
    async furtherTokens(parentId: string): Promise<FurtherTokenRecord[]> {
      return await prisma.$queryRaw`
        SELECT ${selectList(furtherTokenColumns)}
        FROM connections c WHERE c.parent_id = ${parentId}::uuid ORDER BY c.chain`;
    },

    /** Deletes a connection whose creation failed. It has never had a token, so it needs no tombstone. */
    async discard(id: string): Promise<void> {
      await prisma.$executeRaw`DELETE FROM connections WHERE id = ${id}::uuid`;
    },

    /**
     * Newest first; events of further tokens name the token in their detail. An event that names connections is included only if `patterns`
     * (of LIKE) cover one of them. Otherwise it would show that there are others.
     */
    async events(
      connectionId: string,
      { limit, before, patterns }: { limit: number; before: bigint | null; patterns: string[] },
    ): Promise<ConnectionEventRow[]> {
      const isToBeSeen = Sql.sql`CASE WHEN jsonb_typeof(detail->'connections') = 'array' THEN EXISTS (
        SELECT 1 FROM jsonb_array_elements_text(detail->'connections') named(one) WHERE one LIKE ANY(${patterns}::text[]))
        ELSE true END`;
      return await prisma.$queryRaw`
        SELECT e.id, e.at, e.type, CASE WHEN c.chain IS NULL THEN e.detail
            ELSE e.detail || jsonb_build_object('token', c.chain) END AS detail
        FROM connections c, LATERAL (SELECT * FROM connection_events WHERE connection_id = c.id
          AND (${before}::bigint IS NULL OR id < ${before}::bigint) AND ${isToBeSeen} ORDER BY id DESC LIMIT ${limit}) e
        WHERE c.id = ${connectionId}::uuid OR c.parent_id = ${connectionId}::uuid ORDER BY e.id DESC LIMIT ${limit}`;
    },

    async addEvent(connectionId: string, type: EventType, detail: Record<string, unknown>): Promise<void> {
      await prisma.$executeRaw`INSERT INTO connection_events (connection_id, type, detail)
        VALUES (${connectionId}::uuid, ${type}, ${json(detail)})`;
    },
  };
}

/** A condition: the client decides the same as when it was read. It is locked, so it stays so until the statement ends. */
function unchanged(client: ClientRow | null): Sql.Sql {
  if (client === null) return Sql.sql`k AS (SELECT 1)`;
  return Sql.sql`k AS (SELECT 1 FROM clients WHERE id = ${client.id}::uuid AND mac = ${client.mac} FOR SHARE)`;
}

/** Each name by itself, so that Postgres knows how many keys have it. There is at least one. */
const bindingLabels = (names: readonly string[]) =>
  Sql.join(
    names.map(
      (name) => Sql.sql`SELECT ${name}::text AS name WHERE EXISTS (SELECT 1 FROM api_keys k
        WHERE k.labels ? ${name} AND k.labels <> '{}' AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()))
      OR EXISTS (SELECT 1 FROM workloads w
        WHERE w.labels ? ${name} AND w.deleted_at IS NULL AND (w.expires_at IS NULL OR w.expires_at > clock_timestamp()))`,
    ),
    " UNION ALL ",
  );

const holder = (id: string) => Sql.sql`SELECT 1 FROM connections c
  WHERE (c.id = ${id}::uuid OR c.parent_id = ${id}::uuid) AND ${hasOrAwaitsSecrets}`;

function conditions(
  filter: Omit<ConnectionFilter, "client"> & { clientRef: string | undefined },
  after: PagePosition | null,
  { patterns, labels }: Bounds,
): Sql.Sql[] {
  const { status, provider, clientRef, label, nameContains } = filter;
  const all = [Sql.sql`c.parent_id IS NULL`, isNamedLike(patterns), carriesAll(Sql.sql`c.labels`, labels)];
  if (status !== undefined) all.push(Sql.sql`c.status = ${status}`);
  if (provider !== undefined) all.push(Sql.sql`c.provider = ${provider}`);
  if (clientRef !== undefined) all.push(Sql.sql`c.client_ref = ${clientRef}::uuid`);
  if (label !== undefined) all.push(carriesAll(Sql.sql`c.labels`, { [label.key]: label.value }));
  if (nameContains !== undefined) all.push(Sql.sql`position(lower(${nameContains}) in lower(c.name)) > 0`);
  if (after !== null) {
    all.push(Sql.sql`(c.created_at, c.id) < (${after.createdAt}::timestamptz, ${after.id}::uuid)`);
  }
  return all;
}

/** One condition for each pattern, since an index finds the names that begin as one pattern does, and not those of an array. */
const isNamedLike = (patterns: readonly string[]) =>
  patterns.includes("%")
    ? Sql.sql`true`
    : Sql.sql`(${Sql.join([Sql.sql`false`, ...patterns.map((pattern) => Sql.sql`c.name LIKE ${pattern}`)], " OR ")})`;

const withoutPerson = Sql.sql`grant_type = ANY(${grantsWithoutPerson}::text[])`;

/** New credentials, or secret inputs, open a connection that needs no person, and let it be tried at once. */
function changeColumns({ scopes, labels, inputs, credentials, disabled }: ConnectionChanges): Sql.Sql[] {
  const sets: Sql.Sql[] = [Sql.sql`updated_at = clock_timestamp()`];
  if (scopes !== undefined) {
    sets.push(Sql.sql`scopes = ${scopes}::text[], missing_scopes_since =
      CASE WHEN generation > 0 AND NOT ${scopes}::text[] <@ granted_scopes THEN COALESCE(missing_scopes_since, clock_timestamp()) END`);
  }
  if (labels !== undefined) sets.push(Sql.sql`labels = ${json(labels)}`);
  if (inputs !== undefined) sets.push(Sql.sql`inputs = inputs || ${json(inputs)}`);
  const enabled =
    credentials === undefined
      ? Sql.sql`enabled_status`
      : Sql.sql`CASE WHEN enabled_status = 'needs_reauthorization' AND ${withoutPerson} THEN 'pending' ELSE enabled_status END`;
  if (credentials !== undefined) {
    sets.push(Sql.sql`next_refresh_at = CASE WHEN ${withoutPerson} THEN ${firstTryAt} ELSE next_refresh_at END, credentials_sealed = ${credentials}, credentials_revision = credentials_revision + 1,
      backoff_until = NULL, enabled_status = ${enabled}, untried = true`);
  }
  const status =
    disabled === undefined
      ? Sql.sql`CASE WHEN status = 'disabled' THEN status ELSE ${enabled} END`
      : Sql.sql`${disabled ? Sql.sql`'disabled'` : enabled}`;
  sets.push(Sql.sql`status = ${status}`);
  return sets;
}

const newlyMade = { parentId: null, chain: null, status: "pending", credentialsRevision: 0 };

/** The columns that people set, as they will be. */
function changed<Row extends ProvenConnection>(row: Row, changes: ConnectionChanges): Row {
  const { scopes = row.scopes, labels = row.labels, disabled = row.status === "disabled" } = changes;
  return {
    ...row,
    scopes,
    labels,
    inputs: { ...row.inputs, ...changes.inputs },
    status: disabled ? "disabled" : "enabled",
    credentialsRevision: row.credentialsRevision + (changes.credentials === undefined ? 0 : 1),
  };
}

/** When the sweeper fetches the first token, if the process that makes the connection does not. */
function firstTry(grant: string): Sql.Sql {
  if (rulesOfGrant(grant).needsPerson) return Sql.sql`NULL::timestamptz`;
  return firstTryAt;
}

const firstTryAt = Sql.sql`clock_timestamp() + ${seconds(refreshTimes.firstTrySeconds)}`;

function eventType({ disabled }: ConnectionChanges): EventType {
  if (disabled === undefined) return "updated";
  return disabled ? "disabled" : "enabled";
}

/** A page of a list, newest first: what comes after the last item of the page before. */
export type PageRequest = { limit: number; after: PagePosition | null };

export type PagePosition = { createdAt: Date; id: string };
