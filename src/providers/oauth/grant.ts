/** What a token endpoint gave, read by the definition's pointers. Holds plain secrets: never log one, never store one unsealed. */
export type Grant = {
  /** Absent when the answer held none; a refresh token alone is still worth keeping. */
  accessToken?: string;
  /** Absent: the answer named none, the one that was used stays in force. */
  refreshToken?: string;
  /** The answer named another refresh token before that one, at the same place: it is tried before the grant ends. */
  otherRefreshToken?: string;
  tokenType: string;
  accessExpiry: Expiry;
  refreshExpiry: Expiry;
  /** The answer states a life of one of the tokens that cannot be read: what the definition falls back to counts. */
  unreadableLifetime?: true;
  /** Absent: the answer named none. */
  scopes?: string[];
  /** Values that later templates may use as `{response.X}`. */
  captured: Record<string, string>;
  /** Says who signed in (OpenID Connect Core, section 2). Read once, kept nowhere. */
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
 * The four ways a request to a token endpoint can fail, and what each permits (docs/refresh-protocol.md, step 7):
 * - `not_sent`: nothing left this process; the permit goes back.
 * - `refused_for_now`: the provider answered, and nothing was spent; the permit goes back.
 * - `refused_for_good`: the grant is over; only a person can mend it.
 * - `client_rejected`: the client's id or secret is refused; the grant itself lives.
 * - `unknown`: nobody can tell whether the refresh token was spent; the permit stays.
 */
export type FailureClass = "not_sent" | "refused_for_now" | "refused_for_good" | "client_rejected" | "unknown";

export type Failure = {
  class: FailureClass;
  /** Closed set, shown as `last_error.code`. */
  code: FailureCode;
  /** What the provider said, for people: at most 300 characters, no control characters, and no secret that was sent. */
  detail: string;
  /** HTTP status, where there was an answer. */
  status?: number;
  /** The provider's own code (RFC 6749, section 5.2; RFC 8628, section 3.5), where it looks like one. */
  oauthError?: string;
  /** True where nothing in a refusal says what it is about: neither the definition nor a standard knows it. */
  isUnexplained?: boolean;
  /** As the provider asked (`Retry-After`), not yet capped. */
  retryAfterSeconds?: number;
  /** Of an answer that closes the definition's limits: for how long nothing is sent. */
  closedSeconds?: number;
  /** Of `limit_reached`: true where no other refresh of the client at this host is let through either. */
  isOfClient?: boolean;
  /**
   * The answer of an `unknown` outcome, to be kept sealed: JSON of `{status, headers, complete, body}`, the body in base64. May hold
   * tokens: non-enumerable, so that no logger can spill it.
   */
  rawAnswer?: string;
};

export const failureCodes = [
  "blocked_address", // the definition's URL leads to an address that must not be reached
  "connect_failed", // refused, DNS, TLS, connect timeout
  "limit_reached", // the definition's `limits`: this broker held the request back itself
  "send_window_passed", // the permit was too old when the request was about to be written
  "rate_limited",
  "blocked", // the provider has blocked this broker's address
  "provider_unavailable", // 503, 3xx, temporarily_unavailable, server_error and 4xx that say nothing about the grant
  "invalid_grant",
  "invalid_client",
  "outcome_unknown", // 500, 502, 504, reset, timeout
  "unreadable_secret", // what is stored of the tokens, credentials or client secret does not open; nothing was sent
  "unreadable_answer", // a 2xx without a token that could be read
] as const;

export type FailureCode = (typeof failureCodes)[number];

export type TokenAnswer = { kind: "granted"; grant: Grant } | { kind: "failed"; failure: Failure };
