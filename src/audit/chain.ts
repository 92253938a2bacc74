import { createHash } from "node:crypto";
import type { ChainedEntry, ChainLink, EntryContent } from "../store/audit.ts";
import type { Keyring } from "../vault/keyring.ts";

/** The newest row of a chain; `seq` 0: it has none yet. */
export type ChainEnd = { process: string; seq: number; hash: Uint8Array; mac: string };

const purpose = "audit";

export function emptyChain(process: string): ChainEnd {
  return { process, seq: 0, hash: new Uint8Array(32), mac: "" };
}

/** Gives rows the next numbers of a chain, each with the proof of itself and of all rows before it. */
export function chainTo(
  end: ChainEnd,
  contents: readonly EntryContent[],
  { sign }: Pick<Keyring, "sign">,
): ChainedEntry[] {
  let { seq, hash } = end;
  return contents.map((content) => {
    seq += 1;
    hash = hashOf(hash, content);
    const link = { process: end.process, seq, at: content.at, hash };
    return { ...content, ...link, mac: sign(purpose, proven(link)) };
  });
}

/** SHA-256 of the hash before it and of the row's content, as JSON in a fixed order. */
export function hashOf(before: Uint8Array, entry: EntryContent): Uint8Array {
  const { at, actorKind, actorId, actorName, action, targetKind, targetName, address, result, detail } = entry;
  const content = [
    at.getTime(),
    actorKind,
    actorId,
    actorName,
    action,
    targetKind,
    targetName,
    address,
    result,
    detail,
  ];
  return createHash("sha256").update(before).update(JSON.stringify(content)).digest();
}

/** Whether this broker has written a row with this number and hash. */
export function judge(link: ChainLink, { verify }: Pick<Keyring, "verify">) {
  return verify(purpose, proven(link), link.mac);
}

function proven({ process, seq, at, hash }: Pick<ChainLink, "process" | "seq" | "at" | "hash">): string {
  return JSON.stringify([process, seq, at.getTime(), Buffer.from(hash).toString("hex")]);
}
