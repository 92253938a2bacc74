import { expect, it } from "vitest";
import { issueToken } from "../../../src/tokens/read.ts";
import { inSeconds, now, tokenRow } from "./token-row.ts";

const at = now.getTime();

it("a caller gets the token, its whole seconds left, and nothing of the refresh token", () => {
  const row = tokenRow({ expiresAt: inSeconds(299.9), grantedScopes: ["read"], tokenType: null });
  expect(issueToken({ row, accessToken: "secret" }, [], at)).toEqual({
    connection: "acme",
    token: null,
    accessToken: "secret",
    tokenType: "Bearer",
    expiresAt: inSeconds(299.9),
    expiresInSeconds: 299,
    scopes: ["read"],
    missingScopes: [],
    version: 5,
    warnings: [],
  });
});

it("one that never expires has no end", () => {
  const token = issueToken({ row: tokenRow({ expiresAt: null }), accessToken: "secret" }, [], at);
  expect([token?.expiresAt, token?.expiresInSeconds]).toEqual([null, null]);
});

it("none is handed out at or after its end, or where there is none", () => {
  expect(issueToken({ row: tokenRow({ expiresAt: now }), accessToken: "secret" }, [], at)).toBeNull();
  expect(issueToken({ row: tokenRow({ expiresAt: null }), accessToken: null }, [], at)).toBeNull();
});

it.each([
  ["fails", { consecutiveFailures: 1, lastErrorCode: "provider_unavailable" }],
  ["is held back by the limits", { consecutiveFailures: 0, lastErrorCode: "limit_reached" }],
])("a token whose refresh %s says so, once", (_is, changes) => {
  const known = { row: tokenRow(changes), accessToken: "secret" };
  const codes = (...given: Parameters<typeof issueToken>[1]) =>
    issueToken(known, given, at)?.warnings.map(({ code }) => code);
  expect(codes()).toEqual(["refresh_failing"]);
  expect(codes("refresh_failing", "recently_refreshed")).toEqual(["refresh_failing", "recently_refreshed"]);
});

it("a token whose last refresh worked says nothing", () => {
  expect(issueToken({ row: tokenRow(), accessToken: "secret" }, [], at)?.warnings).toEqual([]);
});

it("a token whose stated life could not be read says so", () => {
  const warnings = issueToken({ row: tokenRow({ unreadableLifetime: true }), accessToken: "secret" }, [], at)?.warnings;
  expect(warnings).toEqual([{ code: "lifetime_unreadable", detail: expect.stringContaining("response.expires") }]);
});

it("a token that no refresh token can follow says so, and what to do; one that never ends needs none", () => {
  const since = inSeconds(-60);
  const warned = (changes: Parameters<typeof tokenRow>[0]) =>
    issueToken({ row: tokenRow({ noRefreshTokenSince: since, ...changes }), accessToken: "secret" }, [], at)?.warnings;
  expect(warned({ refreshToken: null })).toEqual([
    { code: "no_refresh_token", detail: expect.stringMatching(/ends with its access token.*connect it again/s) },
  ]);
  expect(warned({ refreshToken: null, scopes: ["offline_access"] })?.[0]?.detail).toContain("was not granted");
  expect(warned({ refreshToken: null, grant: "import" })?.[0]?.detail).toContain("Import a token set");
  expect(warned({})).toEqual([{ code: "no_refresh_token", detail: expect.stringContaining("is kept and sent next") }]);
  expect(warned({ refreshToken: null, expiresAt: null })).toEqual([]);
});

const missing = (changes: Parameters<typeof tokenRow>[0]) => {
  const row = tokenRow({ scopes: ["read", "write", "offline_access"], grantedScopes: ["read"], ...changes });
  return issueToken({ row, accessToken: "secret" }, [], at)?.missingScopes;
};

it("what was asked for and not granted is listed, offline_access only where no refresh token shows that it was", () => {
  expect(missing({})).toEqual(["write"]);
  expect(missing({ refreshToken: null })).toEqual(["write", "offline_access"]);
  // A grant without a person gives no refresh token, so none is missing, although older rows hold that scope.
  expect(missing({ refreshToken: null, grant: "client_credentials" })).toEqual(["write"]);
  expect(missing({ chain: "user" })).toEqual([]);
});
