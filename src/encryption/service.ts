import { randomUUID } from "node:crypto";
import type { ResignedMarks } from "../coordination/marks.ts";
import type { ResealedSpool } from "../coordination/spool.ts";
import { BrokerError } from "../errors.ts";
import { type Principal, requireAll } from "../callers/principal.ts";
import type { EncryptionKeys, Instance, Replicas } from "../store/replicas.ts";
import type { RotationRow, Rotations } from "../store/rotations.ts";
import type { SealedRows, SealedTableName } from "../store/sealed-rows.ts";
import type { Keyring } from "../vault/keyring.ts";
import type { CurrentKey } from "./current-key.ts";
import { readUnopened, type Resealing, type Unopened } from "./resealing.ts";
import { isAuditFault, type RotationWorker, whyHeld } from "./rotation.ts";

/** What is under one key. */
export type KeyStatus = {
  id: string;
  /** This replica seals with it. */
  isCurrent: boolean;
  /** It is in this replica's ENCRYPTION_KEYS. */
  isHere: boolean;
  /** The database names it: a start without it is refused. */
  isNamed: boolean;
  tables: { table: string; seals: number; macs: number }[];
  /** Marks in Redis; null: Redis does not answer. */
  marks: number | null;
  /** Answers in the spool in Redis that are under it; null: Redis does not answer. */
  spooled: number | null;
  /** The instances that seal with it, or may hold something under it. */
  instances: string[];
  /** Nothing is under it. */
  isFree: boolean;
  /** Why it is not free, in words. */
  reasons: string[];
};

export type EncryptionStatus = { keys: KeyStatus[]; replicas: Instance[]; rotation: RotationStatus | null };
export type RotationStatus = Omit<RotationRow, "unopened"> & { unopened: Unopened[] };

type Options = {
  self: { id: string; name: string };
  keyring: Pick<Keyring, "ids" | "current">;
  resealing: Pick<Resealing, "record">;
  rows: Pick<SealedRows, "count">;
  tables: readonly SealedTableName[];
  rotations: Rotations;
  replicas: Pick<Replicas, "instances" | "abandon">;
  known: Pick<EncryptionKeys, "list">;
  currentKey: Pick<CurrentKey, "toldNow">;
  marks: Pick<ResignedMarks, "count">;
  shared: ResealedSpool | null;
  worker: Pick<RotationWorker, "wake">;
};

export type EncryptionService = ReturnType<typeof createEncryptionService>;

