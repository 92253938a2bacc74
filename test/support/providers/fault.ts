import type { Answer } from "./route.ts";

/** The ways in which a request to a strict server can be wrong. How each is answered is up to the system. */
export type FaultKind =
  | "invalid_request"
  | "invalid_client"
  | "invalid_grant"
  | "invalid_scope"
  | "invalid_user"
  | "unsupported_grant_type"
  | "wrong_content_type"
  | "not_acceptable"
  | "access_token_expired"
  | "access_token_invalid";

/** Thrown by a check; the system turns it into the error that its documents name. */
export class Fault extends Error {
  readonly kind: FaultKind;

  constructor(kind: FaultKind, detail: string) {
    super(detail);
    this.name = "Fault";
    this.kind = kind;
  }
}

const standardNames: Partial<Record<FaultKind, string>> = {
  wrong_content_type: "invalid_request",
  not_acceptable: "invalid_request",
  invalid_user: "invalid_grant",
};

/** The error of RFC 6749, section 5.2. */
export function oauthError({ kind, message }: Fault): Answer {
  const body = { error: standardNames[kind] ?? kind, error_description: message };
  return { status: kind === "invalid_client" ? 401 : 400, body };
}
