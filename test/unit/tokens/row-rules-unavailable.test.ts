import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { explainUnavailable, statusAllowsRefresh } from "../../../src/tokens/row-rules.ts";
import { attemptedRow, inSeconds, now, tokenRow } from "./token-row.ts";

const explain = (row: TokenRow, abandonedAtMs: number | null = null) =>
  explainUnavailable(row, { nowMs: now.getTime(), abandonedAtMs });

const failed = { consecutiveFailures: 2, lastErrorCode: "provider_unavailable", lastErrorDetail: "busy" };
const unattended = { grant: "client_credentials", status: "pending" } as const;

const cases: { is: string; row: TokenRow; code: string; says: RegExp }[] = [
  {
    is: "a disabled connection, whatever else is wrong with it",
    row: tokenRow({ status: "disabled", lastErrorCode: "invalid_client" }),
    code: "connection_disabled",
    says: /enable it/,
  },
  {
    is: "a grant that has ended, with what the provider said",
    row: tokenRow({ status: "needs_reauthorization", lastErrorDetail: "invalid_grant: revoked" }),
    code: "needs_reauthorization",
    says: /consent link.*invalid_grant: revoked/,
  },
  {
    is: "a grant that has ended, where a person imports",
    row: tokenRow({ status: "needs_reauthorization", grant: "import" }),
    code: "needs_reauthorization",
    says: /import a new token set/,
  },
  {
    is: "a grant that has ended, where a password is stored",
    row: tokenRow({ status: "needs_reauthorization", grant: "password" }),
    code: "needs_reauthorization",
    says: /PATCH/,
  },
  {
    is: "a grant that has ended, where nobody consents",
    row: tokenRow({ status: "needs_reauthorization", grant: "client_credentials" }),
    code: "needs_reauthorization",
    says: /client at the provider/,
  },
  {
    is: "an account that nobody has connected yet",
    row: tokenRow({ status: "pending" }),
    code: "authorization_pending",
    says: /consent link/,
  },
  {
    is: "a token set that nobody has imported yet",
    row: tokenRow({ status: "pending", grant: "import" }),
    code: "authorization_pending",
    says: /imported/,
  },
  {
    is: "a token that no header can carry: no answer of the provider's either",
    row: tokenRow({ ...failed, lastErrorCode: "unusable_token", lastErrorDetail: "The newest is odd." }),
    code: "provider_unavailable",
    says: /right now\. The newest is odd\.$/,
  },
  {
    is: "an address that this broker's egress rules refuse: its own refusal, and how to allow it",
    row: tokenRow({ ...failed, lastErrorCode: "blocked_address", lastErrorDetail: "x.test may not be reached: rule" }),
    code: "provider_unavailable",
    says: /^This broker refuses to ask the provider: x\.test may not be reached: rule\.$/,
  },
  {
    is: "a provider that was not reached: no answer of the provider's",
    row: tokenRow({ ...failed, lastErrorCode: "connect_failed", lastErrorDetail: "the provider could not be reached" }),
    code: "provider_unavailable",
    says: /right now\. The provider could not be reached$/,
  },
  {
    is: "a refresh that was not sent in time: no answer of the provider's",
    row: tokenRow({ ...failed, lastErrorCode: "send_window_passed", lastErrorDetail: "nothing was sent" }),
    code: "provider_unavailable",
    says: /right now\. Nothing was sent$/,
  },
  {
    is: "a request that this broker held back itself: no answer of the provider's",
    row: tokenRow({ ...failed, lastErrorCode: "limit_reached", lastErrorDetail: "The limits are used up." }),
    code: "provider_unavailable",
    says: /right now\. The limits are used up\.$/,
  },
  {
    is: "a connection that needs no person and whose provider is away: never a person's fault",
    row: tokenRow({ ...unattended, ...failed }),
    code: "provider_unavailable",
    says: /busy/,
  },
  {
    is: "a connection that needs no person and is being connected",
    row: tokenRow(unattended),
    code: "refresh_in_progress",
    says: /under way/,
  },
  {
    is: "a client that the provider refuses",
    row: tokenRow({ ...failed, lastErrorCode: "invalid_client", lastErrorDetail: "bad secret" }),
    code: "client_rejected",
    says: /client.*bad secret/,
  },
  { is: "a request that is under way", row: attemptedRow(-20), code: "refresh_in_progress", says: /under way/ },
  {
    is: "a request that is under way after failures",
    row: attemptedRow(-20, failed),
    code: "refresh_in_progress",
    says: /under way/,
  },
  {
    is: "a request whose outcome nobody knows",
    row: attemptedRow(-20, { ...failed, attemptOutcome: "unknown" }),
    code: "provider_unavailable",
    says: /busy/,
  },
  { is: "a provider that fails", row: tokenRow(failed), code: "provider_unavailable", says: /busy/ },
];