/** Which encryption keys are in use, and the rotation to another one: docs/internals/key-rotation.md. */
export function createEncryptionService(options: Options) {
  const { self, keyring, rotations, replicas, worker } = options;

  /** With this process as it is now: with the embedded database no row tells of it. */
  const instances = async (): Promise<Instance[]> => {
    const { ids, current, held } = await options.currentKey.toldNow();
    const own = {
      ...self,
      keyIds: [...ids],
      currentKey: current,
      heldKeyIds: [...held],
      leftAt: null,
      isPresent: true,
      isRecent: true,
    };
    const others = (await replicas.instances()).filter(({ id }) => id !== self.id);
    return [{ ...own, seenAt: new Date() }, ...others];
  };

  const newest = async (): Promise<RotationStatus | null> => {
    const row = await rotations.newest();
    return row && { ...row, unopened: readUnopened(row.unopened) };
  };

  return {
    /** How far the newest rotation is. @throws BrokerError forbidden for a principal that does not cover all connections; not_found if there was none */
    async rotation(principal: Principal): Promise<RotationStatus> {
      requireAll(principal);
      const found = await newest();
      if (found === null) throw new BrokerError("not_found", "There was no rotation of encryption keys yet.");
      return found;
    },

    /** @throws BrokerError forbidden for a principal that does not cover all connections */
    async status(principal: Principal): Promise<EncryptionStatus> {
      requireAll(principal);
      const [all, rotation, uses] = await Promise.all([instances(), newest(), countUses(options)]);
      const ids = new Set([
        ...keyring.ids,
        ...uses.named,
        ...all.flatMap((one) => [
          ...(one.heldKeyIds ?? one.keyIds),
          ...(one.currentKey === null ? [] : [one.currentKey]),
        ]),
        ...uses.tables.flatMap(({ counts }) => counts.flatMap(({ keyId }) => (keyId === null ? [] : [keyId]))),
      ]);
      const of = { keyring, instances: all, rotation, uses };
      return { keys: [...ids].map((id) => statusOf(id, of)), replicas: all, rotation };
    },

    /**
     * Begins a rotation to the first key of ENCRYPTION_KEYS, or says how far it is.
     * `acceptsAuditFaults`: entries of the audit that are proven by no other key keep none in use.
     * @throws BrokerError `forbidden` for a principal that does not cover all connections; `conflict` where replicas do not all seal with that key; `not_found` for an instance to abandon that is not known
     */
    async rotate(
      principal: Principal,
      abandoned: readonly string[],
      { acceptsAuditFaults = false } = {},
    ): Promise<RotationStatus> {
      requireAll(principal);
      requireOneKey(keyring, await instances());
      for (const instance of abandoned) await abandon(instance);
      const by = principal.callerId;
      await rotations.begin({ id: randomUUID(), targetKey: keyring.current(), by, acceptsAuditFaults });
      worker.wake();
      const begun = await newest();
      if (begun === null) throw new BrokerError("conflict", "The rotation that was just begun is gone; try again.");
      return begun;
    },
  };

  async function abandon(instance: string): Promise<void> {
    const found = (await instances()).filter(({ id, name }) => id === instance || name === instance);
    if (found.length === 0) {
      const known = (await instances()).filter(({ isPresent }) => !isPresent).map(({ name }) => name);
      const which =
        known.length === 0 ? "all instances of the last 30 days are running" : `away are ${known.join(", ")}`;
      throw new BrokerError("not_found", `abandon_spool: there is no instance "${instance}"; ${which}.`);
    }
    if ((await replicas.abandon(instance)).length > 0) return;
    const detail = `abandon_spool: the instance "${instance}" is running, or was seen less than a minute ago; what waits in its spool folder is moved by itself.`;
    throw new BrokerError("conflict", detail);
  }
}

const named = (all: readonly Instance[]) =>
  all.map(({ name, keyIds }) => `${name} (${keyIds.join(", ") || "not known"})`).join("; ");

/** @throws BrokerError conflict, naming the replicas and what to do */
function requireOneKey(keyring: Pick<Keyring, "ids" | "current">, all: readonly Instance[]): void {
  const recent = all.filter(({ isRecent }) => isRecent);
  const [wanted = ""] = keyring.ids;
  const lacking = recent.filter(({ keyIds }) => !keyIds.includes(wanted));
  if (lacking.length > 0) {
    const detail = `The key "${wanted}" stands first here, and these replicas lack it: ${named(lacking)}. Add it as the last of ENCRYPTION_KEYS there first. A replica that has stopped counts for a minute.`;
    throw new BrokerError("conflict", detail);
  }
  const other = recent.filter(
    ({ keyIds, currentKey, isPresent }) => isPresent && (keyIds[0] !== wanted || currentKey !== wanted),
  );
  if (other.length === 0) return;
  const detail = `The replicas do not all seal with the key "${wanted}", which stands first here: ${named(other)}. Put the same key first in ENCRYPTION_KEYS of all replicas, and start them again. A replica that was stopped by force counts for a minute.`;
  throw new BrokerError("conflict", detail);
}

type Uses = {
  named: string[];
  tables: { table: string; counts: Awaited<ReturnType<SealedRows["count"]>> }[];
  marks: ReadonlyMap<string, number> | null;
  spooled: ReadonlyMap<string, number> | null;
};

