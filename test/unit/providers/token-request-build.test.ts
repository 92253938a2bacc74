import { describe, expect, test } from "vitest";
import type { ClientAuth, ProviderRequest } from "../../../src/providers/format/definition.ts";
import type { TemplateValues } from "../../../src/providers/format/template.ts";
import type { HttpRequest } from "../../../src/providers/http/exchange.ts";
import { buildRequest } from "../../../src/providers/oauth/token-request.ts";

const form = "application/x-www-form-urlencoded";
const values: TemplateValues = {
  client: { id: "app 1", secret: "s3:cr/ét", assertion: "h.p.s" },
  inputs: { key: "k1" },
};

function request(more: Partial<ProviderRequest>): ProviderRequest {
  const clientAuth: ClientAuth = { kind: "none" };
  const url = "https://login.example/token?tenant=1";
  return { url, method: "POST", encoding: "form", clientAuth, headers: {}, fields: {}, ...more };
}

const write = (clientAuth: ClientAuth, more: Partial<ProviderRequest> = {}): HttpRequest =>
  buildRequest(request({ clientAuth, ...more }), values, { first: [["grant_type", "x"]] });

const basic = (text: string) => `Basic ${Buffer.from(text, "utf8").toString("base64")}`;
const signed: ClientAuth = {
  kind: "private_key_jwt",
  algorithm: "RS256",
  type: null,
  audience: "token_url",
  lifeSeconds: 60,
};
const assertionType = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
const pair = "{client.id}:{client.secret}";
const evil = "a\r\nx-evil: 1";
const inHeader = (value: string) => ({ clientAuth: { kind: "header", header: "x-key", value } as const });

describe("how a client says who it is", () => {
  test.each<[string, ClientAuth, { headers?: object; body?: string; tls?: string }]>([
    ["not at all", { kind: "none" }, {}],
    ["in the body", { kind: "body" }, { body: "&client_id=app+1&client_secret=s3%3Acr%2F%C3%A9t" }],
    [
      "by Basic",
      { kind: "basic", pair, percentEncoding: false },
      { headers: { authorization: basic("app 1:s3:cr/ét") } },
    ],
    [
      "by Basic, encoded first",
      { kind: "basic", pair, percentEncoding: true },
      { headers: { authorization: basic("app+1:s3%3Acr%2F%C3%A9t") } },
    ],
    [
      "by Basic of a pair of its own",
      { kind: "basic", pair: "{inputs.key}:", percentEncoding: false },
      { headers: { authorization: basic("k1:") } },
    ],
    [
      "in a header",
      { kind: "header", header: "x-key", value: "Key {client.secret}" },
      { headers: { "x-key": "Key s3:cr/ét" } },
    ],
    [
      "by an assertion",
      signed,
      { body: `&client_id=app+1&client_assertion_type=${assertionType}&client_assertion=h.p.s` },
    ],
    ["by a certificate", { kind: "tls" }, { body: "&client_id=app+1", tls: "s3:cr/ét" }],
  ])("%s", (_name, clientAuth, { headers = {}, body = "", tls }) => {
    const written = write(clientAuth);
    expect(written.headers).toEqual({ "content-type": form, ...headers });
    expect(written.body).toBe(`grant_type=x${body}`);
    expect(written.tls).toBe(tls);
    expect(written.url).toBe("https://login.example/token?tenant=1");
  });

  test("a client_id that the definition lists itself is not sent twice", () => {
    for (const kind of ["body", "tls"] as const) {
      const fields = { client_id: "other" };
      const written = buildRequest(request({ clientAuth: { kind }, fields }), values);
      expect(new URLSearchParams(written.body).getAll("client_id")).toEqual(["other"]);
    }
  });

  test.each<[ClientAuth]>([
    [{ kind: "body" }],
    [{ kind: "basic", pair, percentEncoding: false }],
    [{ kind: "header", header: "x-key", value: "{client.secret}" }],
    [{ kind: "tls" }],
  ])("%j needs a secret, and is not sent without", (clientAuth) => {
    const without = () => buildRequest(request({ clientAuth }), { client: { id: "app-1" } });
    expect(without).toThrow(expect.objectContaining({ code: "client_rejected" }));
  });
});