describe("why there is no token", () => {
  it.each(cases)("$is: $code", ({ row, code, says }) => {
    const error = explain(row);
    expect([error.code, error.context.connection]).toEqual([code, "acme"]);
    expect(error.message).toMatch(says);
  });

  it("a Retry-After names the later of the end of the back-off and of the attempt", () => {
    const backingOff = tokenRow({ ...failed, backoffUntil: inSeconds(12.2) });
    expect(explain(backingOff).context.retryAfterSeconds).toBe(13);
    expect(explain(backingOff, inSeconds(40).getTime()).context.retryAfterSeconds).toBe(40);
    expect(explain(tokenRow(failed)).context.retryAfterSeconds).toBe(1);
  });

  it.each(["limit_reached", "rate_limited", "blocked"])(
    "after %s a Retry-After tells when the limits open, up to an hour; other causes may be mended at any time",
    (lastErrorCode) => {
      const until = (seconds: number, code = lastErrorCode) =>
        explain(tokenRow({ ...failed, lastErrorCode: code, backoffUntil: inSeconds(seconds) })).context
          .retryAfterSeconds;
      expect([until(0.2), until(431.2), until(90_000), until(431.2, "provider_unavailable")]).toEqual([
        1, 432, 3600, 60,
      ]);
    },
  );

  it("every 503 has a Retry-After between 1 and 60, an hour where limits are closed, and nothing else has one", () => {
    const rows = fc.record({
      status: fc.constantFrom<TokenRow["status"][]>("pending", "connected", "needs_reauthorization", "disabled"),
      grant: fc.constantFrom("authorization_code", "client_credentials", "password", "import"),
      consecutiveFailures: fc.nat(100),
      lastErrorCode: fc.constantFrom(null, "invalid_client", "rate_limited"),
      attemptOutcome: fc.constantFrom(null, "unknown"),
      backoffUntil: fc.option(fc.integer({ min: -5000, max: 5000 }).map(inSeconds)),
    });
    const property = fc.property(rows, fc.option(fc.integer()), (changes, abandonedAtMs) => {
      const { code, context } = explain(attemptedRow(0, changes), abandonedAtMs);
      const isTemporary = ["provider_unavailable", "refresh_in_progress"].includes(code);
      const seconds = context.retryAfterSeconds;
      expect(seconds === undefined).toBe(!isTemporary);
      const most = changes.lastErrorCode === "rate_limited" ? 3600 : 60;
      if (seconds !== undefined) expect(seconds === Math.min(Math.max(Math.round(seconds), 1), most)).toBe(true);
    });
    fc.assert(property, { numRuns: 1000 });
  });

  it("only connected rows are refreshed, and pending ones that need no person", () => {
    const statuses = ["pending", "connected", "needs_reauthorization", "disabled"] as const;
    const refreshable = (grant: string) =>
      statuses.filter((status) => statusAllowsRefresh({ grant, status, goneBackFrom: null }));
    expect(refreshable("authorization_code")).toEqual(["connected"]);
    expect(refreshable("import")).toEqual(["connected"]);
    expect(refreshable("client_credentials")).toEqual(["pending", "connected"]);
    expect(refreshable("password")).toEqual(["pending", "connected"]);
  });
});
