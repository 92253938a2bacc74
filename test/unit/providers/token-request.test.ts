import { describe, expect, test } from "vitest";
import type { TemplateValues } from "../../../src/providers/format/template.ts";
import type { HttpRequest } from "../../../src/providers/http/exchange.ts";
import { buildRevocationRequest } from "../../../src/providers/oauth/side-requests.ts";
import { buildTokenRequest, tokenHost } from "../../../src/providers/oauth/token-request.ts";
import { builtin, define } from "./definitions.ts";

const client = { id: "my-client", secret: "s3cr3t" };
const basicHeader = `Basic ${Buffer.from("my-client:s3cr3t").toString("base64")}`;
const form = "application/x-www-form-urlencoded";

function build(id: string, options: Omit<Parameters<typeof buildTokenRequest>[0], "definition">): HttpRequest {
  return buildTokenRequest({ definition: builtin(id), ...options });
}

const code: TemplateValues = {
  client,
  code: "the code",
  codeVerifier: "the-verifier",
  redirectUri: "https://broker.example/callback/x",
  inputs: { device_id: "d-1", device_name: "Freshet" },
};

describe("Bakeronline", () => {
  test("exchanges a code with grant_type=code, a verifier and a device, and no secret", () => {
    const request = build("bakeronline", {
      grant: "authorization_code",
      obtainedBy: "authorization_code",
      values: code,
    });
    expect(request.method).toBe("POST");
    expect(request.url).toBe("https://accounts.bakeronline.be/api/token");
    expect(request.headers).toEqual({ accept: "application/json", "x-version": "1.9.0", "content-type": form });
    expect(request.body).toBe(
      "grant_type=code&client_id=my-client&code=the+code&code_verifier=the-verifier&device_id=d-1&device_name=Freshet",
    );
  });

  test("refreshes with the refresh token alone, however the set was obtained", () => {
    for (const obtainedBy of ["authorization_code", "import"] as const) {
      const request = build("bakeronline", {
        grant: "refresh_token",
        obtainedBy,
        values: { client, refreshToken: "r1" },
      });
      expect(request.body).toBe("grant_type=refresh_token&refresh_token=r1");
      expect(request.headers["authorization"]).toBeUndefined();
    }
  });

  test("does not exchange a code that came without a verifier", () => {
    const { codeVerifier: _, ...values } = code;
    const exchange = () =>
      build("bakeronline", { grant: "authorization_code", obtainedBy: "authorization_code", values });
    expect(exchange).toThrow(/PKCE needs the verifier/);
  });
});

describe("Apicbase", () => {
  test("puts the client's id and secret into the form", () => {
    const exchange = build("apicbase", { grant: "authorization_code", obtainedBy: "authorization_code", values: code });
    expect(exchange.url).toBe("https://api.apicbase.com/oauth/token/");
    expect(exchange.headers).toEqual({ accept: "application/json", "content-type": form });
    expect(exchange.body).toBe(
      "grant_type=authorization_code&code=the+code&redirect_uri=https%3A%2F%2Fbroker.example%2Fcallback%2Fx&client_id=my-client&client_secret=s3cr3t",
    );
    const refresh = build("apicbase", {
      grant: "refresh_token",
      obtainedBy: "import",
      values: { client, refreshToken: "r1" },
    });
    expect(refresh.body).toBe("grant_type=refresh_token&refresh_token=r1&client_id=my-client&client_secret=s3cr3t");
  });

  test("or into the Authorization header, and then not into the form", () => {
    const values = { client, refreshToken: "r1" };
    const refresh = build("apicbase-basic", { grant: "refresh_token", obtainedBy: "authorization_code", values });
    expect(refresh.headers).toEqual({ accept: "application/json", "content-type": form, authorization: basicHeader });
    expect(refresh.body).toBe("grant_type=refresh_token&refresh_token=r1");
  });

  test("leaves the redirect URI out for a code that a person copied from the provider's own page", () => {
    const values = { client, code: "c" };
    const request = build("apicbase", { grant: "authorization_code", obtainedBy: "authorization_code", values });
    expect(request.body).toBe("grant_type=authorization_code&code=c&client_id=my-client&client_secret=s3cr3t");
  });
});

