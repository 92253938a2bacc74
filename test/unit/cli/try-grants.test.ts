import { generateKeyPairSync } from "node:crypto";
import { decodeJwt } from "jose";
import { expect, test } from "vitest";
import { startStubProvider } from "./stub-provider.ts";
import { expectNone, runTry } from "./try.ts";

const secret = "client-secret-canary";
const env = { FRESHET_CLIENT_SECRET: secret };
const granted = (name: string, more: Record<string, unknown> = {}) => ({
  body: { access_token: `at-canary-${name}`, token_type: "bearer", expires_in: 600, ...more },
});

test("client credentials: the token is fetched, and fetched anew in the place of a refresh", async () => {
  await using stub = await startStubProvider({ "POST /token": [granted("1"), granted("2")] });
  const file = await stub.define({
    extends: "oauth2",
    grants: ["client_credentials"],
    token: { url: `${stub.url}/token` },
  });
  const result = await runTry([file, "--client-id", "c-1", "--scope", "a", "--scope", "b"], { env });
  expect(result).toMatchObject({ exitCode: 0, err: "" });
  expect(stub.calls.map(({ fields }) => fields)).toEqual(
    Array.from({ length: 2 }, () => ({ grant_type: "client_credentials", scope: "a b" })),
  );
  expect(result.out).toContain("new token request");
  expect(result.out).toContain("refresh token: no");
  expectNone(stub.secrets, result);
});

test("a device code: the code and the address are shown as they are, and it is asked until somebody has typed it in", async () => {
  const pending = { status: 400, body: { error: "authorization_pending" } };
  await using stub = await startStubProvider({
    "POST /device": {
      body: {
        device_code: "device-code-canary",
        user_code: "WDJB-MJHT",
        verification_uri: "https://id.example/device",
        expires_in: 900,
        interval: 7,
      },
    },
    "POST /token": [
      pending,
      { status: 400, body: { error: "slow_down" } },
      pending,
      granted("1", { refresh_token: "rt-canary-1" }),
      granted("2", { refresh_token: "rt-canary-2" }),
      { status: 400, body: { error: "invalid_grant" } },
    ],
  });
  const file = await stub.define({ grants: ["device_code"], device: { url: `${stub.url}/device` } });
  const result = await runTry([file, "--client-id", "c-1"], { env });
  expect(result).toMatchObject({ exitCode: 0, err: "" });
  expect(result.out).toContain("Open https://id.example/device and type in the code WDJB-MJHT");
  expect(stub.calls[1]?.fields).toMatchObject({ device_code: "device-code-canary" });
  expect(result.sleptMs).toBe((7 + 7 + 12 + 12) * 1000);
  const polled = result.out.split("a junk refresh token")[0];
  expect(polled?.match(/^< 400/gm), "only the first answer that says not yet is told").toHaveLength(1);
  expect(result.out).toContain("means authorization_pending");
  expectNone(stub.secrets, result);
});

test.each([
  ["declined", { error: "access_denied" }, "access_denied"],
  ["too late", { error: "expired_token" }, "expired_token"],
])("a device code that is %s ends the walk", async (_case, body, said) => {
  await using stub = await startStubProvider({
    "POST /device": {
      body: { device_code: "device-canary", user_code: "U-1", verification_uri: "https://id.example" },
    },
    "POST /token": { status: 400, body },
  });
  const file = await stub.define({ grants: ["device_code"], device: { url: `${stub.url}/device` } });
  const result = await runTry([file, "--client-id", "c-1"], { env });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringContaining(said) });
  expect(result.out).toContain(`means ${said}`);
});

test("a device code that nobody types in ends with its life", async () => {
  await using stub = await startStubProvider({
    "POST /device": {
      body: { device_code: "device-canary", user_code: "U-1", verification_uri: "https://id.example", expires_in: 20 },
    },
    "POST /token": { status: 400, body: { error: "authorization_pending" } },
  });
  const file = await stub.define({ grants: ["device_code"], device: { url: `${stub.url}/device` } });
  const result = await runTry([file, "--client-id", "c-1"], { env });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringContaining("(not_connected)") });
  expect(stub.called()).toEqual(["POST /device", ...Array.from({ length: 4 }, () => "POST /token")]);
});

