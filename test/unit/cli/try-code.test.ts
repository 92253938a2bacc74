import { createHmac } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { join } from "node:path";
import { approve, deny } from "../../support/walk-consent.ts";
import { freePort } from "../../support/free-port.ts";
import { providersFolder } from "../../support/providers/definition-files.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import { expectNone, runTry, type TrySurroundings } from "./try.ts";
import { startStubProvider } from "./stub-provider.ts";

let provider: GenericProvider;
let file: string;

beforeAll(async () => {
  provider = await new GenericProvider({ sendsIssuer: true }).start();
  file = join(await providersFolder(provider), "strict.yaml");
});

afterAll(async () => {
  await provider.stop();
});

/** Every secret that this provider saw or gave: codes, verifiers, tokens, and its own client's secret. */
function secretsSeen(): string[] {
  const names = ["code", "code_verifier", "refresh_token"];
  const sent = provider.ledger.requests.flatMap(({ fields }) => names.map((name) => fields[name] ?? ""));
  return [provider.client.secret, ...sent, ...provider.ledger.tokens.map(({ value }) => value)];
}

async function tryHere(args: string[], surroundings: TrySurroundings) {
  const env = { FRESHET_CLIENT_SECRET: provider.client.secret, ...surroundings.env };
  return await runTry([file, "--client-id", provider.client.id, "--scope", "read", ...args], { ...surroundings, env });
}

async function visit(url: URL): Promise<void> {
  await fetch(url);
}

const goBack = async (url: URL) => await visit(await approve(url.href));
const copyAddress = async (url: URL) => (await approve(url.href)).href;
const copyCode = async (url: URL) => (await approve(url.href)).searchParams.get("code") ?? "";

async function goBackAsAnother(url: URL): Promise<void> {
  const callback = await approve(url.href);
  callback.searchParams.set("iss", "https://evil.example");
  await visit(callback);
}

test("a consent comes back to the listener, its code is exchanged, and the set is refreshed once", async () => {
  const port = await freePort();
  const redirectUri = `http://localhost:${port}/callback/strict`;
  provider.redirectUris.add(redirectUri);
  const result = await tryHere(["--port", String(port)], { onOpen: goBack });
  expect(result).toMatchObject({ exitCode: 0, err: "" });
  expect(result.out).toContain(`redirect URI, to be registered at the provider: ${redirectUri}`);
  expect(result.out).toContain("> authorization: Basic ••••");
  expect(result.out).toMatch(/> grant_type=authorization_code&code=••••&redirect_uri=http%3A.*&code_verifier=••••/);
  expect(result.out).toMatch(/= access token: \d+ characters, expires in 3600 s, type Bearer; refresh token: yes, /);
  expect(result.out).toContain("> grant_type=refresh_token&refresh_token=••••");
  expect(result.out).toContain("= the refresh token that was sent: replaced by a new one");
  expect(result.out).toContain("= header authorization: Bearer ••••");
  expect(result.out).toMatch(/a junk refresh token read\n= refused: means needs_reauthorization/);
  expect(result.out).toMatch(/the used refresh token read\n= refused: means needs_reauthorization/);
  expectNone(secretsSeen(), result);
});

test("--json tells the same, one document per step", async () => {
  const port = await freePort();
  provider.redirectUris.add(`http://localhost:${port}/callback/strict`);
  const result = await tryHere(["--port", String(port), "--json", "--no-refresh"], { onOpen: goBack });
  expect(result).toMatchObject({ exitCode: 0, err: "" });
  expect(result.steps().map(({ of, step }) => (of === undefined ? step : `${of} ${step}`))).toEqual([
    "definition",
    "open",
    "callback",
    "token request",
    "token answer",
    "token read",
    "api",
  ]);
  expect(result.steps()[5]).toMatchObject({ result: "granted", scopes: ["read"], extra_tokens: {} });
  expectNone(secretsSeen(), result);
});

test("only the callback with the state of this request is taken", async () => {
  const port = await freePort();
  const redirectUri = `http://localhost:${port}/callback/strict`;
  provider.redirectUris.add(redirectUri);
  const statuses: number[] = [];
  const onOpen = async (url: URL) => {
    const callback = await approve(url.href);
    for (const stray of [
      `${redirectUri}?code=stolen&state=of-another`,
      `${redirectUri}?code=stolen`,
      `http://localhost:${port}/`,
    ]) {
      statuses.push((await fetch(stray)).status);
    }
    await visit(callback);
  };
  expect(await tryHere(["--port", String(port), "--no-refresh"], { onOpen })).toMatchObject({ exitCode: 0 });
  expect(statuses).toEqual([400, 400, 404]);
});

test("a denial ends the walk and says so", async () => {
  const port = await freePort();
  provider.redirectUris.add(`http://localhost:${port}/callback/strict`);
  const result = await tryHere(["--port", String(port)], { onOpen: async (url) => await visit(await deny(url.href)) });
  expect(result.exitCode).toBe(1);
  expect(result.err).toBe("freshet: The callback was read as access_denied (try_failed)\n");
});