describe("Shopware", () => {
  const inputs = { shop_url: "https://shop.example/sub" };

  test("asks for client credentials in JSON, at the shop's own host", () => {
    const request = build("shopware", {
      grant: "client_credentials",
      obtainedBy: "client_credentials",
      values: { client, inputs },
    });
    expect(request.url).toBe("https://shop.example/sub/api/oauth/token");
    expect(request.headers).toEqual({ accept: "application/json", "content-type": "application/json" });
    expect(request.body).toBe('{"grant_type":"client_credentials","client_id":"my-client","client_secret":"s3cr3t"}');
  });

  test("logs in with a password as client administration without a secret, and scopes in the plural", () => {
    const credentials = { username: "admin", password: 'p"w' };
    const request = build("shopware", { grant: "password", obtainedBy: "password", values: { inputs, credentials } });
    expect(request.body).toBe(
      '{"grant_type":"password","client_id":"administration","scopes":"write","username":"admin","password":"p\\"w"}',
    );
  });

  test("refreshes a set that a password gave with the client id and no secret, even where a client is set", () => {
    const values = { client, inputs, refreshToken: "r1" };
    const request = build("shopware", { grant: "refresh_token", obtainedBy: "password", values });
    expect(request.body).toBe('{"grant_type":"refresh_token","client_id":"administration","refresh_token":"r1"}');
  });

  test("has no refresh for client credentials", () => {
    const values = { client, inputs, refreshToken: "r1" };
    const refresh = () => build("shopware", { grant: "refresh_token", obtainedBy: "client_credentials", values });
    expect(refresh).toThrow(expect.objectContaining({ code: "grant_not_applicable" }));
  });
});

describe("bol.com", () => {
  test("asks for client credentials with Basic, the grant type in the query and no body", () => {
    const request = build("bol", { grant: "client_credentials", obtainedBy: "client_credentials", values: { client } });
    expect(request.method).toBe("POST");
    expect(request.url).toBe("https://login.bol.com/token?grant_type=client_credentials");
    expect(request.headers).toEqual({ accept: "application/json", authorization: basicHeader });
    expect(request.body).toBeUndefined();
  });

  test("or with everything in a form", () => {
    const request = build("bol-form", {
      grant: "client_credentials",
      obtainedBy: "client_credentials",
      values: { client },
    });
    expect(request.url).toBe("https://login.bol.com/token");
    expect(request.headers).toEqual({ accept: "application/json", "content-type": form });
    expect(request.body).toBe("grant_type=client_credentials&client_id=my-client&client_secret=s3cr3t");
  });

  test.each(["bol", "bol-form"])("%s: codes and refresh tokens of intermediaries go into a form, with Basic", (id) => {
    const exchange = build(id, { grant: "authorization_code", obtainedBy: "authorization_code", values: code });
    expect(exchange.url).toBe("https://login.bol.com/token");
    expect(exchange.headers).toEqual({ accept: "application/json", "content-type": form, authorization: basicHeader });
    expect(exchange.body).toBe(
      "grant_type=authorization_code&code=the+code&redirect_uri=https%3A%2F%2Fbroker.example%2Fcallback%2Fx",
    );
    const values = { client, refreshToken: "r1" };
    const refresh = build(id, { grant: "refresh_token", obtainedBy: "authorization_code", values });
    expect(refresh.headers["authorization"]).toBe(basicHeader);
    expect(refresh.body).toBe("grant_type=refresh_token&refresh_token=r1");
  });
});

const buildBol = (values: TemplateValues) => () =>
  build("bol", { grant: "client_credentials", obtainedBy: "client_credentials", values });

