import { createHash, randomBytes } from "node:crypto";
import Fastify, { type FastifyInstance } from "fastify";
import { beforeEach, describe, expect, test } from "vitest";
import { installErrorHandler } from "../../../src/http/error-handler.ts";
import { answerHeaders } from "../../../src/http/headers.ts";
import { sandboxRoutes } from "../../../src/sandbox/sandbox.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";

const keyring = createKeyring([{ id: "k1.a", key: createHash("sha256").update("tests").digest() }]);
const redirectUri = "http://localhost:8080/callback/sandbox";
const verifier = "v".repeat(43);
const challenge = createHash("sha256").update(verifier).digest("base64url");
const basic = `Basic ${Buffer.from("sandbox:secret").toString("base64")}`;
const form = "application/x-www-form-urlencoded";
const asked = {
  response_type: "code",
  client_id: "sandbox",
  redirect_uri: redirectUri,
  scope: "read write",
  state: "the state",
  code_challenge: challenge,
  code_challenge_method: "S256",
};

let nowMs = 0;
let sandbox: FastifyInstance;

async function start(): Promise<FastifyInstance> {
  const app = Fastify();
  const options = {
    proofs: keyring,
    clientId: "sandbox",
    isClientSecret: (secret: string) => secret === "secret",
    redirectUri,
    now: () => nowMs,
    randomBytes,
  };
  installErrorHandler(app, { asker: null, headers: answerHeaders(redirectUri) });
  await app.register(sandboxRoutes, { prefix: "/sandbox", ...options });
  return app;
}

beforeEach(async () => {
  nowMs = Date.UTC(2026, 10, 21);
  sandbox = await start();
});

async function decide(decision: string, request: Record<string, string> = asked) {
  const url = `/sandbox/authorize?${new URLSearchParams(request).toString()}`;
  const headers = { "content-type": form };
  const answer = await sandbox.inject({ method: "POST", url, headers, payload: `decision=${decision}` });
  return {
    status: answer.statusCode,
    back: new URL(answer.headers["location"] ?? "http://none"),
    body: answer.body,
  };
}

async function codeOf(request: Record<string, string> = asked): Promise<string> {
  return (await decide("authorize", request)).back.searchParams.get("code") ?? "";
}

async function token(fields: Record<string, string>, headers: Record<string, string> = { authorization: basic }) {
  const payload = new URLSearchParams(fields).toString();
  const answer = await sandbox.inject({
    method: "POST",
    url: "/sandbox/token",
    headers: { "content-type": form, ...headers },
    payload,
  });
  return { status: answer.statusCode, headers: answer.headers, body: answer.json<Record<string, string>>() };
}

async function exchange(changes: Record<string, string> = {}) {
  const code = await codeOf();
  return await token({
    grant_type: "authorization_code",
    code,
    code_verifier: verifier,
    redirect_uri: redirectUri,
    ...changes,
  });
}

const refresh = async (refreshToken: string | undefined) =>
  await token({ grant_type: "refresh_token", refresh_token: refreshToken ?? "" });

async function me(accessToken: string | undefined) {
  const headers = { authorization: `Bearer ${accessToken}` };
  return await sandbox.inject({ method: "GET", url: "/sandbox/api/me", headers });
}

async function revoke(revoked: string | undefined, authorization = basic) {
  const headers = { "content-type": form, authorization };
  const payload = new URLSearchParams({ token: revoked ?? "" }).toString();
  return await sandbox.inject({ method: "POST", url: "/sandbox/revoke", headers, payload });
}

