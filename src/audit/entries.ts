import type { ChainedEntry, EntryContent } from "../store/audit.ts";
import type { Bounds } from "../store/row-sql.ts";

/** What an entry of the audit says, and which actions there are. */

/** Who did it. `key`: with an API key; `workload`: with a token of its platform; `link`: a person at a consent link; `system`: the broker. */
export type Actor = { kind: "key" | "workload" | "person" | "link" | "system"; id: string | null; name: string | null };

/** What it was done to. */
export type AuditTarget = {
  kind: "connection" | "client" | "key" | "workload" | "link" | "provider" | "encryption" | "audit" | "system";
  name: string | null;
};

export const actorKinds = ["key", "workload", "person", "link", "system"] as const satisfies readonly Actor["kind"][];
export const targetKinds = [
  "connection",
  "client",
  "key",
  "workload",
  "link",
  "provider",
  "encryption",
  "audit",
  "system",
] as const satisfies readonly AuditTarget["kind"][];

/** Every action, and what it means to whoever reads the audit. A closed set: OpenAPI and docs/audit.md list it. */
export const auditActions = {
  "tokens.read":
    "somebody asked for a connection's token: one entry for each caller, connection, result and minute, with `count`, `first` and `last`",
  "keys.refused": "requests came without a valid key: one entry a minute, with `count`",
  "connections.create": "a connection was made",
  "connections.update": "a connection was changed, disabled or enabled",
  "connections.delete": "a connection was deleted",
  "connections.refresh": "a refresh was ordered",
  "connections.import": "tokens from elsewhere were imported",
  "connections.code": "an app handed over an authorization code",
  "connections.account": "it was decided whether another account may take a connection's place",
  "connections.device": "a device authorization was begun",
  "links.create": "a consent link was made",
  "consents.begin": "a person at a consent link was sent to the provider",
  "consents.hold": "a person came back from the provider, and the code waits for the app that made the link",
  "consents.complete": "a person came back from the provider and the code was exchanged, or an app had it exchanged",
  "consents.account": "a person at a consent link decided whether another account may take the place",
  "clients.create": "a client was made",
  "clients.update": "a client was changed",
  "clients.delete": "a client was deleted",
  "keys.create": "an API key was made",
  "keys.revoke": "an API key was revoked",
  "workloads.create": "a workload was declared",
  "workloads.delete": "a workload was deleted",
  "recovery.confirm": "suspended connections were released or ended after a database was restored",
  "encryption.rotate": "values were sealed anew with the first encryption key",
  "encryption.forget": "an encryption key was given up",
  "audit.read": "somebody read the audit",
  "audit.export": "somebody exported the audit",
  "audit.verify": "somebody had the audit verified",
  "audit.prune": "entries older than the retention were removed",
  "system.start": "a process of the broker started; its entry names the newest entries of other processes",
  "system.stop": "a process of the broker ended in order",
  "system.checkpoint":
    "all entries were verified before an encryption key is given up; the entry proves those before it",
} as const;

export type AuditAction = keyof typeof auditActions;

/** An entry as readers get it. `id`: `<process>:<seq>`. `result`: `ok`, an error code, `unknown` (its process ended first) or `begun`. */
export type AuditRow = {
  id: string;
  at: Date;
  actor: { kind: string; id: string | null; name: string | null };
  action: string;
  target: { kind: string; name: string | null } | null;
  address: string | null;
  result: string;
  detail: Record<string, unknown>;
};

/** What is about to be done. Texts of it may come from outside; they are cut and cleaned. It holds no secret. */
export type NewEntry = {
  actor: Actor;
  action: AuditAction;
  target: AuditTarget | null;
  address: string | null;
  detail?: Record<string, unknown>;
};

export type Outcome = { result: string; target?: AuditTarget; detail?: Record<string, unknown> };

/** A new entry as it is kept until it is written: its texts are clean. */
export type Draft = Omit<NewEntry, "detail"> & { atMs: number; detail: Record<string, unknown> };

/** Texts come from outside: nothing in them may fail an entry, and none may fill the table. */
const longestText = 500;
const longestDetail = 50_000;

export function draftOf({ actor, action, target, address, detail = {} }: NewEntry, atMs: number): Draft {
  return {
    atMs,
    actor: { kind: actor.kind, id: clean(actor.id), name: clean(actor.name) },
    action,
    target: target && { kind: target.kind, name: clean(target.name) },
    address: clean(address),
    detail: cleanDetail(detail),
  };
}

/** The columns of an entry that has come to its end. */
export function contentOf(draft: Draft, outcome: Outcome): EntryContent {
  const { actor, action, address, atMs } = draft;
  const target = outcome.target ?? draft.target;
  const detail = { ...draft.detail, ...cleanDetail(outcome.detail ?? {}) };
  return {
    at: new Date(atMs),
    actorKind: actor.kind,
    actorId: actor.id,
    actorName: actor.name,
    action,
    targetKind: target?.kind ?? null,
    targetName: clean(target?.name ?? null),
    address,
    result: clean(outcome.result) ?? "",
    detail: Object.keys(detail).length === 0 ? null : JSON.stringify(detail),
  };
}

