/** What people set of a connection. What the core moves, such as tokens and status, is bound otherwise or decides nothing. */
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
  labels: Readonly<Record<string, string>>;
  status: string;
  credentialsRevision: number;
};

export type ProvenClient = {
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
  expiresAt: Date | null;
  revokedAt: Date | null;
  createdAt: Date;
};

export type ProvenLink = {
  id: string;
  connectionId: string;
  secretHash: Uint8Array;
  returnTo: string | null;
  manual: boolean;
  purpose: string | null;
  createdBy: string;
  expiresAt: Date;
  claimedBy: Uint8Array | null;
};

export type ProvenHeldGrant = {
  attemptId: string;
  connectionId: string;
  generation: number;
  account: string | null;
  accountLabel: string | null;
  linkId: string | null;
  accepted: boolean;
};

/** As it was read: its proof may be missing, or another row's. */
export type Read<Row> = Row & { mac: string | null };

/**
 * - `ours`: this broker wrote it so.
 * - `silent`: it is proven with a key that this replica lacks and another one has, so nobody knows here.
 * - `foreign`: somebody else wrote it; it counts as none.
 */
export type Standing = "ours" | "silent" | "foreign";

export type Proofs<Row> = {
  sign(row: Row): string;
  /** @throws UnreadableSecretError for a row that this broker did not write so */
  check(row: Read<Row>): void;
  /** The same as an answer, where such a row counts as none; an operator is told of it. */
  isOurs(row: Read<Row>): boolean;
  /** The same where a row may be another replica's to judge: who would refuse it for good asks this. */
  standing(row: Read<Row>): Promise<Standing>;
};

/** Proofs over rows, by which the broker knows its own: whoever writes the database by hand cannot make one. */
export type RowProofs = {
  connections: Proofs<ProvenConnection>;
  clients: Proofs<ProvenClient>;
  keys: Proofs<ProvenKey>;
  links: Proofs<ProvenLink>;
  heldGrants: Proofs<ProvenHeldGrant>;
};