describe("the authorize page", () => {
  test("leads back with code, state and iss, or with a denial", async () => {
    const yes = await decide("authorize");
    expect(yes.status).toBe(303);
    expect(`${yes.back.origin}${yes.back.pathname}`).toBe(redirectUri);
    expect(yes.back.searchParams.get("state")).toBe("the state");
    expect(yes.back.searchParams.get("iss")).toBe("http://localhost:8080/sandbox");
    const no = await decide("deny");
    expect(no.back.searchParams.get("error")).toBe("access_denied");
    expect(no.back.searchParams.get("code")).toBeNull();
  });

  test.each([
    ["redirect_uri", "http://localhost:8080/callback/other"],
    ["redirect_uri", "https://evil.example/"],
    ["client_id", "other"],
  ])("sends nobody anywhere when %s is %s", async (name, value) => {
    const answer = await decide("authorize", { ...asked, [name]: value });
    expect(answer.status).toBe(400);
    expect(answer.body).toContain(name);
    expect(answer.back.hostname).toBe("none");
  });

  test.each([
    ["response_type", "token", "unsupported_response_type"],
    ["code_challenge", "", "invalid_request"],
    ["code_challenge_method", "plain", "invalid_request"],
    ["scope", "read all", "invalid_scope"],
  ])("tells the client when %s is %j: %s", async (name, value, error) => {
    const url = `/sandbox/authorize?${new URLSearchParams({ ...asked, [name]: value }).toString()}`;
    const answer = await sandbox.inject({ method: "GET", url });
    expect(answer.statusCode).toBe(303);
    const back = new URL(String(answer.headers["location"]));
    expect(back.searchParams.get("error")).toBe(error);
    expect(back.searchParams.get("state")).toBe("the state");
  });

  test("shows neither state nor challenge, and takes no other decision", async () => {
    const url = `/sandbox/authorize?${new URLSearchParams(asked).toString()}`;
    const page = await sandbox.inject({ method: "GET", url });
    expect(page.statusCode).toBe(200);
    expect(page.body).not.toContain("the state");
    expect(page.body).not.toContain(challenge);
    expect((await decide("perhaps")).status).toBe(400);
  });
});

describe("a code", () => {
  test("gives a pair of tokens that live 90 s", async () => {
    const { status, body, headers } = await exchange();
    expect(status).toBe(200);
    expect(headers["cache-control"]).toBe("no-store");
    expect(body).toMatchObject({ token_type: "Bearer", expires_in: 90, scope: "read write" });
    nowMs += 89_000;
    expect((await me(body["access_token"])).json()).toEqual({
      account: "sandbox",
      scopes: ["read", "write"],
      token_expires_in: 1,
    });
    nowMs += 1_000;
    expect((await me(body["access_token"])).statusCode).toBe(401);
  });

  test("that is used twice is refused, and what it gave dies", async () => {
    const code = await codeOf();
    const fields = { grant_type: "authorization_code", code, code_verifier: verifier };
    const first = await token(fields);
    expect(first.status).toBe(200);
    expect((await token(fields)).body["error"]).toBe("invalid_grant");
    expect((await me(first.body["access_token"])).statusCode).toBe(401);
    expect((await refresh(first.body["refresh_token"])).body["error"]).toBe("invalid_grant");
  });

  test("counts for 60 s", async () => {
    const code = await codeOf();
    nowMs += 60_000;
    const late = await token({ grant_type: "authorization_code", code, code_verifier: verifier });
    expect(late).toMatchObject({ status: 400, body: { error: "invalid_grant" } });
  });

  test.each([
    [{ code_verifier: "w".repeat(43) }, "invalid_grant"],
    [{ code_verifier: "" }, "invalid_grant"],
    [{ redirect_uri: "https://evil.example/" }, "invalid_grant"],
    [{ code: "made.up" }, "invalid_grant"],
    [{ grant_type: "password" }, "unsupported_grant_type"],
  ])("with %j is refused: %s", async (changes: Record<string, string>, error) => {
    expect(await exchange(changes)).toMatchObject({ status: 400, body: { error } });
  });

  test("without a verifier is refused", async () => {
    const answer = await token({ grant_type: "authorization_code", code: await codeOf() });
    expect(answer.body["error"]).toBe("invalid_request");
  });
});

