import { withDeadline, type Clock } from "../clock.ts";
import type { Leases } from "../leases/lease.ts";
import type { Marks } from "../marks/marks.ts";
import type { Grant } from "../providers/grant.ts";
import type { AccountRows } from "../store/account-rows.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenRows } from "../store/token-rows.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { sealRecord, type AnswerRecord } from "./answer-record.ts";
import { budgets } from "./budgets.ts";
import { livesBy } from "./granted.ts";
import { placeAnswer, type Fate } from "./late-answers.ts";
import type { RefreshObserver } from "./observer.ts";
import type { Sendable, Sender } from "./sending.ts";
import type { Spools } from "./spools.ts";

/** What a token endpoint granted, as it came. */
export type Answer = {
  record: AnswerRecord;
  sendable: Sendable;
  grant: Grant;
  /** When it came, by this process's monotonic clock. */
  answeredMs: number;
};

/** `spooled`: durable, but Postgres does not know it yet; the row is as it will be. */
export type Kept = {
  kind: Fate["kind"] | "spooled";
  row: TokenRow | null;
  /** Of a duplicate: the connections that hold its refresh token. */
  holders?: readonly string[];
  /** Of a spooled one: what became of it, once Postgres has it. Never rejects. */
  stored?: Promise<Fate>;
};

export type Keeper = {
  /** Steps 8 and 9: resolves with the first durable copy, and does not rest before the row has it. Never rejects. */
  keep(answer: Answer): Promise<Kept>;
  /** Whether an answer to this generation is in this process's hands. */
  holds(connectionId: string, generation: number): boolean;
  /** The process ends: what Postgres has not taken yet is spooled at once. */
  spoolAll(): Promise<void>;
  /** Resolves when nothing waits to be stored. */
  settled(): Promise<void>;
};

export type KeeperParts = {
  rows: TokenRows;
  accounts: Pick<AccountRows, "holdGrant">;
  vault: TokenVault;
  leases: Pick<Leases, "announce">;
  spools: Spools;
  marks: Pick<Marks, "raise">;
  sender: Pick<Sender, "revokeGrant">;
  clock: Clock;
  random: () => number;
  observer: RefreshObserver;
  /** What is stored after its caller has gone is told to the cache. */
  learn: (row: TokenRow) => void;
};

/** `concluded`: the row has it, and nothing of it is left elsewhere. */
type Held = { answer: Answer; spooling: Promise<boolean> | null; isStored: boolean; concluded: Promise<void> };

