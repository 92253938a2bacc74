import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Bol } from "../../../support/providers/bol.ts";
import { type Sent, basic, codeFrom, redirectUri, outcome, send } from "./send.ts";

const accept = { accept: "application/json" };
const byQuery = { query: { grant_type: "client_credentials" } };
let server: Bol;
let own: Record<string, string>;

beforeEach(async () => {
  server = await new Bol().start();
  server.redirectUris.add(redirectUri);
  own = basic(server.client.id, server.client.secret);
});

afterEach(async () => {
  await server.stop();
});

function form(): Record<string, string> {
  return { grant_type: "client_credentials", client_id: server.client.id, client_secret: server.client.secret };
}

describe("bol.com's token endpoint", () => {
  it("gives 299 seconds for Basic with the grant type in the query and no body, and for a form", async () => {
    const expected = { token_type: "Bearer", expires_in: 299, scope: "RETAILER" };
    expect((await send(server, "/token", { ...byQuery, headers: { ...accept, ...own } })).json).toMatchObject(expected);
    const byForm = await send(server, "/token", { form: form(), headers: accept });
    expect(byForm.json).toMatchObject(expected);
    expect(byForm.json).not.toHaveProperty("refresh_token");
  });

  it.each<[string, () => Sent, string]>([
    ["no Accept header", () => ({ ...byQuery, headers: own }), "406"],
    ["another Accept header", () => ({ ...byQuery, headers: { accept: "*/*", ...own } }), "406"],
    [
      "a body beside the query",
      () => ({ ...byQuery, form: { a: "b" }, headers: { ...accept, ...own } }),
      "400 invalid_request",
    ],
    ["a secret in the URL", () => ({ query: form(), headers: accept }), "400 invalid_request"],
    [
      "a wrong secret by Basic",
      () => ({ ...byQuery, headers: { ...accept, ...basic("bol-client-0b1d", "no") } }),
      "401 invalid_client",
    ],
    ["no client by query", () => ({ ...byQuery, headers: accept }), "401 invalid_client"],
    [
      "a wrong secret by form",
      () => ({ form: { ...form(), client_secret: "no" }, headers: accept }),
      "401 invalid_client",
    ],
    ["Basic beside a form", () => ({ form: form(), headers: { ...accept, ...own } }), "400 invalid_request"],
    ["JSON", () => ({ json: form(), headers: accept }), "400 invalid_request"],
    [
      "another grant type",
      () => ({ form: { ...form(), grant_type: "password" }, headers: accept }),
      "400 unsupported_grant_type",
    ],
    ["a GET", () => ({ ...byQuery, method: "GET", headers: { ...accept, ...own } }), "405"],
  ])("refuses %s", async (_name, sent, expected) => {
    const answer = await send(server, "/token", sent());
    expect(outcome(answer)).toBe(expected);
    expect(server.ledger.tokens).toHaveLength(0);
  });

  it("words a wrong secret as documented", async () => {
    const answer = await send(server, "/token", { ...byQuery, headers: { ...accept, ...basic("x", "y") } });
    expect(answer.json).toEqual({ error: "invalid_client", error_description: "Bad client credentials" });
  });

  it("answers 404 to an address that it has blocked", async () => {
    server.blocked = true;
    expect((await send(server, "/token", { ...byQuery, headers: { ...accept, ...own } })).status).toBe(404);
  });
});

async function connect(): Promise<Record<string, unknown>> {
  const params = {
    response_type: "code",
    client_id: server.client.id,
    redirect_uri: redirectUri,
    scope: "offline_access",
  };
  const code = await codeFrom(server, "/authorize", params);
  const fields = { grant_type: "authorization_code", code, redirect_uri: redirectUri };
  return (await send(server, "/token", { form: fields, headers: { ...accept, ...own } })).json;
}

function refresh(refreshToken: unknown) {
  const fields = { grant_type: "refresh_token", refresh_token: String(refreshToken) };
  return send(server, "/token", { form: fields, headers: { ...accept, ...own } });
}

describe("bol.com's code flow for intermediaries", () => {
  it("rotates by Method 2, and a used refresh token ends the grant", async () => {
    const first = await connect();
    expect(first["expires_in"]).toBe(599);
    const second = await refresh(first["refresh_token"]);
    expect(second.json["refresh_token"]).not.toBe(first["refresh_token"]);
    expect((await refresh(first["refresh_token"])).json["error"]).toBe("invalid_grant");
    expect((await refresh(second.json["refresh_token"])).json["error"]).toBe("invalid_grant");
  });

  it("keeps the refresh token by Method 1", async () => {
    server.switches.rotation = "fixed";
    const first = await connect();
    for (let round = 0; round < 3; round++) {
      expect((await refresh(first["refresh_token"])).json["refresh_token"]).toBe(first["refresh_token"]);
    }
    expect(server.ledger.reuses).toHaveLength(0);
  });

  it.each<[string, (token: string) => Sent]>([
    ["a refresh token in the URL", (token) => ({ query: { grant_type: "refresh_token", refresh_token: token } })],
    ["a client in the body", (token) => ({ form: { ...form(), grant_type: "refresh_token", refresh_token: token } })],
  ])("refuses %s", async (_name, sent) => {
    const { refreshToken = "" } = server.issueTokenSet();
    const answer = await send(server, "/token", { ...sent(refreshToken), headers: { ...accept, ...own } });
    expect(answer.status).toBe(400);
    expect(server.ledger.refreshes()).toBe(0);
  });
});

describe("bol.com's API", () => {
  it("says Expired JWT once a token is over, and refuses a foreign Accept", async () => {
    const authorization = `Bearer ${server.issueTokenSet().accessToken}`;
    const retailer = { authorization, accept: "application/vnd.retailer.v10+json" };
    expect((await send(server, "/retailer/orders", { method: "GET", headers: retailer })).status).toBe(200);
    const foreign = { authorization, accept: "text/html" };
    expect((await send(server, "/retailer/orders", { method: "GET", headers: foreign })).status).toBe(406);
    server.advance(300);
    const answer = await send(server, "/retailer/orders", { method: "GET", headers: retailer });
    expect(answer.json).toMatchObject({ title: "Expired JWT", status: 401 });
  });
});
