import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Apicbase } from "../../../support/providers/apicbase.ts";
import { type Sent, basic, but, codeFrom, redirectUri, outcome, send } from "./send.ts";

const path = "/oauth/token/";
let server: Apicbase;
let exchange: Record<string, string>;
let client: { client_id: string; client_secret: string };

beforeEach(async () => {
  server = await new Apicbase().start();
  server.redirectUris.add(redirectUri);
  client = { client_id: server.client.id, client_secret: server.client.secret };
  exchange = { grant_type: "authorization_code", redirect_uri: redirectUri, code: await aCode() };
});

afterEach(async () => {
  await server.stop();
});

function aCode(redirect: Record<string, string> = { redirect_uri: redirectUri }): Promise<string> {
  const params = { response_type: "code", client_id: server.client.id, scope: "accounts library", state: "s" };
  return codeFrom(server, "/oauth/authorize/", { ...params, ...redirect });
}

describe("Apicbase's token endpoint", () => {
  it("takes the client from the body or from a Basic header", async () => {
    const byBody = await send(server, path, { form: { ...exchange, ...client } });
    expect(byBody.json).toMatchObject({ token_type: "Bearer", expires_in: 604_800, scope: "accounts library" });
    const form = { grant_type: "refresh_token", refresh_token: String(byBody.json["refresh_token"]) };
    const byBasic = await send(server, path, { form, headers: basic(client.client_id, client.client_secret) });
    expect(byBasic.status).toBe(200);
  });

  it.each<[string, (form: Record<string, string>) => Sent, string]>([
    ["JSON", (form) => ({ json: { ...form, ...client } }), "400 invalid_request"],
    [
      "no content type",
      (form) => ({ text: new URLSearchParams({ ...form, ...client }).toString() }),
      "400 invalid_request",
    ],
    ["no client", (form) => ({ form }), "400 invalid_request"],
    [
      "the client in both places",
      (form) => ({ form: { ...form, ...client }, headers: basic("a", "b") }),
      "400 invalid_request",
    ],
    [
      "a wrong secret in the body",
      (form) => ({ form: { ...form, ...client, client_secret: "no" } }),
      "401 invalid_client",
    ],
    ["a wrong secret by Basic", (form) => ({ form, headers: basic(client.client_id, "no") }), "401 invalid_client"],
    [
      "another redirect_uri",
      (form) => ({ form: { ...form, ...client, redirect_uri: "http://x/" } }),
      "400 invalid_grant",
    ],
    [
      "no redirect_uri",
      (form) => ({ form: but({ ...form, ...client }, { redirect_uri: undefined }) }),
      "400 invalid_grant",
    ],
    ["grant_type=code", (form) => ({ form: { ...form, ...client, grant_type: "code" } }), "400 unsupported_grant_type"],
    ["a PKCE verifier", (form) => ({ form: { ...form, ...client, code_verifier: "x" } }), "400 invalid_request"],
    ["another method", () => ({ method: "GET" }), "405"],
  ])("refuses %s", async (_name, change, expected) => {
    const answer = await send(server, path, change(exchange));
    expect(outcome(answer)).toBe(expected);
    expect(server.ledger.granted("authorization_code")).toBe(0);
  });

  it("knows no path without the trailing slash", async () => {
    expect((await send(server, "/oauth/token", { form: { ...exchange, ...client } })).status).toBe(404);
  });

  it("refuses a code after one minute", async () => {
    server.advance(61);
    expect((await send(server, path, { form: { ...exchange, ...client } })).json["error"]).toBe("invalid_grant");
  });

  it("takes a code within the minute", async () => {
    server.advance(55);
    expect((await send(server, path, { form: { ...exchange, ...client } })).status).toBe(200);
  });

  it("refuses a code that is used twice, and ends what it gave", async () => {
    const first = await send(server, path, { form: { ...exchange, ...client } });
    const again = await send(server, path, { form: { ...exchange, ...client } });
    expect(again.json["error"]).toBe("invalid_grant");
    const headers = { authorization: `Bearer ${String(first.json["access_token"])}` };
    expect((await send(server, "/api/v2/products/", { method: "GET", headers })).status).toBe(401);
    expect(server.ledger.reuses).toHaveLength(1);
  });

  it("refuses a refresh token that was used, leaving its successor alone", async () => {
    const { family, refreshToken = "" } = server.issueTokenSet({ scope: "library" });
    const form = { grant_type: "refresh_token", refresh_token: refreshToken, ...client };
    const first = await send(server, path, { form });
    expect((await send(server, path, { form })).json["error"]).toBe("invalid_grant");
    expect(server.ledger.currentRefreshToken(family)).toBe(first.json["refresh_token"]);
    const next = but(form, { refresh_token: String(first.json["refresh_token"]) });
    expect((await send(server, path, { form: next })).status).toBe(200);
  });

  it("keeps handed-over sets apart: refreshing one leaves the other", async () => {
    const one = server.issueTokenSet();
    const two = server.issueTokenSet();
    const form = { grant_type: "refresh_token", refresh_token: one.refreshToken ?? "", ...client };
    expect((await send(server, path, { form })).status).toBe(200);
    const api = (token: string) =>
      send(server, "/api/v2/products/", { method: "GET", headers: { authorization: `Bearer ${token}` } });
    expect((await api(one.accessToken)).status).toBe(401);
    expect((await api(two.accessToken)).status).toBe(200);
  });
});

describe("Apicbase's page for codes", () => {
  it("shows the code when no redirect_uri is asked for, and that code works", async () => {
    const code = await aCode({});
    expect((await send(server, "/oauth/code/", { method: "GET", query: { code } })).body).toContain(code);
    const form = { grant_type: "authorization_code", code, ...client };
    expect((await send(server, path, { form })).status).toBe(200);
    const named = { ...form, code: await aCode({}), redirect_uri: server.codePage };
    expect((await send(server, path, { form: named })).status).toBe(200);
    const other = { ...form, code: await aCode({}), redirect_uri: redirectUri };
    expect((await send(server, path, { form: other })).status).toBe(400);
  });
});
