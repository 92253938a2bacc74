import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../../../support/patience.ts";
import { GenericProvider } from "../../../support/providers/generic.ts";
import { type Received, type Sent, basic, but, challenge, codeFrom, redirectUri, send, verifier } from "./send.ts";

let server: GenericProvider;
let own: Record<string, string>;

beforeEach(async () => {
  await use(new GenericProvider());
});

afterEach(async () => {
  await server.stop();
});

async function use(provider: GenericProvider): Promise<void> {
  server = await provider.start();
  server.redirectUris.add(redirectUri);
  own = basic(server.client.id, server.client.secret);
}

function refresh(refreshToken: string | undefined): Promise<Received> {
  const form = { grant_type: "refresh_token", refresh_token: refreshToken ?? "" };
  return send(server, "/token", { form, headers: own });
}

async function codeForm(): Promise<Record<string, string>> {
  const params = { response_type: "code", client_id: server.client.id, redirect_uri: redirectUri };
  const code = await codeFrom(server, "/authorize", {
    ...params,
    code_challenge: challenge,
    code_challenge_method: "S256",
  });
  return { grant_type: "authorization_code", code, redirect_uri: redirectUri, code_verifier: verifier };
}

describe("the generic server", () => {
  it.each<[string, (form: Record<string, string>) => Sent, string]>([
    ["a wrong verifier", (form) => ({ form: but(form, { code_verifier: "y".repeat(43) }) }), "invalid_grant"],
    ["no verifier", (form) => ({ form: but(form, { code_verifier: undefined }) }), "invalid_request"],
    ["no client", (form) => ({ form, headers: {} }), "invalid_client"],
    [
      "the client in the body",
      (form) => ({ form: { ...form, client_id: "a", client_secret: "b" } }),
      "invalid_request",
    ],
    ["JSON", (form) => ({ json: form }), "invalid_request"],
    ["another redirect_uri", (form) => ({ form: but(form, { redirect_uri: "http://x/" }) }), "invalid_grant"],
  ])("refuses %s", async (_name, change, error) => {
    const answer = await send(server, "/token", { headers: own, ...change(await codeForm()) });
    expect(answer.json["error"]).toBe(error);
    expect(server.ledger.granted("authorization_code")).toBe(0);
  });

  it("refuses a plain challenge", async () => {
    const base = { response_type: "code", client_id: server.client.id, redirect_uri: redirectUri };
    const query = { ...base, code_challenge: verifier, code_challenge_method: "plain" };
    expect((await send(server, "/authorize", { method: "GET", query })).status).toBe(400);
  });

  it("takes only the new secret after a change", async () => {
    const { refreshToken } = server.issueTokenSet();
    server.changeSecret();
    expect((await refresh(refreshToken)).json["error"]).toBe("invalid_client");
    own = basic(server.client.id, server.client.secret);
    expect((await refresh(refreshToken)).status).toBe(200);
  });
});

describe("rotation and reuse", () => {
  it("a reused refresh token ends the whole family under kills_family", async () => {
    const first = server.issueTokenSet();
    const second = await refresh(first.refreshToken);
    expect((await refresh(first.refreshToken)).json["error"]).toBe("invalid_grant");
    expect((await refresh(String(second.json["refresh_token"]))).json["error"]).toBe("invalid_grant");
    const headers = { authorization: `Bearer ${String(second.json["access_token"])}` };
    expect((await send(server, "/api/me", { method: "GET", headers })).status).toBe(401);
    expect(server.ledger.reuses).toHaveLength(1);
    expect(server.ledger.currentRefreshToken(first.family)).toBeUndefined();
  });

  it("a reused refresh token changes nothing else under invalid_grant", async () => {
    server.switches.reuse = "invalid_grant";
    const first = server.issueTokenSet();
    const second = await refresh(first.refreshToken);
    expect((await refresh(first.refreshToken)).json["error"]).toBe("invalid_grant");
    expect((await refresh(String(second.json["refresh_token"]))).status).toBe(200);
  });

  it("a reused refresh token gives its successor once more within the grace window, and ends the family after it", async () => {
    Object.assign(server.switches, { reuse: "grace", graceSeconds: 30 });
    const first = server.issueTokenSet();
    const second = await refresh(first.refreshToken);
    expect((await refresh(first.refreshToken)).json["refresh_token"]).toBe(second.json["refresh_token"]);
    expect(server.ledger.reuses).toHaveLength(0);
    server.advance(31);
    expect((await refresh(first.refreshToken)).json["error"]).toBe("invalid_grant");
    expect((await refresh(String(second.json["refresh_token"]))).json["error"]).toBe("invalid_grant");
  });

  it("a dead grant refuses its refresh token while its access token lives on", async () => {
    const { accessToken, refreshToken } = server.issueTokenSet();
    server.killRefreshTokens();
    expect((await refresh(refreshToken)).json["error"]).toBe("invalid_grant");
    const headers = { authorization: `Bearer ${accessToken}` };
    expect((await send(server, "/api/me", { method: "GET", headers })).status).toBe(200);
  });
});

