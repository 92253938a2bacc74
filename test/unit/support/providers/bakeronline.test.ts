import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Bakeronline } from "../../../support/providers/bakeronline.ts";
import { approve, deny } from "../../../support/walk-consent.ts";
import { type Sent, but, challenge, codeFrom, redirectUri, outcome, send, verifier } from "./send.ts";

const version = { "x-version": "1.9.0" };
let server: Bakeronline;
let authorize: Record<string, string>;
let exchange: Record<string, string>;

beforeEach(async () => {
  server = await new Bakeronline().start();
  server.redirectUris.add(redirectUri);
  authorize = {
    response_type: "code",
    client_id: server.client.id,
    redirect_uri: redirectUri,
    scope: "company:read company:write",
    code_challenge: challenge,
    code_challenge_method: "S256",
    state: "the-state",
  };
  exchange = {
    grant_type: "code",
    client_id: server.client.id,
    code: await codeFrom(server, "/oauth/authorize", authorize),
    code_verifier: verifier,
    device_id: "device-1",
    device_name: "Freshet",
  };
});

afterEach(async () => {
  await server.stop();
});

describe("Bakeronline's token endpoint", () => {
  it("gives a pair for a code, and a new pair for the refresh token alone, by form and by JSON", async () => {
    const first = await send(server, "/api/token", { headers: version, form: exchange });
    expect(first.status).toBe(200);
    expect(first.json).toMatchObject({ token_type: "Bearer", expires_in: 3600 });
    const refresh = { grant_type: "refresh_token", refresh_token: String(first.json["refresh_token"]) };
    const second = await send(server, "/api/token", { headers: version, json: refresh });
    expect(second.status).toBe(200);
    expect(second.json["refresh_token"]).not.toBe(first.json["refresh_token"]);
  });

  it.each<[string, (form: Record<string, string>) => Sent, string]>([
    [
      "the standard grant type",
      (form) => ({ form: but(form, { grant_type: "authorization_code" }) }),
      "400 unsupported_grant_type",
    ],
    ["the password grant", (form) => ({ form: but(form, { grant_type: "password" }) }), "400 unsupported_grant_type"],
    ["no device id", (form) => ({ form: but(form, { device_id: undefined }) }), "400 invalid_request"],
    ["no device name", (form) => ({ form: but(form, { device_name: "" }) }), "400 invalid_request"],
    ["no verifier", (form) => ({ form: but(form, { code_verifier: undefined }) }), "400 invalid_request"],
    ["a wrong verifier", (form) => ({ form: but(form, { code_verifier: "x".repeat(43) }) }), "400 invalid_grant"],
    ["a short verifier", (form) => ({ form: but(form, { code_verifier: "short" }) }), "400 invalid_grant"],
    ["an unknown client", (form) => ({ form: but(form, { client_id: "other" }) }), "401 invalid_client"],
    ["an unknown code", (form) => ({ form: but(form, { code: "other" }) }), "400 invalid_grant"],
    ["a redirect_uri", (form) => ({ form: but(form, { redirect_uri: redirectUri }) }), "400 invalid_request"],
    ["a secret", (form) => ({ form: but(form, { client_secret: "s" }) }), "400 invalid_request"],
    [
      "an Authorization header",
      (form) => ({ form, headers: { ...version, authorization: "Basic eDp5" } }),
      "400 invalid_request",
    ],
    ["no version", (form) => ({ form, headers: {} }), "400 invalid_request"],
    ["a malformed version", (form) => ({ form, headers: { "x-version": "latest" } }), "400 invalid_request"],
    ["a body of text", (form) => ({ text: new URLSearchParams(form).toString() }), "400 invalid_request"],
    ["a number in JSON", (form) => ({ json: { ...form, device_id: 5 } }), "400 invalid_request"],
    ["another method", (form) => ({ method: "PUT", form }), "405"],
  ])("refuses %s", async (_name, change, expected) => {
    const answer = await send(server, "/api/token", { headers: version, ...change(exchange) });
    expect(outcome(answer)).toBe(expected);
    expect(server.ledger.granted("code")).toBe(0);
  });

  it("refuses a client id beside the refresh token", async () => {
    const { refreshToken = "" } = server.issueTokenSet();
    const form = { grant_type: "refresh_token", refresh_token: refreshToken, client_id: server.client.id };
    expect((await send(server, "/api/token", { headers: version, form })).status).toBe(400);
    expect(server.ledger.refreshes()).toBe(0);
  });

  it("keeps one pair per device: a second authorization ends the first", async () => {
    const first = await send(server, "/api/token", { headers: version, form: exchange });
    const code = await codeFrom(server, "/oauth/authorize", authorize);
    const second = await send(server, "/api/token", { headers: version, form: but(exchange, { code }) });
    expect(second.status).toBe(200);
    const form = { grant_type: "refresh_token", refresh_token: String(first.json["refresh_token"]) };
    expect((await send(server, "/api/token", { headers: version, form })).json["error"]).toBe("invalid_grant");
  });
});

describe("Bakeronline's authorize page", () => {
  it("leads back with code and state, or with access_denied and state", async () => {
    const url = `${server.origin}/oauth/authorize?${new URLSearchParams(authorize).toString()}`;
    const yes = await approve(url);
    expect(yes.origin + yes.pathname).toBe(redirectUri);
    expect(yes.searchParams.get("state")).toBe("the-state");
    const no = await deny(url);
    expect(no.searchParams.get("error")).toBe("access_denied");
    expect(no.searchParams.get("state")).toBe("the-state");
  });

  it.each<[string, Record<string, string | undefined>]>([
    ["no challenge", { code_challenge: undefined, code_challenge_method: undefined }],
    ["an unknown challenge method", { code_challenge_method: "S512" }],
    ["a redirect_uri that is not registered", { redirect_uri: "http://127.0.0.1:9/other" }],
    ["an unknown client", { client_id: "other" }],
    ["an unknown scope", { scope: "company:read everything" }],
    ["another response type", { response_type: "token" }],
    ["a parameter that is not documented", { prompt: "consent" }],
  ])("refuses %s without leading anywhere", async (_name, change) => {
    const answer = await send(server, "/oauth/authorize", { method: "GET", query: but(authorize, change) });
    expect(answer.status).toBe(400);
    expect(answer.body).not.toContain("<form");
  });

  it("takes a challenge without a method for the plain verifier", async () => {
    const plain = but(authorize, { code_challenge: verifier, code_challenge_method: undefined });
    const code = await codeFrom(server, "/oauth/authorize", plain);
    expect((await send(server, "/api/token", { headers: version, form: but(exchange, { code }) })).status).toBe(200);
  });
});

describe("Bakeronline's API", () => {
  it("answers a good token, and says expired_access_token for one that is over or replaced", async () => {
    const { accessToken, refreshToken = "" } = server.issueTokenSet();
    const headers = { ...version, authorization: `Bearer ${accessToken}` };
    expect((await send(server, "/company/shops", { method: "GET", headers })).status).toBe(200);
    const form = { grant_type: "refresh_token", refresh_token: refreshToken };
    await send(server, "/api/token", { headers: version, form });
    const replaced = await send(server, "/company/shops", { method: "GET", headers });
    expect(replaced.status).toBe(401);
    expect(replaced.body).toContain("expired_access_token");
  });

  it("refuses a request without a version", async () => {
    const headers = { authorization: `Bearer ${server.issueTokenSet().accessToken}` };
    expect((await send(server, "/company/shops", { method: "GET", headers })).status).toBe(400);
  });
});
