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
  | "provider_refused"
  | "provider_unavailable"
  | "client_rejected"
  | "storage_unavailable"
  | "internal_error";

/** A consent that did not come about. `detail` is for people: never a code, a state or another secret. */
export class ConsentError extends Error {
  readonly problem: ConsentProblem;
  readonly detail: string | null;

  constructor(problem: ConsentProblem, detail: string | null = null) {
    super(problem);
    this.name = "ConsentError";
    this.problem = problem;
    this.detail = detail;
  }
}
