import { expect, test } from "vitest";
import { readJwt, readStrictJson, RefusedToken } from "../../../src/callers/jwt.ts";
import { looksLikeJwt } from "../../../src/jwt-form.ts";

const header = { alg: "RS256", kid: "k1" };
const claims = { iss: "https://issuer.example", aud: "freshet", sub: "me", exp: 1 };
const part = (value: unknown) =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const tokenOf = (head: unknown, body: unknown, signature = "c2ln") => `${part(head)}.${part(body)}.${signature}`;
const refusal = (token: string) => {
  try {
    readJwt(token);
    return null;
  } catch (error) {
    return error instanceof RefusedToken ? error.message : `another error: ${String(error)}`;
  }
};

test("a token in compact form is read, and lists of audiences are", () => {
  expect(readJwt(tokenOf(header, claims))).toEqual({
    algorithm: "RS256",
    keyId: "k1",
    issuer: "https://issuer.example",
    audiences: ["freshet"],
    claims,
  });
  expect(readJwt(tokenOf({ alg: "ES256", typ: "JWT" }, { ...claims, aud: ["a", "b"] }))).toMatchObject({
    keyId: null,
    audiences: ["a", "b"],
  });
  expect(looksLikeJwt(tokenOf(header, claims))).toBe(true);
  expect(looksLikeJwt("frt_4kZt0Qm2xW9a_secret_check")).toBe(false);
});

const good = tokenOf(header, claims);
test.each<[what: string, token: string, reason: RegExp]>([
  ["two parts", good.split(".").slice(0, 2).join("."), /three parts/],
  ["four parts", `${good}.c2ln`, /three parts/],
  ["five parts, as a JWE has", `${good}.c2ln.c2ln`, /three parts/],
  ["no signature", `${part(header)}.${part(claims)}.`, /three parts/],
  ["padding", good.replace(".", "=."), /base64url/],
  [
    "the other base64",
    tokenOf({ ...header, kid: "\u{3fb}???>>>" }, claims)
      .replaceAll("-", "+")
      .replaceAll("_", "/"),
    /base64url/,
  ],
  ["another spelling of the same bytes", `${good.slice(0, -4)}c2lnZh`, /base64url/],
  ["a blank at its end", `${good} `, /base64url/],
  ["a header that is no object", tokenOf([header], claims), /no JSON object/],
  ["claims that are text", tokenOf(header, '"iss"'), /no JSON object/],
  ["claims that are null", tokenOf(header, "null"), /no JSON object/],
  ["claims that are no JSON", tokenOf(header, "{iss:1}"), /strict JSON/],
  ["NaN", tokenOf(header, '{"iss":"a","exp":NaN}'), /strict JSON/],
  ["a byte order mark", tokenOf(header, "\uFEFF{}"), /strict JSON/],
  [
    "bytes that are no UTF-8",
    `${part(header)}.${Buffer.from([0x7b, 0xff, 0x7d]).toString("base64url")}.c2ln`,
    /strict JSON/,
  ],
  ["a claim twice", tokenOf(header, '{"iss":"a","aud":"b","iss":"c"}'), /strict JSON/],
  ["a claim twice, once escaped", tokenOf(header, '{"iss":"a","aud":"b","\\u0069ss":"c"}'), /strict JSON/],
  ["a nested claim twice", tokenOf(header, '{"iss":"a","aud":"b","k":{"n":1,"n":2}}'), /strict JSON/],
  ["a header's member twice", tokenOf('{"alg":"none","alg":"RS256"}', claims), /strict JSON/],
  ["alg none", tokenOf({ alg: "none" }, claims), /asymmetric/],
  ["alg None", tokenOf({ alg: "None" }, claims), /asymmetric/],
  ["alg HS256", tokenOf({ alg: "HS256" }, claims), /asymmetric/],
  ["alg in a list", tokenOf({ alg: ["RS256"] }, claims), /asymmetric/],
  ["no alg", tokenOf({ kid: "k1" }, claims), /asymmetric/],
  ["a kid that is an object", tokenOf({ ...header, kid: { k: 1 } }, claims), /kid/],
  ["a kid without end", tokenOf({ ...header, kid: "k".repeat(501) }, claims), /kid/],
  ["the type of an access token", tokenOf({ ...header, typ: "at+jwt" }, claims), /another use/],
  ["a type that is no text", tokenOf({ ...header, typ: 1 }, claims), /another use/],
  ...["crit", "b64", "jwk", "jku", "x5c", "x5u", "enc", "zip"].map((name): [string, string, RegExp] => [
    `${name} in its header`,
    tokenOf({ ...header, [name]: null }, claims),
    new RegExp(`holds ${name}$`),
  ]),
  ["no issuer", tokenOf(header, { aud: "freshet" }), /issuer/],
  ["issuers in a list", tokenOf(header, { ...claims, iss: [claims.iss] }), /issuer/],
  ["a subject that is a number", tokenOf(header, { ...claims, sub: 1 }), /subject/],
  ["no audience", tokenOf(header, { iss: claims.iss }), /audience/],
  ["an audience that is an object", tokenOf(header, { ...claims, aud: { freshet: true } }), /audience/],
  ["a number among audiences", tokenOf(header, { ...claims, aud: ["freshet", 1] }), /audience/],
  ["more than 8 KiB", tokenOf(header, { ...claims, more: "x".repeat(8192) }), /8 KiB/],
  ["brackets without end", tokenOf(header, `{"a":${"[".repeat(3000)}${"]".repeat(3000)}}`), /strict JSON|issuer/],
])("a token is refused that has %s", (_what, token, reason) => {
  expect(refusal(token)).toMatch(reason);
});

test("colons and quotes within texts are no members", () => {
  const text = '{ "a:b": "c:\\":d", "e" : [ {"f":":"}, [1, {"g":null}] ], "\\\\": ":\\\\" }';
  expect(readStrictJson(text)).toEqual(JSON.parse(text));
  expect(readStrictJson('{"__proto__":1,"constructor":2}')).toEqual(JSON.parse('{"__proto__":1,"constructor":2}'));
  expect(() => readStrictJson('{"__proto__":1,"__proto__":2}')).toThrow(SyntaxError);
});
