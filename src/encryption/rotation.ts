import type { Clock } from "../clock.ts";
import type { ResignedMarks } from "../coordination/marks.ts";
import type { ResealedSpool } from "../coordination/spool.ts";
import type { EncryptionKeys, Instance, Replicas } from "../store/replicas.ts";
import type { Progress, RotationRow, Rotations } from "../store/rotations.ts";
import type { RowChange, SealedRows, SealedTableName } from "../store/sealed-rows.ts";
import { encryptionTimes } from "../time.ts";
import type { Keyring } from "../vault/keyring.ts";
import { type CurrentKey, keyIdsInSpool } from "./current-key.ts";
import { readUnopened, type Resealing, type Unopened } from "./resealing.ts";

/** Works on the rotation of encryption keys, wherever it is running: docs/internals/key-rotation.md. */
export type RotationWorker = {
  /** From here on this replica goes on with a rotation that nobody works on. */
  start(): void;
  /** Looks at once whether there is something to do. */
  wake(): void;
  /** Stops after the batch that is under way; another replica goes on. Never rejects. */
  stop(): Promise<void>;
};

type Options = {
  self: { id: string };
  keyring: Pick<Keyring, "current">;
  resealing: Resealing;
  rows: SealedRows;
  tables: readonly SealedTableName[];
  rotations: Rotations;
  replicas: Pick<Replicas, "instances">;
  known: Pick<EncryptionKeys, "list" | "forget">;
  currentKey: Pick<CurrentKey, "toldNow">;
  marks: Pick<ResignedMarks, "count">;
  /** The spool that all replicas share; null: there is none. */
  shared: ResealedSpool | null;
  /**
   * Called when nothing but what does not open is left under another key, before such keys are forgotten. If it throws, that is tried again.
   * Resolves with keys that faulty chains of the audit need: these are kept, unless the rotation accepts it.
   */
  beforeForgetting: () => Promise<{ keyId: string; process: string }[]>;
  /** Called with the ids of keys that were forgotten. */
  onForgotten: (keyIds: readonly string[]) => Promise<void>;
  clock: Clock;
  onError: (error: unknown) => void;
};

/** How much of what does not open is named. */
const mostNamed = 100;
const redisAway = "Redis, which does not answer: marks and answers there have to be signed and sealed anew";

/** Another replica has it by now, or a newer one has begun, or this process stops. */
class NotOursError extends Error {}

