import { createHash } from "node:crypto";
import { request } from "undici";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type OidcPeer, startOidcPeer } from "../../support/oidc-peer.ts";
import { approve } from "../../support/walk-consent.ts";

const redirectUri = "http://127.0.0.1:9/callback";
const verifier = "v".repeat(43);
let peer: OidcPeer;

beforeEach(async () => {
  peer = await startOidcPeer({ redirectUris: [redirectUri] });
});

afterEach(async () => {
  await peer[Symbol.asyncDispose]();
});

type TokenAnswer = { status: number; body: Record<string, unknown> };

async function token(form: Record<string, string>): Promise<TokenAnswer> {
  const answer = await request(`${peer.origin}/token`, {
    method: "POST",
    headers: {
      "content-type": "application/x-www-form-urlencoded",
      authorization: `Basic ${Buffer.from(`${peer.client.id}:${peer.client.secret}`).toString("base64")}`,
    },
    body: new URLSearchParams(form).toString(),
  });
  const body: Record<string, unknown> = JSON.parse(await answer.body.text());
  return { status: answer.statusCode, body };
}

async function connect(): Promise<TokenAnswer> {
  const url = new URL("/auth", peer.origin);
  url.search = new URLSearchParams({
    response_type: "code",
    client_id: peer.client.id,
    redirect_uri: redirectUri,
    scope: "openid",
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
  }).toString();
  const callback = await approve(url.href);
  const code = callback.searchParams.get("code") ?? "";
  return await token({ grant_type: "authorization_code", code, redirect_uri: redirectUri, code_verifier: verifier });
}

function refresh(answer: TokenAnswer): Promise<TokenAnswer> {
  return token({ grant_type: "refresh_token", refresh_token: String(answer.body["refresh_token"]) });
}

it("oidc-provider gives a new refresh token each time", async () => {
  const first = await connect();
  expect(first.status).toBe(200);
  const second = await refresh(first);
  expect(second.status).toBe(200);
  expect(second.body["refresh_token"]).not.toBe(first.body["refresh_token"]);
  expect(peer.refreshes).toBe(1);
  expect(peer.reuses).toBe(0);
  expect(peer.revokedGrants).toHaveLength(0);
});

it("a refresh token that oidc-provider meets twice is counted, and revokes the grant", async () => {
  const first = await connect();
  const second = await refresh(first);
  expect((await refresh(first)).body["error"]).toBe("invalid_grant");
  expect((await refresh(second)).body["error"]).toBe("invalid_grant");
  expect(peer.reuses).toBe(1);
  expect(peer.revokedGrants).toHaveLength(1);
});