test("a password comes from the environment, and neither it nor the user's name is shown", async () => {
  await using stub = await startStubProvider({ "POST /token": granted("1", { refresh_token: "rt-canary-1" }) });
  const file = await stub.define({ grants: ["password"] });
  const args = [file, "--client-id", "c-1", "--grant", "password", "--username", "ann-canary"];
  const result = await runTry(args, { env: { ...env, FRESHET_PASSWORD: "password-canary" } });
  expect(result).toMatchObject({ exitCode: 0 });
  expect(stub.calls[0]?.fields).toMatchObject({ username: "ann-canary", password: "password-canary" });
  expect(result.out).toContain("grant_type=password&username=••••&password=••••");
  expectNone([...stub.secrets, "ann-canary"], result);
});

test("an import is tried by its refresh, with a token from a prompt that shows nothing", async () => {
  await using stub = await startStubProvider({ "POST /token": granted("1") });
  const file = await stub.define({ grants: ["import"] });
  const result = await runTry([file, "--client-id", "c-1"], { env, interactive: true, stdin: "rt-canary-typed\r" });
  expect(result).toMatchObject({ exitCode: 0 });
  expect(stub.calls[0]?.fields).toEqual({ grant_type: "refresh_token", refresh_token: "rt-canary-typed" });
  expect(result.out).toContain("= the refresh token that was sent: stays in force, no new one came");
  expectNone(stub.secrets, result);
});

test("a client with a key signs an assertion, of which nothing is shown", async () => {
  await using stub = await startStubProvider({ "POST /token": granted("1") });
  const { privateKey } = generateKeyPairSync("rsa", {
    modulusLength: 2048,
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  const file = await stub.define({
    grants: ["client_credentials"],
    token: { url: `${stub.url}/token`, client_auth: "private_key_jwt" },
  });
  const args = [file, "--client-id", "c-1", "--client-secret-file", "-", "--no-refresh"];
  const result = await runTry(args, { stdin: privateKey });
  expect(result).toMatchObject({ exitCode: 0 });
  expect(decodeJwt(stub.calls[0]?.fields["client_assertion"] ?? "")).toMatchObject({ iss: "c-1", sub: "c-1" });
  expectNone([...stub.secrets, ...privateKey.split("\n")], result);
});

test("addresses that the file leaves out come from the issuer's metadata", async () => {
  await using stub = await startStubProvider({ "POST /elsewhere": granted("1") });
  stub.answer("GET /.well-known/openid-configuration", {
    body: { issuer: stub.url, token_endpoint: `${stub.url}/elsewhere`, revocation_endpoint: `${stub.url}/revoke` },
  });
  const file = await stub.define({ grants: ["client_credentials"], issuer: stub.url, token: {} });
  const result = await runTry([file, "--client-id", "c-1", "--no-refresh"], { env });
  expect(result).toMatchObject({ exitCode: 0 });
  expect(stub.called()).toEqual(["GET /.well-known/openid-configuration", "POST /elsewhere"]);
  expect(result.out).toContain(`"token_endpoint": "${stub.url}/elsewhere"`);
});

test("inputs that are secrets come from the environment and are masked", async () => {
  await using stub = await startStubProvider({ "POST /token": granted("1") });
  const file = await stub.define({
    grants: ["client_credentials"],
    inputs: { tenant: {}, pin: { secret: true } },
    token: {
      url: `${stub.url}/token`,
      grants: { client_credentials: { fields: { tenant: "{inputs.tenant}", pin: "{inputs.pin}" } } },
    },
  });
  const args = [file, "--client-id", "c-1", "--input", "tenant=acme", "--no-refresh"];
  const result = await runTry(args, { env: { ...env, FRESHET_INPUT_PIN: "pin-canary" } });
  expect(result).toMatchObject({ exitCode: 0 });
  expect(stub.calls[0]?.fields).toMatchObject({ tenant: "acme", pin: "pin-canary" });
  expect(result.out).toContain("tenant=acme&pin=••••");
  expectNone([...stub.secrets, "pin-canary"], result);
});

test("an address that the broker may not reach is not reached from here either", async () => {
  await using stub = await startStubProvider({ "POST /token": granted("1") });
  const file = await stub.define({ grants: ["client_credentials"] });
  const result = await runTry([file, "--client-id", "c-1"], { env: { ...env, PROVIDER_NETWORKS: "" } });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringContaining("may not be reached by http") });
  expect(stub.calls).toEqual([]);
});