export function createRotationWorker(options: Options): RotationWorker {
  const { self, keyring, rows, tables, rotations, clock, onError } = options;
  const stopped = new AbortController();
  let awake = new AbortController();
  let loop: Promise<void> | null = null;

  const ours = (row: RotationRow | null): RotationRow => {
    if (row === null || stopped.signal.aborted) throw new NotOursError();
    return row;
  };

  const run = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      try {
        const rotation = await rotations.take(self.id, keyring.current());
        if (rotation !== null) await moveAll(rotation);
      } catch (error) {
        if (!(error instanceof NotOursError)) onError(error); // the next look goes on where it was
      }
      await clock.sleep(encryptionTimes.rotationLookMs, AbortSignal.any([stopped.signal, awake.signal]));
      awake = new AbortController();
    }
    await rotations.giveBack(self.id).catch(() => undefined);
  };

  /**
   * Passes over everything, until one has moved nothing. Then every value that opens is under the target key, except for what came while that pass
   * ran: nothing can come from an instance that held nothing under another key before the pass.
   */
  const moveAll = async (rotation: RotationRow): Promise<void> => {
    let at = rotation;
    const startMs = clock.monotonicMs();
    for (;;) {
      const holding = await holders(options, at.targetKey);
      at = await pass(at);
      const isClean = at.passMoved === 0;
      const waitsFor = holding.filter(({ isPresent }) => isPresent).map(({ name }) => name);
      if (isClean && (waitsFor.length === 0 || clock.monotonicMs() - startMs > encryptionTimes.patienceMs)) break;
      if (isClean) await pause(at, `${waitsFor.join(", ")}, where something is still sealed with another key`);
      at = ours(await rotations.nextPass(at.id, self.id));
    }
    at = await noteAuditFaults(at, await options.beforeForgetting());
    const kept = await keysInUse(options, at);
    // failpoint: before keys are forgotten
    const forgotten = await options.known.forget([at.targetKey, ...kept]);
    ours(await rotations.finish(at.id, self.id, forgotten));
    await options.onForgotten(forgotten);
  };

  /** A try that was interrupted may have noted them before. */
  const noteAuditFaults = async (
    at: RotationRow,
    faults: { keyId: string; process: string }[],
  ): Promise<RotationRow> => {
    const known = new Set(
      readUnopened(at.unopened)
        .filter(isAuditFault)
        .map(({ keyId }) => keyId),
    );
    const unopened = faults.filter(({ keyId }) => keyId !== at.targetKey && !known.has(keyId)).map(auditFault);
    if (unopened.length === 0 || at.acceptsAuditFaults) return at;
    return await advance(at, { place: "spools", afterId: null, seen: 0, moved: 0, unopened });
  };

  const pass = async (rotation: RotationRow): Promise<RotationRow> => {
    let at = rotation;
    for (const name of tables.slice(Math.max(0, tables.indexOf(at.place as SealedTableName)))) {
      if (at.place === "marks" || at.place === "spools") break;
      at = await passTable(at, name);
    }
    if (at.place !== "spools") at = await passMarks(at);
    return await passSpools(at);
  };

  const passTable = async (rotation: RotationRow, name: SealedTableName): Promise<RotationRow> => {
    let at = rotation;
    let after = at.place === name ? at.afterId : null;
    for (;;) {
      const page = await rows.page(name, after);
      if (page === null) return at;
      const others = await rows.others(name, { after, last: page.last, keyId: at.targetKey });
      const changes: RowChange[] = [];
      const unopened: Unopened[] = [];
      for (const row of others) {
        const renewed = options.resealing.renew(name, row);
        if (renewed.change !== null) changes.push(renewed.change);
        unopened.push(...renewed.unopened);
      }
      // failpoint: rows to move read
      const replaced = changes.length === 0 ? 0 : await rows.replace(name, changes);
      // A row that has changed meanwhile counts as moved, so that there is another pass.
      const missed = changes.length - replaced;
      at = await advance(at, { place: name, afterId: page.last, seen: page.count, moved: replaced + missed, unopened });
      after = page.last;
      // failpoint: rows moved
    }
  };

  const passMarks = async (at: RotationRow): Promise<RotationRow> => {
    const counted = await patiently(at, async () => await options.marks.count({ resign: true }));
    const { byKey, resigned } = counted;
    const seen = [...byKey.values()].reduce((sum, count) => sum + count, 0);
    return await advance(at, { place: "marks", afterId: null, seen, moved: resigned, unopened: [] });
  };

  const passSpools = async (at: RotationRow): Promise<RotationRow> => {
    await options.currentKey.toldNow(); // this process's own folder, where no beat looks into it
    const { shared } = options;
    if (shared === null) return at;
    const left = await patiently(
      at,
      async () => await keyIdsInSpool(options.resealing.record, shared).catch(() => null),
    );
    const unopened = left.filter((id) => id !== at.targetKey).map((keyId) => inRedis(keyId));
    return await advance(at, { place: "spools", afterId: null, seen: 0, moved: 0, unopened });
  };

  /** Until Redis answers. */
  const patiently = async <Result>(at: RotationRow, work: () => Promise<Result | null>): Promise<Result> => {
    for (;;) {
      const result = await work();
      if (result !== null) return result;
      await pause(at, redisAway);
    }
  };

  const advance = async (at: RotationRow, progress: Progress): Promise<RotationRow> => {
    const named = readUnopened(at.unopened);
    const known = new Set(named.map(({ keyId }) => keyId));
    const room = Math.max(0, mostNamed - named.length);
    // Of what is not named any more, each key is, since it stays in use.
    const unopened = readUnopened(progress.unopened).filter(({ keyId }, index) => index < room || !known.has(keyId));
    return ours(await rotations.advance(at.id, self.id, { ...progress, unopened }));
  };

  const pause = async (at: RotationRow, waitsFor: string): Promise<void> => {
    ours(await rotations.wait(at.id, self.id, waitsFor));
    await clock.sleep(encryptionTimes.waitMs, stopped.signal);
  };

  return {
    start: () => void (loop = run()),
    wake: () => awake.abort(),
    async stop() {
      stopped.abort();
      await loop;
    },
  };
}

const inRedis = (keyId: string): Unopened => ({ table: "spool", id: "redis", name: null, column: "record", keyId });

const auditTable = "audit.entries";
const auditFault = ({ keyId, process }: { keyId: string; process: string }): Unopened => ({
  table: auditTable,
  id: process,
  name: null,
  column: "mac",
  keyId,
});

/** Whether it is a chain of the audit with a fault, behind which the key alone proves entries. */
export const isAuditFault = ({ table }: Unopened): boolean => table === auditTable;

/** Why an instance keeps a key in use; null: it does not. */
export function whyHeld(instance: Instance, keyId: string): "seals" | "holds" | null {
  const { keyIds, currentKey, heldKeyIds, leftAt } = instance;
  if (leftAt === null && currentKey === keyId) return "seals";
  return (heldKeyIds ?? keyIds).includes(keyId) ? "holds" : null;
}

/** The instances that seal with another key than this one, or hold something under another one. */
async function holders({ replicas }: Pick<Options, "replicas">, targetKey: string): Promise<Instance[]> {
  const instances = await replicas.instances();
  return instances.filter((instance) => {
    const ids = [instance.currentKey ?? targetKey, ...(instance.heldKeyIds ?? instance.keyIds)];
    return ids.some((id) => id !== targetKey && whyHeld(instance, id) !== null);
  });
}

/** Every other key under which there is still something, counted anew. */
async function keysInUse(options: Options, at: RotationRow): Promise<string[]> {
  const ids = new Set(readUnopened(at.unopened).map(({ keyId }) => keyId));
  for (const name of options.tables) for (const { keyId } of await options.rows.count(name)) ids.add(keyId);
  const marks = await options.marks.count({ resign: false });
  // If Redis has just gone, nobody knows.
  if (marks === null) return (await options.known.list()).map(({ id }) => id);
  for (const keyId of marks.byKey.keys()) ids.add(keyId);
  const { held, current } = await options.currentKey.toldNow();
  return [...ids, ...held, current].filter((id) => id !== null && id !== at.targetKey) as string[];
}
