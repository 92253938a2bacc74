import type { Clock } from "../clock.ts";
import type { Leases } from "../leases/lease.ts";
import type { Failure } from "../providers/grant.ts";
import type { Clients } from "../store/clients.ts";
import type { DatabaseHealth } from "../store/database-health.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { PermitKey } from "../store/row-sql.ts";
import type { TokenRows } from "../store/token-rows.ts";
import type { Marks } from "../marks/marks.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import type { KeyList } from "../vault/key-list.ts";
import { budgets } from "./budgets.ts";
import type { Granting } from "./granting.ts";
import type { Keeper } from "./keeping.ts";
import type { LimitKeeper } from "./limits.ts";
import type { Alarms, RefreshObserver } from "./observer.ts";
import type { Recovery } from "./recovery.ts";
import type { SecondPlans } from "./second-plans.ts";
import type { Sendable, Sender } from "./sending.ts";
import type { Waiting } from "./waiting.ts";

/**
 * `moved`: a newer generation is stored. `failed`: the row, as it stands now, says why; null: it is deleted. `left`: this process
 * is shutting down and has begun nothing; another replica may.
 * `failure`: what the provider answered, where this process was the one that asked.
 */
export type RefreshOutcome = { kind: "moved" | "failed" | "left"; row: TokenRow | null; failure?: Failure };

export type RefreshParts = {
  rows: TokenRows;
  clients: Pick<Clients, "forgetPreviousSecret" | "noteOldSecret">;
  leases: Leases;
  waiting: Waiting;
  sender: Sender;
  limits: Pick<LimitKeeper, "keep">;
  secondPlans: SecondPlans;
  /** The connection with the rows of its further tokens, which an answer may hold. */
  prepare: Granting["prepare"];
  /** What is to be found out about a set that has just been stored. Never rejects. */
  followUp: (sendable: Sendable, stored: TokenRow) => Promise<void>;
  vault: TokenVault;
  keys: KeyList;
  keeper: Pick<Keeper, "keep">;
  recovery: Pick<Recovery, "clear">;
  marks: Pick<Marks, "read" | "raise">;
  health: DatabaseHealth;
  clock: Clock;
  random: () => number;
  observer: RefreshObserver;
  alarms: Pick<Alarms, "unreadable">;
  /** True from the moment at which this process may not begin anything any more. */
  isDraining: () => boolean;
};

/** A granted permission to send once. */
export type Permit = {
  row: TokenRow;
  key: PermitKey;
  /** Taken over from an attempt whose outcome nobody knows. */
  isReplay: boolean;
  /** The same, or what is left to be tried after such an attempt was refused: if this ends, an answer was lost. */
  followsLoss: boolean;
  /** Of a grant that has ended: what fails leaves it so, and nothing but its refresh token is tried. */
  isRetry: boolean;
  mayStillSend: () => boolean;
};

/** Step 5. A suspended machine stops the monotonic clock, a wall clock may be set back: both must agree. */
export function openSendWindow(clock: Clock): () => boolean {
  const [monotonicMs, wallMs] = [clock.monotonicMs(), clock.wallMs()];
  return () =>
    clock.monotonicMs() - monotonicMs < budgets.sendWindowMs &&
    Math.abs(clock.wallMs() - wallMs) < budgets.sendWindowMs;
}
