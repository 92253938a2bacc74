import type { Anchor, AuditStore, ChainedEntry, ChainLink } from "../store/audit.ts";
import { replicaTimes } from "../time.ts";
import type { Keyring } from "../vault/keyring.ts";
import { hashOf, judge } from "./chain.ts";
import { type AuditFault, type AuditReport, type Head, type KeyBehindFault, readDetail } from "./entries.ts";

type Options = {
  store: Pick<AuditStore, "chains" | "chain" | "anchors" | "witnesses" | "presentReplicas" | "isAppendOnly">;
  keyring: Pick<Keyring, "verify">;
  /** The id of the key that made a MAC. */
  keyIdOf: (mac: string) => string;
  /** The chain of this process. */
  process: string;
  retentionDays: number;
  clock: { wallMs: () => number };
};

/** A place in a chain, with its hash as hexadecimal digits: as a checkpoint has it. */
export type ProvenPlace = { process: string; seq: number; hash: string };

/** What was found on the way through one chain. */
type Walk = {
  process: string;
  rows: number;
  anchor: Anchor | null;
  /** The anchor's MAC is of a key that is not here. */
  isAnchorKeyless: boolean;
  /** The highest number that a proven checkpoint names. */
  checkpointTo: number;
  faults: AuditFault[];
  /** The last row. */
  last: ChainedEntry | null;
  /** The number of the last row before the first fault. */
  soundTo: number;
  /** The last row before the first fault that a key or a checkpoint proves, its hash as hexadecimal digits: what a new checkpoint may name. */
  lastProven: { seq: number; hash: string } | null;
  /** The highest number with a MAC of a key that is here: it proves all before it, as far as their hashes fit. */
  provenTo: number;
  /** The ids of keys that alone prove rows from the first fault on: no checkpoint proves these. */
  keysBehindFault: Set<string>;
  /** The first and the last number with a MAC of a key that is not here. */
  keyless: { from: number; to: number } | null;
  /** MACs and hashes of the numbers that others name. */
  named: Map<number, { mac: string; hash: string }>;
};

const batchRows = 1000;
const mostFaults = 1000;