async function countUses({ rows, tables, known, marks, shared, resealing }: Options): Promise<Uses> {
  const counted: Uses["tables"] = [];
  // One after the other: none of this may take the pool from callers.
  for (const table of tables) counted.push({ table, counts: await rows.count(table) });
  const spooled = new Map<string, number>();
  const entries = shared === null ? [] : await shared.list().catch(() => null);
  for (const entry of entries ?? []) {
    for (const id of resealing.record(entry.record, entry).keyIdsBefore) spooled.set(id, (spooled.get(id) ?? 0) + 1);
  }
  return {
    named: (await known.list()).map(({ id }) => id),
    tables: counted,
    marks: (await marks.count({ resign: false }))?.byKey ?? null,
    spooled: entries === null ? null : spooled,
  };
}

type Of = {
  keyring: Pick<Keyring, "ids" | "current">;
  instances: readonly Instance[];
  rotation: RotationStatus | null;
  uses: Uses;
};

function statusOf(id: string, { keyring, instances, rotation, uses }: Of): KeyStatus {
  const tables = uses.tables.flatMap(({ table, counts }) => {
    const found = counts.find(({ keyId }) => keyId === id);
    return found === undefined ? [] : [{ table, seals: found.seals, macs: found.macs }];
  });
  const [marks, spooled] = [uses.marks, uses.spooled].map((counts) => (counts === null ? null : (counts.get(id) ?? 0)));
  const holding = instances.filter((instance) => whyHeld(instance, id) !== null);
  const reasons: string[] = [];
  const isCurrent = instances.some(({ currentKey, isPresent }) => isPresent && currentKey === id);
  if (isCurrent) reasons.push("it is in use: replicas seal with it");
  const sum = tables.reduce((all, { seals, macs }) => all + seals + macs, 0);
  if (sum > 0) reasons.push(`${sum} values in the database are under it`);
  const allLeft = (rotation?.unopened ?? []).filter(({ keyId }) => keyId === id);
  const faulty = allLeft.find(isAuditFault);
  if (faulty !== undefined) {
    reasons.push(
      `the audit has faults, and entries behind the first one of the chain ${faulty.id} are proven by this key alone: look at freshet audit verify, then freshet encryption rotate --accept-audit-faults gives the key up`,
    );
  }
  const left = allLeft.filter((one) => !isAuditFault(one));
  if (left.length > 0) {
    reasons.push(`${left.length} of them do not open, or are not valid: ${left.slice(0, 5).map(nameOf).join(", ")}`);
  }
  if (marks === null || spooled === null) reasons.push("Redis does not answer");
  if (marks) reasons.push(`${marks} marks in Redis are signed with it`);
  if (spooled) reasons.push(`${spooled} answers in Redis wait to be stored`);
  for (const instance of holding.filter(({ isPresent }) => !isPresent || !isCurrent)) {
    reasons.push(whyInstance(instance));
  }
  // Entries of the audit are counted by nobody: the rotation that forgets a key proves them under another one.
  if (reasons.length === 0 && uses.named.includes(id)) {
    reasons.push("the database names it until a rotation has ended: freshet encryption rotate");
  }
  return {
    id,
    isCurrent: keyring.current() === id,
    isHere: keyring.ids.includes(id),
    isNamed: uses.named.includes(id),
    tables,
    marks: marks ?? null,
    spooled: spooled ?? null,
    instances: holding.map(({ name }) => name),
    isFree: reasons.length === 0,
    reasons,
  };
}

const nameOf = ({ table, id, name, column }: Unopened) => `${table} ${name ?? id} (${column})`;

function whyInstance({ name, isPresent, seenAt }: Instance): string {
  return isPresent
    ? `${name} holds something under it that is not stored yet`
    : `${name} has not been seen since ${seenAt.toISOString()}, and may hold answers or entries of the audit under it in its DATA_DIR: start it, or give them up (abandon_spool)`;
}