describe("any provider", () => {
  test("Basic encodes id and secret only where the definition says so (RFC 6749, section 2.3.1)", () => {
    const values = { client: { id: "a b", secret: "c:d/é" } };
    const request = (percent: boolean) =>
      buildTokenRequest({
        definition: define(
          "grants: [client_credentials]",
          `id: own\ntoken: { url: https://login.example/token, basic_percent_encoding: ${percent} }`,
        ),
        grant: "client_credentials",
        obtainedBy: "client_credentials",
        values,
      }).headers["authorization"];
    expect(request(false)).toBe(`Basic ${Buffer.from("a b:c:d/é").toString("base64")}`);
    expect(request(true)).toBe(`Basic ${Buffer.from("a+b:c%3Ad%2F%C3%A9").toString("base64")}`);
  });

  test("the fields of RFC 6749 are sent where a file lists none, and scope only where there is one", () => {
    const definition = define("grants: [client_credentials]");
    const body = (scope?: string) =>
      buildTokenRequest({
        definition,
        grant: "client_credentials",
        obtainedBy: "client_credentials",
        values: { client, scope },
      }).body;
    expect(body("a b")).toBe("grant_type=client_credentials&scope=a+b");
    expect(body()).toBe("grant_type=client_credentials");
    expect(body("")).toBe("grant_type=client_credentials");
  });

  test("a value in a path cannot leave its place", () => {
    const definition = define(
      "inputs: { tenant: {} }\ngrants: [client_credentials]",
      "id: own\ntoken: { url: 'https://login.example/{inputs.tenant}/token' }",
    );
    const url = (tenant: string) =>
      buildTokenRequest({
        definition,
        grant: "client_credentials",
        obtainedBy: "client_credentials",
        values: { client, inputs: { tenant } },
      }).url;
    expect(url("a/../b?c#d")).toBe("https://login.example/a%2F..%2Fb%3Fc%23d/token");
    expect(() => url("..")).toThrow(/cannot be dots alone/);
  });

  test("a captured value is used by later requests, and named when it lacks", () => {
    const definition = define(
      "grants: [import]\nresponse: { capture: { tenant: /tenant } }",
      "id: own\ntoken: { url: https://login.example/token, headers: { x-tenant: '{response.tenant}' } }",
    );
    const request = (response: Record<string, string>) =>
      buildTokenRequest({
        definition,
        grant: "refresh_token",
        obtainedBy: "import",
        values: { client, refreshToken: "r", response },
      });
    expect(request({ tenant: "t1" }).headers["x-tenant"]).toBe("t1");
    expect(() => request({})).toThrow(/needs response\.tenant/);
  });

  test("a secret or a client that lacks is named, never guessed", () => {
    expect(buildBol({ client: { id: "x" } })).toThrow(expect.objectContaining({ code: "client_rejected" }));
    expect(buildBol({})).toThrow(/needs a client/);
  });

  test("printing a request shows no secret, and its list of secrets names each", () => {
    const credentials = { username: "admin", password: "pw" };
    const values = { client, inputs: { shop_url: "https://s.example" }, credentials };
    const request = build("shopware", { grant: "password", obtainedBy: "password", values });
    expect(JSON.stringify(request)).toBe('{"method":"POST","url":"https://s.example/api/oauth/token"}');
    expect(request.secrets).toEqual(["s3cr3t", "admin", "pw"]);
    const basic = build("bol", {
      grant: "refresh_token",
      obtainedBy: "import",
      values: { client, refreshToken: "r1" },
    });
    expect(basic.secrets).toEqual(["s3cr3t", "r1", basicHeader.slice(6)]);
  });

  test("a revocation carries the token, its kind and the client (RFC 7009)", () => {
    const request = buildRevocationRequest({
      definition: builtin("sandbox"),
      token: { value: "r1", hint: "refresh_token" },
      values: { client },
    });
    expect(request?.url).toBe("http://127.0.0.1:8080/sandbox/revoke");
    expect(request?.headers["authorization"]).toBe(basicHeader);
    expect(request?.body).toBe("token=r1&token_type_hint=refresh_token");
    const none = buildRevocationRequest({
      definition: builtin("bol"),
      token: { value: "r1", hint: "refresh_token" },
      values: {},
    });
    expect(none).toBeNull();
  });

  test("the token host is that of the tenant", () => {
    expect(tokenHost(builtin("shopware"), "password", { inputs: { shop_url: "https://s.example:8443/x" } })).toBe(
      "s.example:8443",
    );
    expect(tokenHost(builtin("bol"), "client_credentials", {})).toBe("login.bol.com");
  });
});