export function createVerifier({ store, keyring, keyIdOf, process: ownProcess, retentionDays, clock }: Options) {
  /** Walks all chains, and compares them with what the log, first rows and checkpoints say of them. */
  const verify = async (
    heads: readonly Head[],
    onProgress: (rows: number) => void,
  ): Promise<{ report: AuditReport; proven: ProvenPlace[]; keysBehindFaults: KeyBehindFault[] }> => {
    const witnesses = await store.witnesses();
    const checkpoints = witnesses.filter(({ action }) => action === "system.checkpoint").map(checkpointOf);
    const known: KnownHead[] = [
      ...heads,
      ...witnesses.filter(({ action }) => action === "system.start").flatMap(headsOf),
      ...checkpoints.flatMap(({ places }) => places).map(({ process, seq }) => ({ process, seq, mac: null })),
    ];
    const wanted = new Map<string, Set<number>>();
    for (const { process, seq } of known) {
      wanted.set(process, (wanted.get(process) ?? new Set()).add(seq));
    }
    const walks = new Map<string, Walk>();
    let rows = 0;
    let anchors = await readAnchors();
    for (const process of new Set([...(await store.chains()), ...anchors.keys()])) {
      const walkOnce = async () =>
        await walkChain(process, {
          anchor: anchors.get(process) ?? null,
          wanted: wanted.get(process) ?? new Set(),
          onProgress: (more) => onProgress(rows + more),
        });
      let walk = await walkOnce();
      // Rows may have been pruned on the way.
      if (walk.faults.length > 0) {
        anchors = await readAnchors();
        walk = await walkOnce();
      }
      rows += walk.rows;
      walks.set(process, walk);
    }
    proveByCheckpoints(walks, checkpoints);
    const faults = [...[...walks.values()].flatMap(faultsOf), ...missedHeads(walks, known)];
    const report = {
      ok: faults.length === 0,
      chains: walks.size,
      rows,
      faults: faults.slice(0, mostFaults),
      openEnds: await openEnds(walks, witnesses),
      appendOnly: await store.isAppendOnly(),
    };
    const all = [...walks.values()];
    return { report, proven: all.flatMap(placeOf), keysBehindFaults: keysBehindFaults(all) };
  };

  /** The last row that was pruned of each chain. */
  const readAnchors = async (): Promise<Map<string, Anchor>> => {
    const newest = new Map<string, Anchor>();
    for (const anchor of await store.anchors()) {
      if ((newest.get(anchor.process)?.seq ?? 0) < anchor.seq) newest.set(anchor.process, anchor);
    }
    return newest;
  };

  type Way = { anchor: Anchor | null; wanted: ReadonlySet<number>; onProgress: (rows: number) => void };

  const walkChain = async (process: string, { anchor, wanted, onProgress }: Way): Promise<Walk> => {
    const walk: Walk = {
      process,
      rows: 0,
      anchor,
      isAnchorKeyless: false,
      checkpointTo: 0,
      faults: [],
      last: null,
      soundTo: 0,
      lastProven: null,
      provenTo: 0,
      keysBehindFault: new Set(),
      keyless: null,
      named: new Map(),
    };
    const fault = (kind: AuditFault["kind"], from: number, to = from) => {
      if (walk.faults.length < mostFaults) walk.faults.push({ kind, process, from, to });
    };
    if (anchor !== null) {
      const authenticity = judge(anchor, keyring);
      const fits = Buffer.compare(hashOf(anchor.previousHash, anchor), anchor.hash) === 0;
      if (!fits || authenticity === "forged") fault("changed", anchor.seq);
      else walk.soundTo = anchor.seq;
      walk.isAnchorKeyless = authenticity === "unknown_key";
      if (!fits && authenticity === "authentic") walk.keysBehindFault.add(keyIdOf(anchor.mac));
      if (fits && authenticity === "authentic") {
        walk.provenTo = anchor.seq;
        walk.lastProven = { seq: anchor.seq, hash: hexOf(anchor) };
      }
      if (wanted.has(anchor.seq)) walk.named.set(anchor.seq, { mac: anchor.mac, hash: hexOf(anchor) });
      const kept = new Date(clock.wallMs());
      kept.setUTCDate(kept.getUTCDate() - retentionDays);
      if (anchor.at > kept) fault("pruned_too_young", 1, anchor.seq);
    }
    /** The hash that the next row continues; null: a row is missing, so nobody knows. */
    let before: Uint8Array | null = anchor?.hash ?? new Uint8Array(32);
    /** The one before that, for a number that comes twice. */
    let beforeThat: Uint8Array | null = null;
    let expected = (anchor?.seq ?? 0) + 1;
    /** No broker numbers a row below 1, but somebody else may have done so. */
    let from: number | null = null;
    for (;;) {
      const batch: ChainedEntry[] = await store.chain(process, { from, limit: batchRows });
      // Numbers that come twice must not be cut apart.
      const isLast = batch.length < batchRows;
      const seen = isLast ? batch : wholeNumbers(batch);
      for (const row of seen) {
        const isRepeated = row.seq < expected;
        if (isRepeated) fault("repeated", row.seq);
        if (row.seq > expected) {
          fault("missing", expected, row.seq - 1);
          before = null;
        }
        const continued: Uint8Array | null = isRepeated ? beforeThat : before;
        const authenticity = judge(row, keyring);
        const fits = continued === null || Buffer.compare(hashOf(continued, row), row.hash) === 0;
        const isGood = fits && authenticity !== "forged";
        if (!isGood) fault("changed", row.seq);
        if (isGood && authenticity === "authentic" && continued !== null) walk.provenTo = row.seq;
        if (authenticity === "unknown_key") {
          walk.keyless = { from: walk.keyless?.from ?? row.seq, to: row.seq };
        }
        if (wanted.has(row.seq) && (isGood || !walk.named.has(row.seq))) {
          walk.named.set(row.seq, { mac: row.mac, hash: hexOf(row) });
        }
        if (!isRepeated) beforeThat = before;
        if (!isRepeated || isGood) before = row.hash;
        if (walk.faults.length === 0) {
          walk.soundTo = row.seq;
          if (authenticity === "authentic") walk.lastProven = { seq: row.seq, hash: hexOf(row) };
        } else if (authenticity === "authentic") {
          walk.keysBehindFault.add(keyIdOf(row.mac));
        }
        expected = Math.max(expected, row.seq + 1);
        walk.last = row;
      }
      walk.rows += seen.length;
      onProgress(walk.rows);
      const next = (walk.last?.seq ?? 0) + 1;
      // No broker comes that far, and one more would be the same number.
      if (isLast || !Number.isSafeInteger(next)) return walk;
      from = next;
    }
  };

  /** Chains whose process has neither said that it ends nor runs: it was killed, or its last rows were cut off. */
  const openEnds = async (walks: ReadonlyMap<string, Walk>, witnesses: readonly ChainedEntry[]) => {
    const present = new Set(await store.presentReplicas(replicaTimes.presentSeconds));
    const newestOf = new Map<unknown, ChainedEntry>();
    for (const row of witnesses.filter(({ action }) => action === "system.start")) {
      const { replica } = readDetail(row);
      if ((newestOf.get(replica)?.at ?? new Date(0)) <= row.at) newestOf.set(replica, row);
    }
    const running = new Set([ownProcess]);
    for (const [replica, { process }] of newestOf) if (present.has(String(replica))) running.add(process);
    return [...walks.values()].flatMap(({ process, last }) =>
      last === null || last.action === "system.stop" || running.has(process)
        ? []
        : [{ process, seq: last.seq, at: last.at }],
    );
  };

  return { verify };
}

/** Leaves out the last number, unless it is the only one: the next batch begins with it. */
function wholeNumbers(batch: ChainedEntry[]): ChainedEntry[] {
  const last = batch.at(-1)?.seq;
  const whole = batch.filter(({ seq }) => seq !== last);
  return whole.length === 0 ? batch : whole;
}

