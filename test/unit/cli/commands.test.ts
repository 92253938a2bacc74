import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { run, testKey, type Surroundings } from "./run.ts";
import { problem, providerOf, startStubBroker } from "./stub-broker.ts";

const token = {
  connection: "acme-bol",
  access_token: "at-1",
  token_type: "Bearer",
  expires_in: 281,
  version: 7,
  warnings: [{ code: "refresh_failing", detail: "The provider is away." }],
};

type SecretCase = [string, Surroundings & { args?: string[]; secret?: string }];

async function secretFile(content: string): Promise<string> {
  const path = join((await temporaryFolder("cli")).path, "secret");
  await writeFile(path, content);
  return path;
}

test("token prints the access token and nothing else on stdout, warnings go to stderr", async () => {
  await using broker = await startStubBroker({ "GET /tokens/acme-bol": { body: token } });
  const result = await run(["token", "acme-bol", "--min-ttl", "30"], { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({
    exitCode: 0,
    out: "at-1\n",
    err: "freshet: warning: The provider is away. (refresh_failing)\n",
  });
  expect(broker.requests).toMatchObject([{ query: { min_ttl: "30" }, key: `Bearer ${testKey}` }]);
});

test("--json prints the broker's whole answer, wherever it stands on the command line", async () => {
  await using broker = await startStubBroker({ "GET /tokens/acme-bol": { body: token } });
  const env = { FRESHET_URL: broker.url };
  expect(JSON.parse((await run(["token", "acme-bol", "--json"], { env })).out)).toEqual(token);
  expect(JSON.parse((await run(["--json", "token", "acme-bol"], { env })).out)).toEqual(token);
});

test("a failure is one line on stderr with the broker's detail and code, and exit code 1", async () => {
  await using broker = await startStubBroker({
    "GET /tokens/acme": problem(409, "needs_reauthorization", "The grant has ended.\nAsk for a new consent."),
  });
  const result = await run(["token", "acme"], { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({
    exitCode: 1,
    out: "",
    err: "freshet: The grant has ended. Ask for a new consent. (needs_reauthorization)\n",
  });
});

test("connections refresh says what an operator says about the end of a grant, and refuses what does not go together", async () => {
  const body = { name: "acme", status: "connected", version: 8 };
  await using broker = await startStubBroker({ "POST /connections/acme/refresh": { body } });
  const env = { FRESHET_URL: broker.url };
  const refresh = async (...args: string[]) => await run(["connections", "refresh", "acme", ...args], { env });
  expect(await refresh()).toMatchObject({ exitCode: 0, out: "Connection acme has version 8.\n" });
  expect(await refresh("--retry-ended", "--force")).toMatchObject({ exitCode: 0 });
  expect(await refresh("--end")).toMatchObject({ exitCode: 0, out: "Connection acme has ended.\n" });
  expect(await refresh("--end", "--retry-ended")).toMatchObject({ exitCode: 2 });
  expect(await refresh("--force")).toMatchObject({ exitCode: 2 });
  expect(broker.requests.map((request) => request.body)).toEqual([
    {},
    { retry_ended: true, force: true },
    { end: true },
  ]);
});

test("a client's secret comes from a file, without the newline an editor leaves", async () => {
  const redirect_uri = "https://broker.example/callback/bol";
  await using broker = await startStubBroker({
    "GET /providers/bol": providerOf("bol"),
    "POST /clients": { status: 201, body: { name: "bol", redirect_uri } },
  });
  const file = await secretFile(" s3cret \n");
  const args = ["clients", "add", "bol", "--provider", "bol", "--client-id", "id-1", "--client-secret-file", file];
  const patterns = ["--connections", "acme-*", "--connections", "beta"];
  const more = ["--scope", "a", "--scope", "b", ...patterns, "--input", "shop_url=https://x.example/?a=b"];
  const result = await run([...args, ...more], { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({
    exitCode: 0,
    out: `Client bol is stored. Register this redirect URI at its provider: ${redirect_uri}\n`,
    err: "",
  });
  expect(broker.sentTo("POST /clients")[0]).toEqual({
    name: "bol",
    provider: "bol",
    client_id: "id-1",
    client_secret: " s3cret ",
    scopes: ["a", "b"],
    connections: ["acme-*", "beta"],
    inputs: { shop_url: "https://x.example/?a=b" },
  });
});

test("a client without patterns of connections: who may use it is said, and how to open it", async () => {
  await using broker = await startStubBroker({
    "GET /providers/bol": providerOf("bol"),
    "POST /clients": { status: 201, body: { name: "bol" } },
  });
  const args = ["clients", "add", "bol", "--provider", "bol", "--client-id", "id-1", "--public"];
  const { exitCode, err } = await run(args, { env: { FRESHET_URL: broker.url } });
  expect(exitCode).toBe(0);
  expect(err).toContain("freshet clients update bol --connections PATTERN");
});

test.each([
  [["--connections", "acme-*"], { connections: ["acme-*"] }, {}],
  [["--admin-only"], { connections: [] }, {}],
  [["--client-id", "id-2", "--scope", "a"], { client_id: "id-2", scopes: ["a"] }, {}],
  [
    ["--input", "shop_url=https://y.example"],
    { client_secret: "s3cret", inputs: { shop_url: "https://y.example" } },
    { FRESHET_CLIENT_SECRET: "s3cret" },
  ],
])("a client is changed in what is given alone: %j", async (args, body, env) => {
  await using broker = await startStubBroker({ "PATCH /clients/bol": { body: { name: "bol" } } });
  const result = await run(["clients", "update", "bol", ...args], { env: { ...env, FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 0, out: "Client bol is changed.\n", err: "" });
  expect(broker.requests[0]?.body).toEqual(body);
});

test("a client is opened or closed to keys without admin, not both", async () => {
  await using broker = await startStubBroker({});
  const args = ["clients", "update", "bol", "--admin-only", "--connections", "acme-*"];
  const result = await run(args, { env: { FRESHET_URL: broker.url } });
  expect([result.exitCode, result.err]).toEqual([2, expect.stringMatching(/--connections or --admin-only/)]);
  expect(broker.requests).toEqual([]);
});

test.each([
  ["stdin", { args: ["--client-secret-file", "-"], stdin: "from-stdin\n", secret: "from-stdin" }],
  ["the environment", { env: { FRESHET_CLIENT_SECRET: "from-env" }, secret: "from-env" }],
  ["a prompt that shows nothing", { interactive: true, stdin: "typed-secret\r", secret: "typed-secret" }],
  ["nowhere for a public client", { args: ["--public"], interactive: true }],
  ["nowhere without a terminal", {}],
] as SecretCase[])("a client's secret comes from %s", async (_source, { args = [], secret, env, ...surroundings }) => {
  await using broker = await startStubBroker({
    "GET /providers/bol": providerOf("bol"),
    "POST /clients": { status: 201, body: { name: "bol" } },
  });
  const result = await run(["clients", "add", "bol", "--provider", "bol", "--client-id", "i", ...args], {
    ...surroundings,
    env: { ...env, FRESHET_URL: broker.url },
  });
  expect(result.exitCode).toBe(0);
  expect(broker.sentTo("POST /clients")).toEqual([
    { name: "bol", provider: "bol", client_id: "i", client_secret: secret },
  ]);
  expect(result.out + result.err).not.toContain(secret ?? "never");
});

test("a client is switched to a redirect URI of its own, which is told", async () => {
  const redirect_uri = "https://broker.example/callback/keycloak/sso";
  await using broker = await startStubBroker({
    "PATCH /clients/sso": { status: 200, body: { name: "sso", redirect_uri } },
  });
  const result = await run(["clients", "update", "sso", "--own-redirect-uri"], { env: { FRESHET_URL: broker.url } });
  expect([result.exitCode, result.err]).toEqual([0, ""]);
  expect(result.out).toContain(redirect_uri);
  expect(broker.requests[0]?.body).toEqual({ own_redirect_uri: true });
});

test("a person who ends the prompt has nothing stored", async () => {
  await using broker = await startStubBroker({ "GET /providers/bol": providerOf("bol") });
  const args = ["clients", "add", "bol", "--provider", "bol", "--client-id", "i"];
  const result = await run(args, { env: { FRESHET_URL: broker.url }, interactive: true, stdin: "half\x03" });
  expect(result.exitCode).toBe(1);
  expect(result.err).toMatch(/\nfreshet: Nothing was entered \(cancelled\)\n$/);
  expect(broker.requests.map(({ method }) => method)).toEqual(["GET"]);
});

test("a password connection is created with credentials that were never arguments", async () => {
  await using broker = await startStubBroker({
    "GET /providers/shopware": providerOf("shopware", {
      grants: ["client_credentials", "password"],
      needs: { password: { client: false, client_secret: false, credentials: ["username", "password"] } },
    }),
    "POST /connections": { status: 201, body: { name: "shop", status: "connected", grant: "password" } },
  });
  const args = ["connections", "add", "shop", "--provider", "shopware", "--grant", "password", "--username", "ann"];
  const result = await run([...args, "--label", "team=a"], {
    env: { FRESHET_URL: broker.url, FRESHET_PASSWORD: "pw-1" },
  });
  expect(result.out).toBe("Connection shop is connected.\n");
  expect(broker.sentTo("POST /connections")[0]).toEqual({
    name: "shop",
    provider: "shopware",
    grant: "password",
    labels: { team: "a" },
    credentials: { username: "ann", password: "pw-1" },
  });
});

test("a list is a table of aligned columns over all pages", async () => {
  const item = {
    provider: "bol",
    status: "connected",
    version: 3,
    expires_at: null,
    account: null,
    attention: null,
    labels: { team: "a" },
  };
  const attention = { code: "no_refresh_token", since: "2026-11-20T12:00:00.000Z", detail: "It ends." };
  await using broker = await startStubBroker({
    "GET /connections": [
      { body: { items: [{ ...item, name: "a" }], next_cursor: "c1" } },
      { body: { items: [{ ...item, name: "a-longer-name", attention, labels: {} }], next_cursor: null } },
    ],
  });
  const result = await run(["connections", "list", "--status", "connected"], { env: { FRESHET_URL: broker.url } });
  expect(result.out).toBe(
    [
      "NAME           PROVIDER  STATUS     VERSION  EXPIRES  ACCOUNT  ATTENTION         LABELS",
      "a              bol       connected  3        -        -        -                 team=a",
      "a-longer-name  bol       connected  3        -        -        no_refresh_token  -",
      "",
    ].join("\n"),
  );
  expect(broker.requests.map(({ query }) => query)).toEqual([
    { status: "connected" },
    { status: "connected", cursor: "c1" },
  ]);
});

test("what a provider named cannot steer the terminal", async () => {
  await using broker = await startStubBroker({
    "GET /connections/a": { body: { name: "a", account: "\u001b[2J\u202eevil" } },
  });
  const result = await run(["connections", "show", "a"], { env: { FRESHET_URL: broker.url } });
  expect(result.out).toBe("name:     a\naccount:   [2J evil\n");
});

test("a further token of a connection is read by its name", async () => {
  await using broker = await startStubBroker({ "GET /tokens/acme": { body: { ...token, warnings: [] } } });
  const result = await run(["token", "acme", "--token", "user"], { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 0, out: "at-1\n", err: "" });
  expect(broker.requests).toMatchObject([{ query: { token: "user" } }]);
});

test.each([
  ["--accept", true, "Connection a has the other account from now on.\n"],
  ["--decline", false, "Connection a keeps the account that it had.\n"],
])("the other account of a reconnect gets the word %s", async (option, accept, said) => {
  await using broker = await startStubBroker({ "POST /connections/a/account": { body: { name: "a" } } });
  const result = await run(["connections", "confirm", "a", option], { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 0, out: said, err: "" });
  expect(broker.requests.map(({ body }) => body)).toEqual([{ accept }]);
});

test("deleting a connection can leave the provider's tokens alone", async () => {
  await using broker = await startStubBroker({ "DELETE /connections/a": { status: 204 } });
  const env = { FRESHET_URL: broker.url };
  expect((await run(["connections", "delete", "a"], { env })).out).toBe("Connection a is deleted.\n");
  expect((await run(["connections", "delete", "a", "--no-revoke", "--json"], { env })).out).toBe('{"deleted":"a"}\n');
  expect(broker.requests.map(({ query }) => query)).toEqual([{}, { revoke: "false" }]);
});

test("a new key is the only thing on stdout, for use in a script", async () => {
  await using broker = await startStubBroker({
    "POST /keys": { status: 201, body: { id: "k7", key: "frt_k7_abc_def" } },
  });
  const args = ["keys", "add", "billing", "--ability", "tokens", "--connection", "acme-*", "--connection", "b"];
  const result = await run(args, { env: { FRESHET_URL: broker.url } });
  expect(result.out).toBe("frt_k7_abc_def\n");
  expect(result.err).not.toContain("frt_k7_abc_def");
  expect(broker.requests[0]?.body).toEqual({ name: "billing", abilities: ["tokens"], connections: ["acme-*", "b"] });
});

test("a workload is declared with all that the command names, a claim that is named twice with both patterns", async () => {
  await using broker = await startStubBroker({ "POST /workloads": { status: 201, body: { name: "ci" } } });
  const jwks = { keys: [{ kty: "EC" }] };
  const options = {
    issuer: "https://ci.example",
    audience: "freshet",
    match: ["sub=a=b", "sub=c", "/k8s~1io/ns=shop"],
    algorithm: ["ES256"],
    "jwks-file": "-",
    network: ["10.0.0.0/8"],
    ability: ["tokens"],
    connection: ["acme-*"],
    label: ["customer=acme"],
    "expires-at": "2027-01-31T00:00:00Z",
  };
  const args = Object.entries(options).flatMap(([name, values]) =>
    [values].flat().flatMap((each) => [`--${name}`, each]),
  );
  const env = { FRESHET_URL: broker.url };
  const result = await run(["workloads", "add", "ci", ...args], { env, stdin: JSON.stringify(jwks) });
  expect(result.out).toBe("Workload ci is declared.\n");
  expect(broker.requests[0]?.body).toEqual({
    name: "ci",
    issuer: "https://ci.example",
    audience: "freshet",
    match: { sub: ["a=b", "c"], "/k8s~1io/ns": ["shop"] },
    algorithms: ["ES256"],
    jwks,
    networks: ["10.0.0.0/8"],
    abilities: ["tokens"],
    connections: ["acme-*"],
    labels: { customer: "acme" },
    expires_at: "2027-01-31T00:00:00Z",
  });
  const wrong = await run(["workloads", "add", "ci", ...args], { env, stdin: "-----BEGIN PUBLIC KEY-----" });
  expect(wrong).toMatchObject({ exitCode: 2, err: expect.stringContaining("stdin holds no JSON: a JWK Set") });
});

test("deleting a workload names the replicas that may still serve it, and the workload that was meant", async () => {
  await using broker = await startStubBroker({
    "DELETE /workloads/ci": { status: 204, headers: { "freshet-unconfirmed": "b2" } },
    "DELETE /workloads/cj": { status: 404, body: { code: "not_found", detail: "There is none." } },
    "GET /workloads": { body: { items: [{ name: "ci" }], next_cursor: null } },
  });
  const env = { FRESHET_URL: broker.url };
  const deleted = await run(["workloads", "delete", "ci"], { env });
  expect(deleted).toMatchObject({ out: "Workload ci is deleted.\n", err: expect.stringContaining("its tokens: b2") });
  expect((await run(["workloads", "delete", "cj"], { env })).err).toContain('"ci"');
});

test("import takes a token endpoint's answer and sends only what the broker knows", async () => {
  await using broker = await startStubBroker({ "POST /connections/a/import": { body: { status: "connected" } } });
  const set = { access_token: "at", refresh_token: "rt", token_type: "bearer", expires_in: 60, extra: 1 };
  const result = await run(["import", "a", "--file", "-", "--verify"], {
    env: { FRESHET_URL: broker.url },
    stdin: JSON.stringify(set),
  });
  expect(result.out).toBe("Connection a is connected.\n");
  expect(broker.requests[0]?.body).toEqual({ access_token: "at", refresh_token: "rt", expires_in: 60, verify: true });
});

test("import asks for both tokens on a terminal and shows neither", async () => {
  await using broker = await startStubBroker({ "POST /connections/a/import": { body: { status: "connected" } } });
  const result = await run(["import", "a"], {
    env: { FRESHET_URL: broker.url, FRESHET_ACCESS_TOKEN: "at-env" },
    interactive: true,
    stdin: "rt-typed\r",
  });
  expect(result.err).toBe("Refresh token (empty for none, not shown): \n");
  expect(broker.requests[0]?.body).toEqual({ refresh_token: "rt-typed", access_token: "at-env" });
});

test("a file that is no token set is refused without being quoted", async () => {
  const result = await run(["import", "a", "--file", "-"], { stdin: '{"refresh_token": "rt-canary"' });
  expect(result).toEqual({
    exitCode: 2,
    out: "",
    err: "freshet: stdin must hold one JSON object with the tokens (usage)\n",
  });
});