describe("a request", () => {
  test("has its fields in a form, in JSON, or in the query beside what its URL has", () => {
    expect(write({ kind: "none" }, { encoding: "json" })).toMatchObject({
      headers: { "content-type": "application/json" },
      body: '{"grant_type":"x"}',
    });
    const asked = write({ kind: "none" }, { encoding: "query", method: "GET" });
    expect(asked.url).toBe("https://login.example/token?tenant=1&grant_type=x");
    expect(asked.headers).toEqual({});
    expect(asked.body).toBeUndefined();
  });

  test("has no header whose optional input is empty", () => {
    const headers = { "x-key": "{inputs.key}", "x-none": "{inputs.none}" };
    const given = { ...values, inputs: { key: "k1", none: "" } };
    expect(buildRequest(request({ headers, encoding: "query" }), given).headers).toEqual({ "x-key": "k1" });
  });

  test.each<[string, Partial<ProviderRequest>, TemplateValues, string]>([
    ["a token", { headers: { "x-a": "{refresh_token}" } }, { refreshToken: evil }, "provider_unavailable"],
    ["a value of an answer", { headers: { "x-a": "{response.x}" } }, { response: { x: evil } }, "provider_unavailable"],
    ["an input", { headers: { "x-a": "k {inputs.x}" } }, { inputs: { x: evil } }, "invalid_request"],
    ["a secret input", { headers: { "x-a": "{inputs.x}" } }, { secretInputs: { x: evil } }, "invalid_request"],
    ["a credential", { headers: { "x-a": "{credentials.x}" } }, { credentials: { x: evil } }, "invalid_request"],
    ["a client's secret", inHeader("{client.secret}"), { client: { id: "a", secret: evil } }, "client_rejected"],
    ["an access token", inHeader("Bearer {access_token}"), { accessToken: evil }, "provider_unavailable"],
  ])("with %s in a header that no header can carry is not made", (...[, more, given, code]) => {
    const making = () => buildRequest(request(more), given);
    expect(making).toThrow(expect.objectContaining({ code }));
    expect(making).not.toThrow(/x-evil/);
  });

  test("carries such a value where it can stand: in a form, in JSON, in a query, and in Basic", () => {
    const fields = { first: [["token", evil]] as const };
    expect(buildRequest(request({}), {}, fields).body).toBe("token=a%0D%0Ax-evil%3A+1");
    expect(buildRequest(request({ encoding: "json" }), {}, fields).body).toBe(String.raw`{"token":"a\r\nx-evil: 1"}`);
    expect(buildRequest(request({ encoding: "query" }), {}, fields).url).toMatch(/&token=a%0D%0Ax-evil%3A\+1$/);
    const clientAuth: ClientAuth = { kind: "basic", pair, percentEncoding: false };
    const { headers } = buildRequest(request({ clientAuth }), { client: { id: "a", secret: evil } });
    expect(headers["authorization"]).toBe(basic(`a:${evil}`));
  });

  test("to no address is refused in words, without the inputs that make it none", () => {
    const inputs = { shop: "no address" };
    const making = () => buildRequest(request({ url: "{inputs.shop}/token" }), { inputs });
    expect(making).toThrow(expect.objectContaining({ code: "invalid_request" }));
    expect(making).not.toThrow(/no address/);
  });

  test("lists every secret that was there to be sent, and spills none of them", () => {
    const secrets: TemplateValues = {
      client: { id: "app-1", secret: "secret-1", assertion: "assertion-1" },
      secretInputs: { key: "secret-2" },
      inputs: { shop: "open" },
      credentials: { password: "secret-3" },
      code: "secret-4",
      codeVerifier: "secret-5",
      refreshToken: "secret-6",
      accessToken: "secret-7",
      deviceCode: "secret-8",
      token: { value: "secret-9", hint: "access_token" },
    };
    const clientAuth: ClientAuth = { kind: "basic", pair, percentEncoding: false };
    const written = buildRequest(request({ clientAuth }), secrets, { first: [["a", "secret-4"]] });
    const numbered = Array.from({ length: 9 }, (_, index) => `secret-${index + 1}`);
    expect(new Set(written.secrets)).toEqual(
      new Set([...numbered, "assertion-1", basic("app-1:secret-1").slice("Basic ".length)]),
    );
    expect(Object.keys(written)).toEqual(["method", "url"]);
    expect(JSON.stringify(written)).not.toMatch(/secret|assertion/);
  });

  test("keeps a certificate's key out of sight", () => {
    expect(JSON.stringify(write({ kind: "tls" }))).not.toContain("s3:cr");
  });
});