test("the answer of another issuer is not taken", async () => {
  const port = await freePort();
  provider.redirectUris.add(`http://localhost:${port}/callback/strict`);
  const result = await tryHere(["--port", String(port)], { onOpen: goBackAsAnother });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringContaining("issuer_mismatch") });
  expect(result.out).not.toContain("token request");
});

test("where another redirect URI is registered, the whole address is pasted", async () => {
  provider.redirectUris.add("https://app.example/return");
  const result = await tryHere(["--redirect-uri", "https://app.example/return"], { onOpen: copyAddress });
  expect(result).toMatchObject({ exitCode: 0, err: expect.stringContaining("Paste the whole address") });
  expect(result.out).toMatch(/redirect_uri=https%3A%2F%2Fapp\.example%2Freturn&code_verifier/);
  expectNone(secretsSeen(), result);
});

test("the code alone may be pasted, too, on a terminal without being shown", async () => {
  provider.redirectUris.add("https://app.example/return");
  const result = await tryHere(["--redirect-uri", "https://app.example/return"], {
    onOpen: copyCode,
    interactive: true,
  });
  expect(result).toMatchObject({ exitCode: 0, err: expect.stringContaining("(not shown)") });
  expectNone(secretsSeen(), result);
});

test.each([
  ["an address of another request", "https://app.example/return?code=c-1&state=other", /state of this request/],
  ["words", "I could not", /neither an address nor a code/],
])("%s is not taken for the answer", async (_case, typed, message) => {
  provider.redirectUris.add("https://app.example/return");
  const result = await tryHere(["--redirect-uri", "https://app.example/return"], { onOpen: async () => typed });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringMatching(message) });
  expect(result.out).not.toContain("token request");
});

test("nobody comes: the walk ends by itself and listens no more", async () => {
  const port = await freePort();
  const idle = Promise.withResolvers<void>();
  const onOpen = async () => {
    const unused = connect(port, "127.0.0.1").once("close", () => idle.resolve());
    // On a very slow machine the walk may have ended by now. Then nobody listens any more.
    await once(unused, "connect").catch(() => {});
  };
  const result = await tryHere(["--port", String(port), "--timeout", "1"], { onOpen });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringMatching(/Nobody came back .*\(not_connected\)\n$/) });
  await expect(fetch(`http://localhost:${port}/callback/strict`)).rejects.toThrow("fetch failed");
  await idle.promise; // or the program would never end
});

test("an authorization request is pushed where the definition says so, and its parameters stand in no address", async () => {
  await using stub = await startStubProvider({
    "POST /par": { status: 201, body: { request_uri: "urn:ietf:params:oauth:request_uri:r-1", expires_in: 60 } },
    "POST /token": { body: { access_token: "at-canary-1", expires_in: 60 } },
  });
  const path = await stub.define({
    authorization: { url: "https://id.example/auth?response_type=x", pushed: { url: `${stub.url}/par` } },
  });
  const options = ["--client-id", "c-1", "--redirect-uri", "https://app.example/return", "--no-refresh"];
  const env = { FRESHET_CLIENT_SECRET: "client-secret-canary" };
  const result = await runTry([path, ...options], { env, onOpen: async () => "the-pasted-code" });
  expect(result.exitCode).toBe(0);
  expect(result.out).toContain("request_uri=urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3Ar-1");
  expect(stub.calls[0]?.fields).toMatchObject({ client_id: "c-1", code_challenge_method: "S256" });
  expect(result.out).not.toContain("auth?response_type=x&redirect_uri");
  expectNone(stub.secrets, result);
});

/** The address of a callback whose other parameters are signed. */
function sign(url: URL, by: string): string {
  const message = `code=c-canary-1&state=${url.searchParams.get("state")}`;
  const hmac = createHmac("sha256", by).update(message).digest("hex");
  return `https://app.example/return?${message}&hmac=${hmac}`;
}

test("a signed callback is read with the client's secret, whatever else the client authenticates with", async () => {
  await using stub = await startStubProvider({ "POST /token": { body: { access_token: "at-canary-1" } } });
  const path = await stub.define({
    authorization: { url: "https://id.example/auth", callback: { verify: "hmac_sha256_query" } },
    token: { url: `${stub.url}/token`, client_auth: "none" },
  });
  const secret = "signing-secret-canary";
  const args = [path, "--client-id", "c-1", "--redirect-uri", "https://app.example/return", "--no-refresh"];
  const env = { FRESHET_CLIENT_SECRET: secret };
  const right = await runTry(args, { env, onOpen: async (url) => sign(url, secret) });
  expect(right).toMatchObject({ exitCode: 0 });
  expectNone([...stub.secrets, secret], right);
  const wrong = await runTry(args, { env, onOpen: async (url) => sign(url, "another") });
  expect(wrong).toMatchObject({ exitCode: 1, err: expect.stringContaining("invalid_signature") });
  expect(stub.calls).toHaveLength(1);
});