type Checkpoint = { process: string; seq: number; places: ProvenPlace[] };

function checkpointOf(row: ChainedEntry): Checkpoint {
  return { process: row.process, seq: row.seq, places: placesIn(readDetail(row)["chains"], "hash") };
}

function headsOf(row: ChainedEntry): Head[] {
  return placesIn(readDetail(row)["chains"], "mac");
}

/** What somebody has made unreadable names nothing: its row is found to be changed. */
function placesIn<Proof extends string>(list: unknown, proof: Proof) {
  const isPlace = (each: unknown): each is { process: string; seq: number } & Record<Proof, string> => {
    const { process, seq, [proof]: proven } = (each ?? {}) as Record<string, unknown>;
    return typeof process === "string" && Number.isInteger(seq) && typeof proven === "string";
  };
  return Array.isArray(list) ? list.filter(isPlace) : [];
}

/** A checkpoint that is proven itself proves the places that it names, and so all rows before them, whose keys may be gone. */
function proveByCheckpoints(walks: ReadonlyMap<string, Walk>, checkpoints: readonly Checkpoint[]): void {
  let isProgress = true;
  while (isProgress) {
    isProgress = false;
    for (const { process, seq, places } of checkpoints) {
      if ((walks.get(process)?.provenTo ?? 0) < seq) continue;
      for (const place of places) {
        const walk = walks.get(place.process);
        if (walk?.named.get(place.seq)?.hash !== place.hash) continue;
        walk.checkpointTo = Math.max(walk.checkpointTo, place.seq);
        if (walk.provenTo >= place.seq) continue;
        walk.provenTo = place.seq;
        if (place.seq <= walk.soundTo) walk.lastProven = { seq: place.seq, hash: place.hash };
        isProgress = true;
      }
    }
  }
}

/**
 * Whoever owns the database can write down any anchor under a key that nobody has. A key goes after a checkpoint alone, so an anchor under a key
 * that is not here counts only if a checkpoint proves it.
 */
function provenAnchor({ anchor, isAnchorKeyless, checkpointTo }: Walk): ChainLink | null {
  return anchor !== null && isAnchorKeyless && checkpointTo < anchor.seq ? null : anchor;
}

function faultsOf(walk: Walk): AuditFault[] {
  const { process, keyless, provenTo, anchor, rows } = walk;
  const faults = [...walk.faults];
  if (anchor !== null && rows > 0 && provenAnchor(walk) === null) {
    faults.unshift({ kind: "unproven", process, from: anchor.seq, to: anchor.seq });
  }
  if (keyless === null || keyless.to <= provenTo) return faults;
  return [...faults, { kind: "unproven", process, from: Math.max(keyless.from, provenTo + 1), to: keyless.to }];
}

/** `mac` null: a checkpoint names it, whose hash is compared elsewhere. */
type KnownHead = { process: string; seq: number; mac: string | null };

/** Rows that the log or another chain knows, and that are not there. */
function missedHeads(walks: ReadonlyMap<string, Walk>, heads: readonly KnownHead[]): AuditFault[] {
  const missed = new Map<string, AuditFault>();
  for (const { process, seq, mac } of heads) {
    const fault = missedHead(walks.get(process), { process, seq, mac });
    const key = `${process} ${fault?.kind}`;
    if (fault !== null && (missed.get(key)?.to ?? 0) < fault.to) missed.set(key, fault);
  }
  return [...missed.values()];
}

function missedHead(walk: Walk | undefined, { process, seq, mac }: KnownHead): AuditFault | null {
  const last = walk === undefined ? 0 : Math.max(walk.last?.seq ?? 0, provenAnchor(walk)?.seq ?? 0);
  if (walk === undefined || last === 0) return { kind: "chain_missing", process, from: 1, to: seq };
  if (seq > last) return { kind: "tail_missing", process, from: last + 1, to: seq };
  // A number that is missing in the middle, or a row that is found to be changed, is told already.
  const proof = walk.named.get(seq)?.mac ?? mac;
  const isTold = faultsOf(walk).some(({ kind, from }) => (kind === "changed" || kind === "unproven") && from === seq);
  return mac === null || proof === mac || isTold ? null : { kind: "changed", process, from: seq, to: seq };
}

/** What a checkpoint may say of a chain: nothing of rows that are not proven, since from then on it would prove them. */
function placeOf({ process, lastProven }: Walk): ProvenPlace[] {
  return lastProven === null ? [] : [{ process, ...lastProven }];
}

/** Each key once, with the first chain that needs it. */
function keysBehindFaults(walks: readonly Walk[]): KeyBehindFault[] {
  const all = walks.flatMap(({ process, keysBehindFault }) =>
    [...keysBehindFault].map((keyId) => ({ keyId, process })),
  );
  return all.filter(({ keyId }, index) => all.findIndex((other) => other.keyId === keyId) === index);
}

function hexOf({ hash }: Pick<ChainLink, "hash">): string {
  return Buffer.from(hash).toString("hex");
}
