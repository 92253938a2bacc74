import { BrokerError, EgressRefusalError, ProviderBusyError, type ErrorCode } from "../errors.ts";
import { refreshTimes } from "../time.ts";

/** Every way in which a consent can end badly. A closed set: `pages/outcome-page.ts` has a page for each. */
export type ConsentProblem =
  | "malformed"
  | "invalid_state"
  | "lost_denial"
  | "lost_error"
  | "invalid_ticket"
  | "wrong_browser"
  | "burnt_state"
  | "wrong_origin"
  | "stale_form"
  | "unknown_link"
  | "expired_link"
  | "used_link"
  | "plain_link"
  | "expired_page"
  | "already_answered"
  | "interrupted"
  | "connection_disabled"
  | "duplicate_grant"
  | "too_many_requests"
  | "provider_refused"
  | "provider_unavailable"
  | "provider_busy"
  | "refused_here"
  | "client_rejected"
  | "storage_unavailable"
  | "internal_error";

/** What a page about a problem may name. Only for a browser that has shown that the link, or the state, is its own. */
export type ConsentSubject = { connectionName: string; providerName: string };

/** A consent that failed. `detail` is for people, and never contains a code, a state or another secret. */
export class ConsentError extends Error {
  readonly problem: ConsentProblem;
  readonly detail: string | null;
  /** Null: the connection is not known, or the caller may not know it. */
  readonly subject: ConsentSubject | null;
  /** When to try again; null: not known. */
  readonly retryAfterSeconds: number | null;

  constructor(
    problem: ConsentProblem,
    detail: string | null = null,
    more: { subject?: ConsentSubject; retryAfterSeconds?: number } = {},
  ) {
    super(problem);
    this.name = "ConsentError";
    this.problem = problem;
    this.detail = detail;
    this.subject = more.subject ?? null;
    this.retryAfterSeconds = more.retryAfterSeconds ?? null;
  }
}

/** Error codes that have a page of their own. Every other one is a bug of the broker. */
const problemOf: Partial<Record<ErrorCode, ConsentProblem>> = {
  invalid_request: "malformed",
  grant_not_applicable: "malformed",
  connection_not_found: "unknown_link",
  connection_disabled: "connection_disabled",
  conflict: "invalid_state",
  duplicate_grant: "duplicate_grant",
  not_found: "already_answered",
  provider_rejected: "provider_refused",
  needs_reauthorization: "provider_refused",
  provider_unavailable: "provider_unavailable",
  rate_limited: "provider_unavailable",
  client_rejected: "client_rejected",
  storage_unavailable: "storage_unavailable",
  encryption_key_missing: "storage_unavailable",
};

/** The page for a failure; null: the failure is unexpected. */
export function toConsentError(error: unknown): ConsentError | null {
  if (error instanceof ConsentError) return error;
  if (error instanceof ProviderBusyError) {
    const { retryAfterSeconds = refreshTimes.retryAfterMinSeconds } = error.context;
    return new ConsentError("provider_busy", error.message, { retryAfterSeconds });
  }
  if (error instanceof EgressRefusalError) return new ConsentError("refused_here", error.message);
  if (!(error instanceof BrokerError)) return null;
  const problem = problemOf[error.code];
  return problem === undefined ? null : new ConsentError(problem, error.message);
}