/** Keeps every answer, whatever is away: in memory, in Postgres, and after 200 ms without it in the spools. */
export function createKeeper(parts: KeeperParts): Keeper {
  const { spools, marks, sender, clock, random, observer } = parts;
  const held = new Set<Held>();

  /** Postgres may be away for as long as it likes: the answer waits here, and in the spools. */
  const placePatiently = async (record: AnswerRecord, { row }: Sendable): Promise<Fate> => {
    let delayMs = budgets.commitRetryFirstMs as number;
    for (;;) {
      try {
        return await placeAnswer(parts, record);
      } catch (error) {
        observer.commitDelayed(row, error);
        await clock.sleep(delayMs * (0.5 + random()));
        delayMs = Math.min(delayMs * 2, budgets.commitRetryMaxMs);
      }
    }
  };

  const spool = async (one: Held): Promise<boolean> => {
    const { record } = one.answer;
    const put = async () => await spools.put({ ...record, record: sealRecord(parts.vault, record) });
    // Again where it was spooled before: a place that had no room may have some now, and one that had it may have lost it.
    one.spooling = one.spooling === null ? put() : one.spooling.then(async (safe) => (await put()) || safe);
    const isSafe = await one.spooling;
    // failpoint: spooled
    return isSafe;
  };

  /** Every place may refuse at first: they are asked again until one takes it, or Postgres has. */
  const spoolPatiently = async (one: Held): Promise<boolean> => {
    while (!one.isStored) {
      if (await spool(one)) return true;
      await clock.sleep(budgets.commitRetryMaxMs);
    }
    return false;
  };

  /** After the row has it: nothing of it stays elsewhere. */
  const conclude = async (one: Held, fate: Fate): Promise<void> => {
    // failpoint: committed
    const { record, sendable, grant } = one.answer;
    if (fate.row !== null) marks.raise(fate.row.id, fate.row);
    if (fate.kind !== "stored") observer.cameLate(sendable.row, fate.kind);
    if (one.spooling !== null) {
      await one.spooling;
      await spools.remove(record);
      if (fate.row !== null) parts.learn(fate.row);
    }
    // A person who has just connected is told so: every replica is to know it.
    if (one.spooling !== null || record.kind === "grant") announceStored(parts, record);
    const isUnwanted = fate.kind === "unwanted" && isRevocable(parts.vault, sendable, { fate, tokens: grant });
    if (isUnwanted) await sender.revokeGrant(sendable, grant);
  };

  return {
    async keep(answer) {
      // failpoint: answered
      const { record, sendable, answeredMs } = answer;
      const storing = placePatiently(record, sendable);
      const one: Held = { answer, spooling: null, isStored: false, concluded: Promise.resolve() };
      held.add(one);
      one.concluded = storing
        .then((fate) => {
          one.isStored = true; // from here on nothing is spooled that would have to be removed again
          return conclude(one, fate);
        })
        .catch((error: unknown) => observer.commitDelayed(sendable.row, error))
        .finally(() => void held.delete(one));
      const soon = await withDeadline(storing, budgets.spoolAfterMs, clock);
      const asKept = async (safe: boolean): Promise<Kept> =>
        safe ? { ...asSpooled(answer), stored: storing } : await storing;
      const spooled = soon === null ? spoolPatiently(one).then(asKept) : storing;
      const kept: Kept = soon ?? (await Promise.race([storing, spooled]));
      observer.durable(sendable.row, { seconds: (clock.monotonicMs() - answeredMs) / 1000 });
      // failpoint: durable
      return kept;
    },
    holds: (connectionId, generation) =>
      [...held].some(
        ({ answer: { record } }) => record.connectionId === connectionId && record.generation === generation,
      ),
    spoolAll: async () => void (await Promise.all([...held].map(spool))),
    async settled() {
      while (held.size > 0) await Promise.allSettled([...held].map(({ concluded }) => concluded));
    },
  };
}

/** A grant that nobody wants any more is revoked where that cannot end the one that took its place. */
export function isRevocable(
  vault: TokenVault,
  { definition }: Pick<Sendable, "definition">,
  { fate, tokens }: { fate: Fate; tokens: Pick<Grant, "accessToken" | "refreshToken"> },
): boolean {
  if (fate.row === null) return true;
  return definition.revocation?.kills === "token" && livesBy(vault, fate.row, tokens) === false;
}

function announceStored({ leases }: Pick<KeeperParts, "leases">, record: AnswerRecord): void {
  const { connectionId: connection, generation, attemptId: attempt } = record;
  leases.announce({ connection, generation, attempt, outcome: "stored" });
}

/** The row as it will be: its version is this attempt's own, whoever else may store something meanwhile. */
function asSpooled({ record, sendable: { row } }: Answer): Kept {
  const { grant } = record;
  if (record.kind === "held") return { kind: "spooled", row };
  const isGrant = record.kind === "grant";
  const step = isGrant && row.version > 0 ? 2 : 1;
  const version = Math.max(row.version, row.versionFloor) + step + row.attemptReplays;
  const { refreshDueAt: _due, keepsRefreshToken, grantedScopes, lastError, ...tokens } = grant;
  return {
    kind: "spooled",
    row: {
      ...row,
      ...tokens,
      grantedScopes: grantedScopes ?? row.grantedScopes,
      refreshTokenExpiresAt: keepsRefreshToken ? row.refreshTokenExpiresAt : grant.refreshTokenExpiresAt,
      generation: record.sealedFor,
      authorization: row.authorization + (isGrant ? 1 : 0),
      authorizedClientId: isGrant ? (record.clientId ?? null) : row.authorizedClientId,
      version: grant.accessToken === null ? row.version : version,
      status: row.status === "disabled" ? "disabled" : "connected",
      attemptId: null,
      attemptStartedAt: null,
      leaseUntil: null,
      attemptOutcome: null,
      attemptReplays: 0,
      lastAttemptId: record.attemptId,
      backoffUntil: null,
      consecutiveFailures: 0,
      lastErrorCode: lastError?.code ?? null,
      lastErrorDetail: lastError?.detail ?? null,
      inUse: false,
      goneBackFrom: null,
    },
  };
}
