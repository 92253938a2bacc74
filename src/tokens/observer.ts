import type { Failure } from "../providers/grant.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { Sendable } from "./sending.ts";

/** What telemetry learns of refreshes. Calls must not throw; what they are given holds secrets, what they write must not. */
export type RefreshObserver = {
  succeeded(sendable: Sendable, given: { replay: boolean; seconds: number }): void;
  failed(sendable: Sendable, given: { failure: Failure; replay: boolean; seconds: number }): void;
  /** A received answer could not be stored yet. */
  commitDelayed(row: TokenRow, error: unknown): void;
  /** A received answer found the row moved on. */
  answerLost(row: TokenRow, current: TokenRow | null): void;
};
