import { describe, expect, test } from "vitest";
import { judgeIdToken } from "../../../src/providers/oauth/token-response.ts";

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
const token = (claims: unknown) => `${encode({ alg: "RS256" })}.${encode(claims)}.signature`;
const ours = { iss: "https://login.example", aud: "app-1", nonce: "n-1", sub: "ada" };
const expected = { nonce: "n-1", issuer: "https://login.example", clientId: "app-1" };

describe("an id_token (OpenID Connect Core, section 3.1.3.7)", () => {
  test.each([
    ["that fits", token(ours), "fits"],
    ["with several audiences", token({ ...ours, aud: ["other", "app-1"] }), "fits"],
    ["without iss and aud", token({ nonce: "n-1" }), "fits"],
    ["that did not come", undefined, "fits"],
    ["of another request", token({ ...ours, nonce: "n-2" }), "nonce"],
    ["with an empty nonce", token({ ...ours, nonce: "" }), "nonce"],
    ["of another issuer", token({ ...ours, iss: "https://login.example/" }), "iss"],
    ["for another client", token({ ...ours, aud: "app-2" }), "aud"],
    ["for other clients", token({ ...ours, aud: ["app-2", "app-3"] }), "aud"],
    ["of another issuer and without a nonce", token({ iss: "https://evil.example" }), "iss"],
    ["without a nonce", token({ ...ours, nonce: undefined }), "no_nonce"],
    ["with a nonce that is no text", token({ ...ours, nonce: 1 }), "no_nonce"],
    ["that is encrypted", "a.b.c.d.e", "unreadable"],
    ["that is no JWT", "opaque", "unreadable"],
    ["that holds no claims", token(null), "unreadable"],
    ["that holds a list", token([]), "unreadable"],
    ["that holds no JSON", "a.bm9uc2Vuc2U.c", "unreadable"],
    ["that is empty", "", "unreadable"],
    ["that is enormous", "x".repeat(1_000_000), "unreadable"],
  ])("%s", (_what, idToken, verdict) => {
    const found = judgeIdToken(idToken, expected);
    const said = found.kind === "fits" ? "fits" : found.kind === "foreign" ? found.claim : found.why;
    expect(said).toBe(verdict);
  });

  test.each([
    ["no nonce was sent", { ...expected, nonce: null }, token({ ...ours, nonce: "any" })],
    ["no issuer is known", { ...expected, issuer: null }, token({ ...ours, iss: "https://other.example" })],
    ["there is no client", { ...expected, clientId: null }, token({ ...ours, aud: "other" })],
    ["nothing is expected, and nothing can be read", { nonce: null, issuer: null, clientId: null }, "opaque"],
  ])("is not compared where %s", (_why, known, idToken) => {
    expect(judgeIdToken(idToken, known).kind).toBe("fits");
  });
});
