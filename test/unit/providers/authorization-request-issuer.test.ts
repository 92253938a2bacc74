import { describe, expect, test } from "vitest";
import { expectedIssuer, judgeIssuer } from "../../../src/providers/oauth/authorization-request.ts";
import { define } from "./definitions.ts";

function expected(settings: string) {
  const definition = define(
    "",
    `id: own\nauthorization: { url: "https://login.example/realms/ours/auth?tenant=1", ${settings} }\ntoken: { url: https://login.example/token }`,
  );
  return expectedIssuer(definition, {});
}

describe("the issuer of a callback (RFC 9207)", () => {
  test.each([
    ["https://issuer.example/a", "ours"],
    ["https://issuer.example/a/", "other"],
    ["https://issuer.example/other-tenant", "other"],
    ["https://issuer.example", "other"],
    ["https://ISSUER.example/a", "other"],
    ["https://issuer.example:443/a", "other"],
    ["https://issuer.example/%61", "other"],
    ["https://login.example/realms/ours", "other"],
    ["", "other"],
  ])("must be the definition's, to the letter: %s", (iss, verdict) => {
    expect(judgeIssuer(expected("issuer: https://issuer.example/a"), iss)).toBe(verdict);
  });

  test.each([
    ["https://login.example/realms/ours", "ours"],
    ["https://login.example/realms/ours/", "ours"],
    ["https://login.example", "ours"],
    ["https://login.example/realms/our", "other"],
    ["https://login.example/realms/evil", "other"],
    ["https://login.example.evil.example", "other"],
    ["https://login.example/?x", "other"],
    ["https://login.example/#x", "other"],
    ["https://evil.example", "other"],
    ["nonsense", "other"],
    ["", "other"],
  ])("where nobody names one, it is one that the authorize page lies under: %s", (iss, verdict) => {
    expect(judgeIssuer(expected(""), iss)).toBe(verdict);
  });

  test("may be lacking where it is not required, and only there", () => {
    expect(judgeIssuer(expected("issuer: https://issuer.example, iss: if_present"), undefined)).toBe("ours");
    expect(judgeIssuer(expected("issuer: https://issuer.example, iss: required"), undefined)).toBe("unsaid");
    expect(judgeIssuer(expected("issuer: https://issuer.example"), undefined)).toBe("ours");
  });
});
