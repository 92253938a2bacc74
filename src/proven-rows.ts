import type { Labels } from "./labels.ts";

/** The columns of a connection that people set. Those that the core changes, such as tokens and status, are sealed or decide nothing. */
export type ProvenConnection = {
  id: string;
  name: string;
  parentId: string | null;
  chain: string | null;
  provider: string;
  clientRef: string | null;
  grant: string;
  scopes: readonly string[];
  inputs: Readonly<Record<string, string>>;
  labels: Labels;
  status: string;
  credentialsRevision: number;
};

type ProvenClient = {
  id: string;
  name: string;
  provider: string;
  clientId: string;
  patterns: readonly string[];
  scopes: readonly string[];
  inputs: Readonly<Record<string, string>>;
  ownRedirectUri: boolean;
  secretRevision: number;
};

export type ProvenKey = {
  id: string;
  name: string;
  secretHash: Uint8Array;
  abilities: readonly string[];
  connections: readonly string[];
  labels: Labels;
  expiresAt: Date | null;
  revokedAt: Date | null;
  createdAt: Date;
};

export type ProvenWorkload = {
  id: string;
  name: string;
  issuer: string;
  jwks: string | null;
  jwksUri: string | null;
  ca: string | null;
  networks: readonly string[];
  audience: string;
  algorithms: readonly string[];
  match: string;
  abilities: readonly string[];
  connections: readonly string[];
  labels: Labels;
  expiresAt: Date | null;
  deletedAt: Date | null;
  createdAt: Date;
};

export type ProvenLink = {
  id: string;
  connectionId: string;
  secretHash: Uint8Array;
  returnTo: string | null;
  manual: boolean;
  purpose: string | null;
  /** Null: a plain link. */
  endUser: string | null;
  createdBy: string;
  expiresAt: Date;
  claimedBy: Uint8Array | null;
};

export type ProvenUnconfirmedGrant = {
  attemptId: string;
  connectionId: string;
  generation: number;
  account: string | null;
  accountLabel: string | null;
  linkId: string | null;
  accepted: boolean;
};

/** A row as it was read: its MAC may be missing, or belong to another row. */
export type Read<Row> = Row & { mac: string | null };

/**
 * - `ours`: this broker wrote it so.
 * - `silent`: its MAC was made with a key that another replica has and this one lacks, so this replica cannot tell.
 * - `foreign`: somebody else wrote it; it counts as absent.
 */
export type Standing = "ours" | "silent" | "foreign";

export type Proofs<Row> = {
  sign(row: Row): string;
  /** @throws UnreadableSecretError for a row that this broker did not write so */
  check(row: Read<Row>): void;
  /** The same as true or false. For false the alarm is raised, and the row counts as absent. */
  isOurs(row: Read<Row>): boolean;
  /** The same with `silent`: ask this before you refuse a row for good, since another replica may be able to check it. */
  standing(row: Read<Row>): Promise<Standing>;
};

/** MACs over rows. They show which rows the broker has written: somebody who writes the database by hand cannot make one. */
export type RowProofs = {
  connections: Proofs<ProvenConnection>;
  clients: Proofs<ProvenClient>;
  keys: Proofs<ProvenKey>;
  workloads: Proofs<ProvenWorkload>;
  links: Proofs<ProvenLink>;
  unconfirmedGrants: Proofs<ProvenUnconfirmedGrant>;
};
