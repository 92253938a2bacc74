/** Every way in which a consent can end badly. A closed set: `console/outcome-page.ts` has a page for each. */
export type ConsentProblem =
  | "malformed"
  | "invalid_state"
  | "wrong_browser"
  | "wrong_origin"
  | "stale_form"
  | "unknown_link"
  | "expired_link"
  | "used_link"
  | "connection_disabled"
  | "duplicate_grant"
  | "too_many_requests"
  | "provider_refused"
  | "provider_unavailable"
  | "client_rejected"
  | "storage_unavailable"
  | "internal_error";

/** What a page about a problem may name: only to whoever has shown that the link, or the state, is theirs. */
type ConsentSubject = { connectionName: string; providerName: string };

/** A consent that did not come about. `detail` is for people: never a code, a state or another secret. */
export class ConsentError extends Error {
  readonly problem: ConsentProblem;
  readonly detail: string | null;
  /** Null: nobody knows what it was about, or the caller may not know. */
  readonly subject: ConsentSubject | null;
  /** When it is worth trying again; null: nobody can say. */
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