describe("a refresh token", () => {
  test("gives a new pair each time", async () => {
    let refreshToken = (await exchange()).body["refresh_token"];
    for (let turn = 0; turn < 10; turn++) {
      const { status, body } = await refresh(refreshToken);
      expect(status).toBe(200);
      expect(body["refresh_token"]).not.toBe(refreshToken);
      expect((await me(body["access_token"])).statusCode).toBe(200);
      refreshToken = body["refresh_token"];
    }
  });

  test("that is spent kills the whole family", async () => {
    const first = (await exchange()).body;
    const second = (await refresh(first["refresh_token"])).body;
    expect(await refresh(first["refresh_token"])).toMatchObject({ status: 400, body: { error: "invalid_grant" } });
    expect((await refresh(second["refresh_token"])).body["error"]).toBe("invalid_grant");
    expect((await me(second["access_token"])).statusCode).toBe(401);
  });

  test("outlives a restart, and reuse is noticed after it too", async () => {
    const first = (await exchange()).body;
    const second = (await refresh(first["refresh_token"])).body;
    sandbox = await start();
    const third = await refresh(second["refresh_token"]);
    expect(third.status).toBe(200);
    expect((await refresh(second["refresh_token"])).body["error"]).toBe("invalid_grant");
    expect((await refresh(third.body["refresh_token"])).body["error"]).toBe("invalid_grant");
  });

  test("of another key, another kind, or with a changed letter is not known", async () => {
    const { body } = await exchange();
    const good = body["refresh_token"] ?? "";
    const [payload = "", signature = ""] = good.split(".");
    const claims = Buffer.from(payload, "base64url").toString("utf8");
    const forged = Buffer.from(claims.replace('"sequence":0', '"sequence":9')).toString("base64url");
    expect(forged).not.toBe(payload);
    for (const wrong of [`${forged}.${signature}`, payload, "", body["access_token"], await codeOf()]) {
      expect((await refresh(wrong)).body["error"]).toBe("invalid_grant");
    }
    expect((await refresh(good)).status).toBe(200);
  });

  test("gives no scope beyond what was granted", async () => {
    const code = await codeOf({ ...asked, scope: "read" });
    const { body } = await token({ grant_type: "authorization_code", code, code_verifier: verifier });
    const fields = { grant_type: "refresh_token", refresh_token: body["refresh_token"] ?? "" };
    expect((await token({ ...fields, scope: "read write" })).body["error"]).toBe("invalid_scope");
    expect((await token({ ...fields, scope: "read" })).status).toBe(200);
  });
});

describe("a client", () => {
  test("may show its secret in the header or in the body, not in both", async () => {
    const fields = { grant_type: "refresh_token", refresh_token: "x" };
    const secret = { client_id: "sandbox", client_secret: "secret" };
    expect((await token({ ...fields, ...secret }, {})).body["error"]).toBe("invalid_grant");
    expect((await token(fields)).body["error"]).toBe("invalid_grant");
    expect((await token({ ...fields, ...secret })).body["error"]).toBe("invalid_request");
  });

  test.each([
    [{}, {}],
    [{ client_id: "sandbox" }, {}],
    [{ client_id: "sandbox", client_secret: "wrong" }, {}],
    [{}, { authorization: `Basic ${Buffer.from("sandbox:wrong").toString("base64")}` }],
    [{}, { authorization: `Basic ${Buffer.from("nocolon").toString("base64")}` }],
  ])("that cannot is refused with 401 invalid_client: %#", async (fields, headers) => {
    const answer = await token({ grant_type: "refresh_token", ...fields }, headers);
    expect(answer).toMatchObject({ status: 401, body: { error: "invalid_client" } });
    expect(answer.headers["www-authenticate"]).toMatch(/^Basic /);
  });

  test("that sends JSON or a field twice is told so", async () => {
    const headers = { authorization: basic, "content-type": "application/json" };
    const json = await sandbox.inject({ method: "POST", url: "/sandbox/token", headers, payload: "{}" });
    expect(json.statusCode).toBe(415);
    expect(json.json()).toMatchObject({ error: "invalid_request" });
    const twice = await sandbox.inject({
      method: "POST",
      url: "/sandbox/token",
      headers: { authorization: basic, "content-type": form },
      payload: "grant_type=refresh_token&grant_type=refresh_token",
    });
    expect(twice.json()).toMatchObject({ error: "invalid_request" });
  });
});

describe("revocation", () => {
  test.each(["refresh_token", "access_token"])("of a %s ends the family", async (kind) => {
    const { body } = await exchange();
    expect((await revoke(body[kind])).statusCode).toBe(200);
    expect((await me(body["access_token"])).statusCode).toBe(401);
    expect((await refresh(body["refresh_token"])).body["error"]).toBe("invalid_grant");
  });

  test("of an unknown token is no error, of a stranger is refused", async () => {
    expect((await revoke("unknown")).statusCode).toBe(200);
    expect((await revoke("unknown", "Basic eDp5")).statusCode).toBe(401);
  });
});