describe("interferences", () => {
  it("an answer before the commit spends nothing; the next request is served", async () => {
    const { refreshToken } = server.issueTokenSet();
    server.failNext({ status: 503, body: { error: "temporarily_unavailable" }, times: 2 });
    expect((await refresh(refreshToken)).status).toBe(503);
    expect((await refresh(refreshToken)).status).toBe(503);
    expect((await refresh(refreshToken)).status).toBe(200);
    expect(server.ledger.refreshes()).toBe(1);
  });

  it.each(["reset", "hang"] as const)(
    "%s after the commit spends the token though nobody hears of it",
    async (kind) => {
      const { family, refreshToken } = server.issueTokenSet();
      server.interfere({ kind, afterCommit: true });
      const answer = refresh(refreshToken).then(
        () => "answered",
        () => "broken",
      );
      if (kind === "reset") expect(await answer).toBe("broken");
      else await until("the token is spent", () => server.ledger.refreshes(family) === 1);
      if (kind === "hang") expect(await Promise.race([answer, sleep(100, "silence")])).toBe("silence");
      expect(server.ledger.refreshes(family)).toBe(1);
      expect(server.ledger.currentRefreshToken(family)).not.toBe(refreshToken);
      expect(server.ledger.requestsTo("token")[0]).not.toHaveProperty("status");
      await server.stop();
      await answer;
    },
  );

  it("a reset before the commit spends nothing", async () => {
    const { family, refreshToken } = server.issueTokenSet();
    server.resetNext();
    await expect(refresh(refreshToken)).rejects.toThrow(/ECONNRESET|other side closed/);
    expect(server.ledger.currentRefreshToken(family)).toBe(refreshToken);
  });
});

describe("the ledger", () => {
  it("counts how many requests with one refresh token ran at the same time", async () => {
    server.switches.delayMs = 150;
    const one = server.issueTokenSet();
    const two = server.issueTokenSet();
    await Promise.all([refresh(one.refreshToken), refresh(one.refreshToken), refresh(two.refreshToken)]);
    expect(server.ledger.peakConcurrency(one.refreshToken)).toBe(2);
    expect(server.ledger.peakConcurrency(two.refreshToken)).toBe(1);
    expect(server.ledger.peakConcurrency()).toBe(2);
  });

  it("counts refreshes per family and how often each token was seen", async () => {
    const one = server.issueTokenSet();
    const two = server.issueTokenSet();
    const next = await refresh(one.refreshToken);
    await refresh(String(next.json["refresh_token"]));
    await refresh(two.refreshToken);
    await refresh(two.refreshToken);
    expect(server.ledger.refreshes(one.family)).toBe(2);
    expect(server.ledger.refreshes(two.family)).toBe(1);
    expect(server.ledger.refreshes()).toBe(3);
    expect(server.ledger.tokens.find((token) => token.value === two.refreshToken)?.seen).toBe(2);
  });

  it("notes each request with its times, status and fields", async () => {
    server.switches.answerDelayMs = 60;
    await refresh(server.issueTokenSet().refreshToken);
    const [entry] = server.ledger.requestsTo("token");
    expect(entry).toMatchObject({
      method: "POST",
      path: "/token",
      status: 200,
      fields: { grant_type: "refresh_token" },
    });
    expect((entry?.outAt ?? 0) - (entry?.inAt ?? 0)).toBeGreaterThanOrEqual(50);
  });
});
