import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Shopware } from "../../../support/providers/shopware.ts";
import { type Received, type Sent, but, send } from "./send.ts";

const path = "/api/oauth/token";
let server: Shopware;
let integration: Record<string, string>;
let password: Record<string, string>;

beforeEach(async () => {
  server = await new Shopware().start();
  const { id, secret } = server.client;
  integration = { grant_type: "client_credentials", client_id: id, client_secret: secret };
  password = { grant_type: "password", client_id: "administration", scopes: "write", ...server.user };
});

afterEach(async () => {
  await server.stop();
});

function errorIn({ body }: Received): { code: string; status: string; detail: string } {
  const { errors }: { errors: { code: string; status: string; detail: string }[] } = JSON.parse(body);
  if (!errors[0]) throw new Error("no error in the answer");
  return errors[0];
}

describe("Shopware's token endpoint", () => {
  it("gives an integration an access token alone", async () => {
    const answer = await send(server, path, { json: integration });
    expect(answer.json).toMatchObject({ token_type: "Bearer", expires_in: 600 });
    expect(answer.json).not.toHaveProperty("refresh_token");
  });

  it("gives a user a refresh token that works once, without a secret, and leaves the old access token alone", async () => {
    const first = await send(server, path, { json: password });
    const refreshToken = String(first.json["refresh_token"]);
    const json = { grant_type: "refresh_token", client_id: "administration", refresh_token: refreshToken };
    expect((await send(server, path, { json })).status).toBe(200);
    const headers = { authorization: `Bearer ${String(first.json["access_token"])}` };
    expect((await send(server, "/api/product", { method: "GET", headers })).status).toBe(200);
    const again = await send(server, path, { json });
    expect(again.status).toBe(401);
    expect(errorIn(again)).toMatchObject({ code: "8", status: "401", detail: "Token has been revoked" });
  });

  it.each<[string, () => Sent, string]>([
    ["a form", () => ({ form: integration }), "400 2"],
    ["a body without a content type", () => ({ text: JSON.stringify(integration) }), "400 2"],
    ["broken JSON", () => ({ text: "{", headers: { "content-type": "application/json" } }), "400 3"],
    ["an unknown grant type", () => ({ json: but(integration, { grant_type: "code" }) }), "400 2"],
    ["no secret", () => ({ json: but(integration, { client_secret: undefined }) }), "400 3"],
    ["a wrong secret", () => ({ json: but(integration, { client_secret: "no" }) }), "401 4"],
    ["an unknown integration", () => ({ json: but(integration, { client_id: "no" }) }), "401 4"],
    ["a scope in the singular", () => ({ json: but(password, { scopes: undefined, scope: "write" }) }), "400 3"],
    ["another scope", () => ({ json: but(password, { scopes: "read" }) }), "400 5"],
    ["a secret for administration", () => ({ json: but(password, { client_secret: "s" }) }), "400 3"],
    ["another client for a password", () => ({ json: but(password, { client_id: "other" }) }), "401 4"],
    ["a wrong password", () => ({ json: but(password, { password: "no" }) }), "400 6"],
    ["an unknown user", () => ({ json: but(password, { username: "no" }) }), "400 6"],
  ])("refuses %s with its own code", async (_name, sent, expected) => {
    const answer = await send(server, path, sent());
    expect(`${answer.status} ${errorIn(answer).code}`).toBe(expected);
    expect(errorIn(answer).status).toBe(String(answer.status));
    expect(server.ledger.tokens).toHaveLength(0);
  });

  it("answers a bad refresh token with 401 or with 400, by the shop's version", async () => {
    const json = { grant_type: "refresh_token", client_id: "administration", refresh_token: "none" };
    expect((await send(server, path, { json })).status).toBe(401);
    server.library = 9;
    const answer = await send(server, path, { json });
    expect(answer.status).toBe(400);
    expect(errorIn(answer)).toMatchObject({ code: "8", detail: "Cannot decrypt the refresh token" });
  });

  it("says of a refresh token that is a week old that it has expired", async () => {
    const first = await send(server, path, { json: password });
    server.advance(7 * 86_400 + 1);
    const refresh = { grant_type: "refresh_token", client_id: "administration" };
    const json = { ...refresh, refresh_token: String(first.json["refresh_token"]) };
    expect(errorIn(await send(server, path, { json })).detail).toBe("Token has expired");
  });

  it("ends everything when the password changes", async () => {
    const first = await send(server, path, { json: password });
    server.changePassword();
    expect(errorIn(await send(server, path, { json: password })).code).toBe("6");
    const headers = { authorization: `Bearer ${String(first.json["access_token"])}` };
    const api = await send(server, "/api/product", { method: "GET", headers });
    expect(errorIn(api)).toMatchObject({ code: "9", status: "401" });
  });
});
