import type { Failure } from "../providers/grant.ts";
import type { ClientRow } from "../store/clients.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { UnreadableSecretError } from "../unreadable.ts";
import type { Sendable } from "./sending.ts";

/** What telemetry learns of refreshes. Calls must not throw; what they are given holds secrets, what they write must not. */
export type RefreshObserver = {
  succeeded(sendable: Sendable, given: { replay: boolean; seconds: number }): void;
  failed(sendable: Sendable, given: { failure: Failure; replay: boolean; seconds: number }): void;
  /** A received answer could not be stored yet. */
  commitDelayed(row: TokenRow, error: unknown): void;
  /** A received answer has its first durable copy, so long after it came. */
  durable(row: TokenRow, given: { seconds: number }): void;
  /** A received answer found the row moved on. */
  cameLate(row: TokenRow, fate: "promoted" | "candidate" | "duplicate" | "unwanted"): void;
  /** An answer was found in a spool and put where it belongs. */
  drained(row: Pick<TokenRow, "name" | "provider">): void;
  /** A grant has ended because a rotation's answer never reached the store. */
  lost(row: TokenRow): void;
  /** The same refusal, which says nothing about the grant, has come too often. */
  probablyDead(row: TokenRow): void;
  /** The newest secret of a client is refused, and the one before works. Once for each client and secret. */
  oldSecretUsed(row: TokenRow, client: Pick<ClientRow, "name">): void;
  /** The database has gone back in time; the row is held. */
  heldAfterRestore(row: TokenRow): void;
};

/** What an operator is to look at because somebody else may have written it, or a disk. Calls must not throw. */
export type Alarms = {
  /** A sealed value does not open. */
  unreadable(error: UnreadableSecretError): void;
  /** What stands in Redis is not ours. `row`: the connection that it claims to be of. */
  rejected(kind: "mark" | "spool" | "news" | "end", row: string | null): void;
};
