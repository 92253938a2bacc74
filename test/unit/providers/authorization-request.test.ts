import { createHash, createHmac, randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import {
  askedScopes,
  effectiveScopes,
  joinScopes,
  missingScopes,
  scopesFor,
  splitScopes,
} from "../../../src/providers/format/requirements.ts";
import { buildAuthorizationUrl, createPkce, readCallback } from "../../../src/providers/oauth/authorization-request.ts";
import { builtin, define } from "./definitions.ts";

const redirectUri = "https://broker.example/callback/own";

function authorize(
  definition: ProviderDefinition,
  more: Partial<Parameters<typeof buildAuthorizationUrl>[0]> = {},
): URL {
  const values = { client: { id: "my client" }, redirectUri };
  return new URL(
    buildAuthorizationUrl({ definition, values, state: "st", nonce: null, codeChallenge: null, scopes: [], ...more }),
  );
}

function withAuthorization(settings: string): ProviderDefinition {
  return define(
    "",
    `id: own\nauthorization: { url: "https://login.example/authorize?tenant=1", ${settings} }\ntoken: { url: https://login.example/token }`,
  );
}

describe("the authorization request", () => {
  test("has the parameters of RFC 6749 and RFC 7636", () => {
    const codeChallenge = { challenge: "ch", method: "S256" } as const;
    const url = authorize(builtin("bakeronline"), { codeChallenge, scopes: ["company:read", "user:read"] });
    expect(url.href).toBe(
      "https://accounts.bakeronline.be/oauth/authorize?response_type=code&client_id=my+client&redirect_uri=https%3A%2F%2Fbroker.example%2Fcallback%2Fown&scope=company%3Aread+user%3Aread&state=st&code_challenge=ch&code_challenge_method=S256",
    );
  });

  test("leaves out what there is none of", () => {
    const url = authorize(builtin("apicbase"), { values: { client: { id: "c" } } });
    expect(url.href).toBe("https://app.apicbase.com/oauth/authorize/?response_type=code&client_id=c&state=st");
  });

  test("sets, renames and removes parameters as the definition says, beside those of its URL", () => {
    const definition = withAuthorization(
      `params: { client_id: application_id, response_type: null, access_type: offline, who: "{client.id}" }, scope: { param: user_scope, separator: "," }`,
    );
    const { searchParams } = authorize(definition, { scopes: ["a", "b"] });
    expect(Object.fromEntries(searchParams)).toEqual({
      tenant: "1",
      application_id: "my client",
      redirect_uri: redirectUri,
      user_scope: "a,b",
      state: "st",
      access_type: "offline",
      who: "my client",
    });
  });

  test("cannot be built for a provider without the code grant", () => {
    expect(() => authorize(builtin("shopware"))).toThrow(expect.objectContaining({ code: "grant_not_applicable" }));
  });
});

describe("PKCE", () => {
  test("a verifier has 256 bits, and its S256 challenge is url-safe (RFC 7636, appendix B)", () => {
    const octets = [
      116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105, 214, 191, 240,
      91, 88, 5, 88, 83, 132, 141, 121,
    ];
    const pkce = createPkce({ definition: builtin("bakeronline"), randomBytes: () => Uint8Array.from(octets) });
    expect(pkce).toEqual({
      verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
      challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
      method: "S256",
    });
  });

  test("the challenge is padded base64 or plain where the definition says so, and there is none where it is off", () => {
    const padded = createPkce({ definition: withAuthorization("challenge_encoding: base64"), randomBytes });
    expect(padded?.challenge).toBe(
      createHash("sha256")
        .update(padded?.verifier ?? "")
        .digest("base64"),
    );
    const plain = createPkce({ definition: withAuthorization("pkce_method: plain"), randomBytes });
    expect(plain).toMatchObject({ challenge: plain?.verifier, method: "plain" });
    expect(createPkce({ definition: builtin("apicbase"), randomBytes })).toBeNull();
  });
});

describe("the callback", () => {
  const definition = withAuthorization("callback: { code: oauth_code, capture: { realm: realmId, none: none } }");

  test("gives the code, what is captured and the issuer", () => {
    const query = { oauth_code: "c1", realmId: "42", iss: "https://login.example", other: "x" };
    expect(readCallback(definition, query)).toEqual({
      kind: "code",
      code: "c1",
      captured: { realm: "42" },
      iss: "https://login.example",
    });
  });

  test("an error is told in one plain line", () => {
    const query = {
      error: "access_denied",
      error_description: `no\r\n\u0000thanks ${"x ".repeat(400)}`,
      oauth_code: "c1",
    };
    const callback = readCallback(definition, query);
    expect(callback).toMatchObject({ kind: "error", error: "access_denied" });
    expect(callback.kind === "error" && callback.description).toMatch(/^no thanks x/);
    expect(callback.kind === "error" && callback.description.length).toBe(300);
  });

  test.each<[string, Record<string, unknown>]>([
    ["neither a code nor an error", {}],
    ["an empty code", { oauth_code: "" }],
    ["two codes", { oauth_code: ["a", "b"] }],
    ["a code under another name", { code: "c1" }],
  ])("%s is an error", (_name, query) => {
    expect(readCallback(definition, query)).toMatchObject({ kind: "error", error: "missing_code" });
  });

  test("a captured value that could not stand in a header is left out", () => {
    expect(readCallback(definition, { oauth_code: "c", realmId: "a\nb" })).toMatchObject({ captured: {} });
  });
});

const sign = (message: string, secret = "s3cr3t") => createHmac("sha256", secret).update(message).digest("hex");

describe("a callback that a provider signs (hmac_sha256_query)", () => {
  const definition = withAuthorization("callback: { verify: hmac_sha256_query, capture: { shop: shop } }");
  const query = { state: "st", shop: "a.shops.example", code: "c1", timestamp: "1800000000" };
  const sorted = "code=c1&shop=a.shops.example&state=st&timestamp=1800000000";
  const read = (given: Record<string, unknown>, secret: string | string[] | null = "s3cr3t") =>
    readCallback(definition, given, () => secret);

  test("is taken with the signature of all other parameters, sorted, in either case", () => {
    const taken = { kind: "code", code: "c1", captured: { shop: "a.shops.example" } };
    expect(read({ hmac: sign(sorted), ...query })).toEqual(taken);
    expect(read({ ...query, hmac: sign(sorted).toUpperCase() })).toEqual(taken);
  });

  test.each<[string, Record<string, unknown>]>([
    ["no signature", query],
    ["an empty one", { ...query, hmac: "" }],
    ["one that is cut short", { ...query, hmac: sign(sorted).slice(0, 62) }],
    ["one that is none", { ...query, hmac: "z".repeat(64) }],
    ["two", { ...query, hmac: [sign(sorted), sign(sorted)] }],
    ["one by another secret", { ...query, hmac: sign(sorted, "other") }],
    [
      "one of parameters in another order",
      { ...query, hmac: sign("state=st&shop=a.shops.example&code=c1&timestamp=1800000000") },
    ],
    ["another code", { ...query, code: "c2", hmac: sign(sorted) }],
    ["another shop", { ...query, shop: "evil.example", hmac: sign(sorted) }],
    ["a parameter more", { ...query, more: "x", hmac: sign(sorted) }],
    ["a parameter less", { code: "c1", shop: query.shop, state: "st", hmac: sign(sorted) }],
  ])("with %s is refused, and its code is not read", (_name, given) => {
    const callback = read(given);
    expect(callback).toMatchObject({ kind: "error", error: "invalid_signature" });
    expect(JSON.stringify(callback)).not.toMatch(/c1|c2/);
  });

  test("is refused where the client has no secret to check it by", () => {
    expect(read({ ...query, hmac: sign(sorted) }, null)).toMatchObject({ kind: "error", error: "invalid_signature" });
    expect(read({ ...query, hmac: sign(sorted, "") }, null)).toMatchObject({ kind: "error" });
  });

  test("is taken by either of two secrets while one takes the other's place, and by no third", () => {
    const signed = { ...query, hmac: sign(sorted) };
    expect(read(signed, ["new", "s3cr3t"])).toMatchObject({ kind: "code" });
    expect(read(signed, ["s3cr3t", "old"])).toMatchObject({ kind: "code" });
    expect(read(signed, ["new", "old"])).toMatchObject({ error: "invalid_signature" });
    expect(read(signed, [])).toMatchObject({ error: "invalid_signature" });
  });

  test("is not asked for by a definition without it", () => {
    expect(readCallback(withAuthorization(""), query)).toMatchObject({ kind: "code", code: "c1" });
  });
});

test("a captured value that does not fit its pattern was tampered with; one that is lacking was not", () => {
  const settings = "callback: { capture: { shop: { param: shop, pattern: '^[a-z]+\\.shops\\.example$' } } }";
  const definition = withAuthorization(settings);
  expect(readCallback(definition, { code: "c1", shop: "a.shops.example" })).toMatchObject({
    kind: "code",
    captured: { shop: "a.shops.example" },
  });
  expect(readCallback(definition, { code: "c1", shop: "evil.test/.shops.example" })).toMatchObject({
    kind: "error",
    error: "unexpected_parameter",
    description: "shop is not what this provider sends",
  });
  expect(readCallback(definition, { code: "c1" })).toMatchObject({ kind: "code", captured: {} });
});

test("a callback that names a host outside of the definition's list is refused, and told what is allowed", () => {
  const list = "enum: [https://a.one.example, https://b.two.example]";
  const definition = withAuthorization(`callback: { capture: { server: { param: accounts-server, ${list} } } }`);
  const read = (query: Record<string, unknown>) => readCallback(definition, { code: "c1", ...query });
  expect(read({ "accounts-server": "https://b.two.example" })).toMatchObject({
    kind: "code",
    captured: { server: "https://b.two.example" },
  });
  for (const foreign of [
    "https://evil.test",
    "https://b.two.example/",
    "https://b.two.example@evil.test",
    "HTTPS://B.TWO.EXAMPLE",
  ]) {
    expect(read({ "accounts-server": foreign })).toMatchObject({
      kind: "error",
      error: "unexpected_parameter",
      description:
        "accounts-server is none of those that this provider has: https://a.one.example, https://b.two.example",
    });
  }
  // A parameter that is there twice counts as absent (RFC 6749, section 3.1).
  expect(read({ "accounts-server": ["https://a.one.example", "https://evil.test"] })).toMatchObject({ captured: {} });
});

test("a captured value that cannot be sent where the definition puts it is not what the provider sends, whatever its pattern takes", () => {
  const definition = define(
    "",
    `id: own
authorization: { url: https://login.example/authorize, callback: { capture: { org: { param: org, pattern: '^.+$' }, realm: { param: realm, pattern: '^[a-z.]+$' } } } }
token: { url: "https://login.example/{callback.realm}/token", headers: { x-org: "{callback.org}" } }`,
  );
  const read = (query: Record<string, string>) =>
    readCallback(definition, { code: "c1", org: "a", realm: "r", ...query });
  expect(read({})).toMatchObject({ kind: "code", captured: { org: "a", realm: "r" } });
  for (const odd of [{ org: "a\u4e00" }, { realm: ".." }]) {
    expect(read(odd)).toMatchObject({ kind: "error", error: "unexpected_parameter" });
  }
});

describe("scopes", () => {
  const definition = withAuthorization(`scope: { separator: ",", default: [a], required: [offline] }`);

  test("are the defaults where none are asked for, and always those required", () => {
    expect(effectiveScopes(definition, "authorization_code", null)).toEqual(["a", "offline"]);
    expect(effectiveScopes(definition, "authorization_code", [])).toEqual(["a", "offline"]);
    expect(effectiveScopes(definition, "authorization_code", ["b", "offline"])).toEqual(["b", "offline"]);
  });

  test("are those requested alone where the grant's request names none", () => {
    const silent = builtin("bol");
    const naming = define(
      "",
      "id: own\ngrants: [client_credentials]\nauthorization: { scope: { default: [a], required: [offline] } }\ntoken: { url: https://login.example/token }",
    );
    expect(scopesFor(silent, "client_credentials", null)).toEqual([]);
    expect(scopesFor(silent, "client_credentials", ["b", "b"])).toEqual(["b"]);
    expect(scopesFor(silent, "authorization_code", null)).toEqual(["offline_access"]);
    expect(scopesFor(naming, "client_credentials", null)).toEqual(["a", "offline"]);
  });

  test("of a grant that has its own are those, and what it does not say is as for all", () => {
    const grants = `client_credentials: { scope: { default: [m] } }, password: { scope: { required: [] } }, device_code: { scope: { default: [], required: [] } }`;
    const head = `id: own\ngrants: [authorization_code, client_credentials, password, device_code, import]`;
    const own = define(
      `authorization: { url: https://x.example, scope: { default: [a], required: [offline] } }
token: { url: https://x.example, grants: { ${grants} } }
device: { url: https://x.example/device }`,
      head,
    );
    const asked = own.grants.map((grant) => [grant, scopesFor(own, grant, null).join(" ")]);
    expect(Object.fromEntries(asked)).toEqual({
      authorization_code: "a offline",
      client_credentials: "m offline",
      password: "a",
      device_code: "",
      import: "a offline",
    });
    expect(scopesFor(own, "client_credentials", ["b"])).toEqual(["b", "offline"]);
    expect(scopesFor(own, "password", ["b"])).toEqual(["b"]);
  });

  test("of a healthy connection to bol.com are never missing, by whichever grant", () => {
    for (const id of ["bol", "bol-form"]) {
      const bol = builtin(id);
      const missing = (grant: "authorization_code" | "client_credentials", granted: string[] | null) =>
        missingScopes(scopesFor(bol, grant, null), {
          granted,
          hasRefreshToken: grant === "authorization_code",
          grant,
        });
      expect([missing("client_credentials", ["RETAILER"]), missing("client_credentials", null)]).toEqual([[], []]);
      expect([missing("authorization_code", ["RETAILER"]), missing("authorization_code", null)]).toEqual([[], []]);
      expect(askedScopes(bol, "client_credentials").required).toEqual([]);
      expect(askedScopes(bol, "authorization_code").required).toEqual(["offline_access"]);
    }
  });

  test("are joined and split as the provider writes them", () => {
    expect(joinScopes(definition, ["a", "b"])).toBe("a,b");
    expect(splitScopes(definition, "a, b,,c d")).toEqual(["a", "b", "c", "d"]);
  });

  test("are missing where they were asked for and not granted, unless the provider names none", () => {
    const none = { hasRefreshToken: false };
    expect(missingScopes(["a", "b"], { granted: ["b", "c"], ...none })).toEqual(["a"]);
    expect(missingScopes(["a", "b"], { granted: null, ...none })).toEqual([]);
  });
});