export function rowOf(entry: ChainedEntry): AuditRow {
  const { process, seq, at, action, address, result, targetKind, targetName } = entry;
  return {
    id: `${process}:${seq}`,
    at,
    actor: { kind: entry.actorKind, id: entry.actorId, name: entry.actorName },
    action,
    target: targetKind === null ? null : { kind: targetKind, name: targetName },
    address,
    result,
    detail: readDetail(entry),
  };
}

/** Empty also for one that somebody has made unreadable. */
export function readDetail({ detail }: Pick<EntryContent, "detail">): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(detail ?? "{}");
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Postgres takes neither NUL nor half of a surrogate pair. */
export function clean<Text extends string | null>(text: Text): Text {
  return (text === null ? null : text.replaceAll("\0", "").slice(0, longestText).toWellFormed()) as Text;
}

function cleanDetail(detail: Record<string, unknown>): Record<string, unknown> {
  const text = JSON.stringify(detail, (_key, value: unknown) => (typeof value === "string" ? clean(value) : value));
  if (text.length > longestDetail) return { too_long: true };
  return JSON.parse(text) as Record<string, unknown>;
}

declare const begunBrand: unique symbol;
/** An entry that was begun, for its `end`. */
export type Begun = { readonly [begunBrand]: true };

/** One moment's newest row of a chain, as the log has it. */
export type Head = { process: string; seq: number; mac: string };

/** `connection`: by its name. `actor`: the id, or the name of one that has no id. `type`: an action. */
export type AuditFilter = {
  since?: Date;
  until?: Date;
  actor?: string;
  connection?: string;
  type?: string;
  /** Only entries about connections within these bounds. */
  within?: Bounds;
};

/** Which rows of which chain are wrong, and why. `from` and `to` are the same for one row; docs/internals/audit.md says what each kind means. */
export type AuditFault = {
  kind: "changed" | "missing" | "repeated" | "tail_missing" | "chain_missing" | "pruned_too_young" | "unproven";
  process: string;
  from: number;
  to: number;
};

export type AuditReport = {
  /** No faults. */
  ok: boolean;
  chains: number;
  rows: number;
  /** At most 1,000; the first ones of each chain. */
  faults: AuditFault[];
  /** Chains without `system.stop`, whose process does not run any more: killed, or its last rows are cut off. */
  openEnds: { process: string; seq: number; at: Date }[];
  /** Whether the database itself refuses this broker's role to change or remove entries. Always false for the embedded database, which has one role. */
  appendOnly: boolean;
};

/** A key that alone proves entries of a chain from its first fault on. */
export type KeyBehindFault = { keyId: string; process: string };

type CountedRead = { actor: Actor; connection: string | null; result: string };

/** The writing side, and the reading one. */
export type Audit = {
  /**
   * Writes down that something is about to be changed. Resolves when it is durable; a disk that hangs counts as full after 2 s. With `mustNotFail` it always resolves, and an
   * entry that neither disk nor database takes waits in memory.
   * @throws BrokerError storage_unavailable if neither takes it, or too many entries wait for the database
   */
  begin(entry: NewEntry, options?: { mustNotFail?: boolean }): Promise<Begun>;
  /**
   * `result`: "ok" or an error code. `detail` is added to that of `begin`; `target` takes its place, for a name that is known only now.
   * Resolves when it is durable. Never rejects.
   */
  end(begun: Begun, outcome: Outcome): Promise<void>;
  /** Counts one read of a token. `connection` null: unknown, or not allowed. Never waits, never throws. */
  countRead(read: CountedRead): void;
  /** The same for a caller who reads again and again: each call counts one. */
  readCounter(read: Omit<CountedRead, "connection">): (connection: string | null) => void;
  /** Counts a request without a valid key. */
  countRefused(): void;
  /** A page, newest first. `cursor`: of the page before. @throws BrokerError invalid_request for a cursor that is none */
  list(
    query: AuditFilter & { limit: number; cursor: string | null },
  ): Promise<{ items: AuditRow[]; nextCursor: string | null }>;
  /** All rows, oldest first. */
  export(query: AuditFilter): AsyncIterable<AuditRow>;
  /** Walks all chains. `heads`: what the log has. `onProgress` is called with the number of rows so far. */
  verify(heads: readonly Head[], options?: { onProgress?: (rows: number) => void }): Promise<AuditReport>;
  /**
   * Verifies all chains, and writes `system.checkpoint` under the current key. Resolves when it is stored. What is faulty is not proven by
   * it: `keysBehindFaults` are needed for that, each with one of its chains.
   * @throws BrokerError storage_unavailable if it cannot be written
   */
  checkpoint(): Promise<AuditReport & { keysBehindFaults: KeyBehindFault[] }>;
  /** Removes entries before then, as far as the retention allows. Returns how many. @throws BrokerError invalid_request for a time within the retention */
  prune(before: Date): Promise<number>;
  /** The keys under which entries wait in DATA_DIR. Never rejects. */
  heldKeyIds(): Promise<readonly string[]>;
  /** Takes over what ended processes have left in DATA_DIR, and begins to write. Never rejects. */
  start(): Promise<void>;
  /** Writes what is left, or leaves it in DATA_DIR. Never rejects. */
  stop(): Promise<void>;
};
