import { randomBytes, randomUUID } from "node:crypto";
import { createApiKeys } from "../../../src/store/api-keys.ts";
import { createClients } from "../../../src/store/clients.ts";
import { createConnections, type NewConnection } from "../../../src/store/connections.ts";
import { createAuthorizationRequests, createConsentAttempts, createConsentLinks } from "../../../src/store/consents.ts";
import type { Database } from "../../../src/store/database.ts";
import { createTombstones } from "../../../src/store/token-sets.ts";
import { createEncryptionKeys } from "../../../src/store/replicas.ts";
import type { SealedGrant } from "../../../src/store/row-sql.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { createTokenStatements } from "../../../src/store/token-statements.ts";
import { createWorkloads, type NewWorkload } from "../../../src/store/workloads.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";

/** A connection's columns as they stand, times in ISO 8601. */
export type Columns = Record<string, unknown>;

type ConnectionToMake = Partial<NewConnection> & { clientRef?: string | null };

/** What proves the rows of these tests, and seals their secrets. */
export const stageKey = { id: "k1", key: randomBytes(32) };
export const vault = createTokenVault(createKeyring([stageKey]));

/** A workload to be declared, with these fields in place of the usual ones. */
export function newWorkload(fields: Partial<NewWorkload> = {}): NewWorkload {
  const id = randomUUID();
  return {
    id,
    name: `w-${id}`,
    issuer: "https://issuer.example",
    jwks: null,
    jwksUri: "https://issuer.example/keys",
    ca: null,
    networks: ["10.0.0.0/8"],
    audience: "freshet",
    algorithms: ["RS256"],
    match: JSON.stringify({ sub: id }),
    abilities: ["tokens", "admin"],
    connections: ["acme-*"],
    labels: { customer: "acme", area: "north" },
    expiresAt: null,
    ...fields,
  };
}

/** A change that concerns no client and moves no host. */
export const freely = { client: null, movesHost: false };

/** The queries of every table on one database, and ways for a test to look at the rows without them. */
export class StoreStage {
  readonly database: Database;
  /** Part of the generated rows that is tried here: the embedded database is Postgres too, and ten times slower. */
  readonly share: number;
  readonly rows;
  readonly connections;
  readonly clients;
  readonly keys;
  readonly workloads;
  readonly links;
  readonly requests;
  readonly attempts;
  readonly encryptionKeys;
  readonly tombstones;

  constructor(database: Database, share = 1) {
    this.database = database;
    this.share = share;
    this.rows = createTokenStatements(database);
    this.connections = createConnections(database, vault);
    this.clients = createClients(database, vault);
    this.keys = createApiKeys(database, vault);
    this.workloads = createWorkloads(database, vault);
    this.links = createConsentLinks(database.prisma, vault);
    this.requests = createAuthorizationRequests(database.prisma);
    this.attempts = createConsentAttempts(database.prisma);
    this.encryptionKeys = createEncryptionKeys(database);
    this.tombstones = createTombstones(database);
  }

  async query<Row>(sql: string, ...values: unknown[]): Promise<Row[]> {
    return await this.database.prisma.$queryRawUnsafe<Row[]>(sql, ...values);
  }

  /** Moves a connection to where a test wants it: times are moved, never waited for. */
  async set(id: string, assignments: string): Promise<void> {
    await this.database.prisma.$executeRawUnsafe(`UPDATE connections SET ${assignments} WHERE id = $1::uuid`, id);
  }

  async columns(id: string): Promise<Columns> {
    const [found] = await this.query<{ row: Columns }>(
      "SELECT to_jsonb(c) AS row FROM connections c WHERE id = $1::uuid",
      id,
    );
    return found?.row ?? {};
  }

  async row(id: string): Promise<TokenRow> {
    const row = await this.rows.readById(id);
    if (row === null) throw new Error("the connection is gone");
    return row;
  }

  /** The types of a connection's events, oldest first. */
  async events(id: string): Promise<string[]> {
    const events = await this.connections.events(id, { limit: 100, before: null, patterns: ["%"] });
    return events.map(({ type }) => type).toReversed();
  }

  /** A pending connection that nobody has connected yet. */
  async insert({ clientRef, ...changes }: ConnectionToMake = {}): Promise<TokenRow> {
    const id = randomUUID();
    const inserted = await this.connections.insert({
      id,
      name: `c-${id}`,
      provider: "own",
      client: clientRef ? await this.clients.findById(clientRef) : null,
      grant: "authorization_code",
      scopes: ["read"],
      inputs: {},
      labels: {},
      credentials: null,
      ...changes,
    });
    if (!inserted) throw new Error("the client has changed meanwhile");
    return await this.row(changes.id ?? id);
  }

  /** A connection with a token set of one hour, at generation 1 and version 1. */
  async connect(changes: ConnectionToMake = {}): Promise<TokenRow> {
    const row = await this.insert(changes);
    const event = { type: "connected" as const, detail: {} };
    const attemptId = randomUUID();
    const stored = await this.rows.replaceGrant({ ...row, attemptId }, sealedGrant(), { event, exclusive: false });
    if (stored === null) throw new Error("the connection did not take its grant");
    return stored;
  }

  /** The same with a permit of 30 s, just taken. */
  async permit(changes: ConnectionToMake = {}) {
    const row = await this.connect(changes);
    const key = { connectionId: row.id, generation: row.generation, attemptId: randomUUID() };
    const statuses = ["connected"] as const;
    const permitted = await this.rows.takePermit({
      ...key,
      leaseSeconds: 30,
      statuses,
      ifAbandoned,
      exclusive: true,
      takeover: null,
    });
    if (permitted === null) throw new Error("the free connection gave no permit");
    return { row: permitted, key };
  }
}

/** Where a second use of a refresh token kills the family. */
export const ifAbandoned = { promptly: false, quietSeconds: 10 };

/** Bytes that stand for a sealed record. */
export function sealedBytes(): Uint8Array<ArrayBuffer> {
  return new Uint8Array(randomBytes(40));
}

/** A rotated token set of one hour, issued now. */
export function sealedGrant(changes: Partial<SealedGrant> = {}): SealedGrant {
  const issuedAt = new Date();
  return {
    accessToken: sealedBytes(),
    refreshToken: sealedBytes(),
    refreshFingerprint: sealedBytes(),
    tokenType: "Bearer",
    grantedScopes: ["read"],
    captured: {},
    redirectUri: null,
    accountCaptured: {},
    issuedAt,
    expiresAt: new Date(issuedAt.getTime() + 3_600_000),
    refreshTokenExpiresAt: null,
    keepsRefreshToken: false,
    noRefreshTokenSince: null,
    unreadableLifetime: false,
    lastError: null,
    refreshDueAt: new Date(issuedAt.getTime() + 2_700_000),
    keepAliveAt: null,
    ...changes,
  };
}
