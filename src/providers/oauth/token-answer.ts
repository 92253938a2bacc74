/** What a token endpoint has granted, read by the definition's pointers. Holds plain secrets: never log them or store them unsealed. */
export type Grant = {
  /** Absent if the answer had none. A refresh token alone is stored, too. */
  accessToken?: string;
  /** Absent: the answer had none, and the one that was sent stays. */
  refreshToken?: string;
  /** Another refresh token that the answer had before that one, in the same place. It is tried before the grant ends. */
  otherRefreshToken?: string;
  tokenType: string;
  accessExpiry: Expiry;
  refreshExpiry: Expiry;
  /** The lifetime of a token in the answer cannot be read, so the definition's fallback counts. */
  unreadableLifetime?: true;
  /** Absent: the answer named none. */
  scopes?: string[];
  /** Values that later templates may use as `{response.X}`. */
  captured: Record<string, string>;
  /** Says who signed in (OpenID Connect Core, section 2). It is read once and not stored. */
  idToken?: string;
  /** Further tokens of the same consent, by its name. */
  furtherTokens?: Readonly<Record<string, Grant>>;
};

/** When a token runs out. `in` counts from the moment the request was sent, by Postgres's clock. */
export type Expiry =
  | { kind: "never" }
  | { kind: "in"; seconds: number }
  | { kind: "at"; epochSeconds: number }
  | { kind: "unstated" };

/**
 * The five ways in which a request to a token endpoint can fail, and what each permits (docs/refresh-protocol.md, step 7):
 * - `not_sent`: nothing left this process; the permit goes back.
 * - `refused_for_now`: the provider answered, and nothing was spent; the permit goes back.
 * - `refused_for_good`: the grant is over; a person must connect again.
 * - `client_rejected`: the client's id or secret is refused; the grant is still valid.
 * - `unknown`: nobody knows whether the refresh token was spent; the permit stays.
 */
export type FailureClass = "not_sent" | "refused_for_now" | "refused_for_good" | "client_rejected" | "unknown";

export type Failure = {
  class: FailureClass;
  /** Closed set, shown as `last_error.code`. */
  code: FailureCode;
  /** The provider's words, for people: at most 300 characters, without control characters and secrets that were sent. */
  detail: string;
  /** HTTP status, where there was an answer. */
  status?: number;
  /** The provider's own code (RFC 6749, section 5.2; RFC 8628, section 3.5), where it looks like one. */
  oauthError?: string;
  /** True if neither the definition nor a standard says what the refusal means. */
  isUnexplained?: boolean;
  /** As the provider asked (`Retry-After`), not yet capped. */
  retryAfterSeconds?: number;
  /** If the answer closes the definition's limits: for how many seconds nothing is sent. */
  closedSeconds?: number;
  /** For `limit_reached`: true if no other refresh of the client at this host is admitted either. */
  isOfClient?: boolean;
  /**
   * The answer of an `unknown` outcome, to be stored sealed: JSON of `{status, headers, complete, body}`, with the body in base64. It may hold
   * tokens, so it is not enumerable and no logger can print it.
   */
  rawAnswer?: string;
};

export const failureCodes = [
  "blocked_address", // the definition's URL leads to an address that must not be reached
  "connect_failed", // refused, DNS, TLS, connect timeout
  "limit_reached", // the definition's `limits` did not admit the request
  "send_window_passed", // the permit was too old when the request was about to be written
  "rate_limited",
  "blocked", // the provider has blocked this broker's address
  "provider_unavailable", // 503, 3xx, temporarily_unavailable, server_error and 4xx that say nothing about the grant
  "invalid_grant",
  "invalid_client",
  "outcome_unknown", // 500, 502, 504, reset, timeout
  "unreadable_secret", // stored tokens, credentials or the client's secret do not open; nothing was sent
  "unreadable_answer", // a 2xx without a token that could be read
] as const;

export type FailureCode = (typeof failureCodes)[number];

export type TokenAnswer = { kind: "granted"; grant: Grant } | { kind: "failed"; failure: Failure };
