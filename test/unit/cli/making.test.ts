import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { run, type Surroundings } from "./run.ts";
import { problem, providerOf, startStubBroker } from "./stub-broker.ts";

const shop = providerOf("shop", {
  grants: ["client_credentials", "password"],
  needs: {
    client_credentials: { client_inputs: ["shop_url"] },
    password: { client: false, client_secret: false, inputs: ["shop_url"], credentials: ["username", "password"] },
  },
  inputs: { shop_url: { description: "the address of the shop" } },
});
const market = providerOf("market", {
  grants: ["authorization_code", "client_credentials", "import"],
  register: "Create a client under Settings.",
});
const keyed = providerOf("keyed", {
  grants: ["client_credentials"],
  needs: { client_credentials: { client: false, client_secret: false, inputs: ["api_secret"] } },
  inputs: { api_secret: { secret: true }, other_secret: { secret: true, default: "none" }, region: {} },
});
const none = { body: { items: [], next_cursor: null } };
const unknown = problem(404, "connection_not_found", "There is no connection of this name for this key.");
const unknownClient = problem(404, "not_found", "There is no client.");
const made = (name: string, more: object = {}) => ({ status: 201, body: { name, status: "pending", ...more } });
const redirectUri = "https://broker.example/callback/market";
const client = { status: 201, body: { name: "market", redirect_uri: redirectUri } };
const link = { id: "l1", url: "http://localhost:8080/connect/l1", expires_at: "2026-11-20T13:00:00.000Z" };
const noEvents = { "GET /connections/a/events": none };

async function secretFile(): Promise<string> {
  const path = join((await temporaryFolder("cli")).path, "secret");
  await writeFile(path, "s3cret\n");
  return path;
}

test("clients add asks for all that is missing, tells beforehand what to register, and sends what was typed", async () => {
  await using broker = await startStubBroker({ "GET /providers/market": market, "POST /clients": client });
  const result = await run(["clients", "add", "m"], {
    env: { FRESHET_URL: broker.url },
    interactive: true,
    stdin: "market\rid-1\rs3cret\r",
  });
  expect(result.exitCode).toBe(0);
  expect(broker.sentTo("POST /clients")).toEqual([
    { name: "m", provider: "market", client_id: "id-1", client_secret: "s3cret" },
  ]);
  expect(result.err).toMatch(
    new RegExp(`Create a client under Settings\\.\n.*${redirectUri}\n[^]*Client id[^]*Client secret`),
  );
  expect(result.out + result.err).not.toContain("s3cret");
});

test("clients add asks for the inputs that every client of the provider needs, and for no secret that nothing takes", async () => {
  const needs = { authorization_code: { client_secret: false, client_inputs: ["host"] } };
  const provider = providerOf("open", { needs, inputs: { host: { enum: ["a.example", "b.example"] } } });
  await using broker = await startStubBroker({ "GET /providers/open": provider, "POST /clients": client });
  const result = await run(["clients", "add", "m", "--provider", "open", "--client-id", "i"], {
    env: { FRESHET_URL: broker.url },
    interactive: true,
    stdin: "b.example\r",
  });
  expect(result.err).toContain("host (one of a.example, b.example): ");
  expect(broker.sentTo("POST /clients")).toEqual([
    { name: "m", provider: "open", client_id: "i", inputs: { host: "b.example" } },
  ]);
});

test.each([
  [["clients", "add", "c"], "--provider <id>, --client-id <id>"],
  [["clients", "add", "c", "--provider", "shop"], "--client-id <id>, --input shop_url=… (the address of the shop)"],
  [["connections", "add", "a"], "--provider <id>"],
  [
    ["connections", "add", "a", "--provider", "shop"],
    "--client <name> (make one first: freshet clients add NAME --provider shop)",
  ],
  [
    ["connections", "add", "a", "--provider", "shop", "--grant", "password"],
    "--input shop_url=… (the address of the shop), --username <name>, --password-file <file> (or FRESHET_PASSWORD)",
  ],
  [
    ["connect", "a", "--provider", "shop"],
    "--client-id <id>, --client-secret-file <file> (or FRESHET_CLIENT_SECRET), --input shop_url=… (the address of the shop)",
  ],
  [["keys", "add", "k"], "--ability <tokens|connections|admin>"],
  [
    ["workloads", "add", "w"],
    "--issuer <iss>, --audience <aud>, --match <claim=pattern>, --ability <tokens|connections|admin>",
  ],
  [["connections", "code", "a"], "--code-file <file>, - for stdin"],
])("without a terminal all that is missing is said at once, and nothing is stored: %j", async (args, missing) => {
  await using broker = await startStubBroker({
    "GET /providers/shop": shop,
    "GET /clients": none,
    "GET /connections/a": unknown,
    "GET /connections": none,
  });
  const result = await run(args, { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 2, out: "", err: `freshet: Missing: ${missing} (usage)\n` });
  expect(broker.requests.filter(({ method }) => method !== "GET")).toEqual([]);
});

test("one line makes client and connection, says what to register and which grant it took, and waits for the consent", async () => {
  await using broker = await startStubBroker({
    "GET /providers/market": market,
    "GET /clients": none,
    "POST /clients": client,
    "GET /connections/a": [unknown, { body: { name: "a", status: "connected", grant: "authorization_code" } }],
    "POST /connections": made("a", { grant: "authorization_code" }),
    "POST /connections/a/consent-links": { status: 201, body: link },
    ...noEvents,
  });
  const line = ["connect", "a", "--provider", "market", "--client-id", "id-1", "--scope", "read"];
  const env = { FRESHET_URL: broker.url };
  const result = await run([...line, "--client-secret-file", await secretFile()], { env });
  expect(result).toMatchObject({ exitCode: 0, out: `${link.url}\nConnection a is connected.\n` });
  expect(result.err).toContain(`Register this redirect URI at its provider: ${redirectUri}`);
  expect(result.err).toContain(
    "Grant: authorization_code; market offers client_credentials, import too: --grant chooses.",
  );
  expect(broker.sentTo("POST /clients")).toEqual([
    { name: "market", provider: "market", client_id: "id-1", client_secret: "s3cret", inputs: {} },
  ]);
  expect(broker.sentTo("POST /connections")).toEqual([
    { name: "a", provider: "market", client: "market", scopes: ["read"] },
  ]);
});

test("the same line again uses the client and the connection that it has made, and refuses what contradicts them", async () => {
  const there = { name: "market", provider: "market", client_id: "id-1", inputs: {} };
  const connection = { name: "a", provider: "market", client: "market", grant: "authorization_code", scopes: ["read"] };
  await using broker = await startStubBroker({
    "GET /connections/a": [
      { body: { ...connection, status: "pending" } },
      { body: { ...connection, status: "connected" } },
    ],
    "GET /connections/b": unknown,
    "GET /connections": none,
    "GET /providers/market": market,
    "GET /clients": { body: { items: [there], next_cursor: null } },
    "GET /clients/market": { body: there },
    "POST /connections/a/consent-links": { status: 201, body: link },
    ...noEvents,
  });
  const connect = async (name: string, ...args: string[]) =>
    await run(["connect", name, "--provider", "market", ...args], { env: { FRESHET_URL: broker.url } });
  expect(await connect("a", "--client-id", "id-1", "--scope", "read")).toMatchObject({ exitCode: 0 });
  expect(await connect("a", "--scope", "write")).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/connection "a", with the scope "read", not "write": .* \(conflict\)\n$/),
  });
  expect(await connect("b", "--client", "market", "--client-id", "id-2")).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/already a client "market", of market with the client id id-1: .* \(conflict\)\n$/),
  });
  expect(broker.requests.filter(({ path, method }) => method === "POST" && !path.includes("consent"))).toEqual([]);
});

test.each([
  [["--input", "shop_url=https://other.example"], "another value of the input shop_url:"],
  [["--client-id", "id-2"], 'the client id "id-1", not "id-2"'],
  [["--label", "team=b"], 'no label team, not "b"'],
  [["--grant", "password"], 'the grant "client_credentials", not "password"'],
])("a connection that is there is not taken for another one: %j", async (args, said) => {
  const there = { name: "shop", provider: "shop", client_id: "id-1", inputs: { shop_url: "https://shop.example" } };
  const connection = { name: "a", provider: "shop", client: "shop", grant: "client_credentials", status: "connected" };
  await using broker = await startStubBroker({
    "GET /connections/a": { body: { ...connection, inputs: {}, labels: {}, scopes: [] } },
    "GET /clients/shop": { body: there },
    "GET /providers/shop": shop,
  });
  const connect = async (...more: string[]) =>
    await run(["connect", "a", "--provider", "shop", ...more], { env: { FRESHET_URL: broker.url } });
  expect(await connect(...args)).toMatchObject({ exitCode: 1, out: "", err: expect.stringContaining(said) });
  const same = ["--client-id", "id-1", "--input", "shop_url=https://shop.example", "--client-secret-file", "none"];
  expect(await connect(...same)).toEqual({
    exitCode: 0,
    out: "Connection a is connected.\n",
    err: expect.stringMatching(/^a is there, and keeps its secrets\. /),
  });
});

test("connections that nobody has to consent to are connected by the same command, each by its own client", async () => {
  const there = { name: "shop", provider: "shop", client_id: "id-1", inputs: { shop_url: "https://other.example" } };
  await using broker = await startStubBroker({
    "GET /providers/shop": shop,
    "GET /clients": { body: { items: [there], next_cursor: null } },
    "POST /clients": { status: 201, body: { name: "shop-2", redirect_uri: "none" } },
    "GET /connections/a": unknown,
    "GET /connections": none,
    "POST /connections": made("a", { status: "connected", grant: "client_credentials" }),
  });
  const line = ["connect", "a", "--provider", "shop", "--client-id", "i", "--input", "shop_url=https://shop.example"];
  const result = await run(line, { env: { FRESHET_URL: broker.url, FRESHET_CLIENT_SECRET: "s" } });
  expect(result).toMatchObject({ exitCode: 0, out: "Connection a is connected.\n" });
  expect(result.err).not.toContain("redirect URI");
  const inputs = { shop_url: "https://shop.example" };
  expect(broker.sentTo("POST /clients")).toEqual([
    { name: "shop-2", provider: "shop", client_id: "i", client_secret: "s", inputs },
  ]);
  expect(broker.sentTo("POST /connections")).toEqual([{ name: "a", provider: "shop", client: "shop-2" }]);
});

test("where the broker refuses the connection, the client that was made for it is deleted again", async () => {
  await using broker = await startStubBroker({
    "GET /providers/market": market,
    "GET /clients": none,
    "POST /clients": client,
    "DELETE /clients/market": { status: 204 },
    "GET /connections/a": unknown,
    "GET /connections": none,
    "POST /connections": problem(422, "provider_rejected", "The provider refuses: wrong secret"),
  });
  const line = ["connect", "a", "--provider", "market", "--client-id", "id-1", "--grant", "client_credentials"];
  const result = await run(line, { env: { FRESHET_URL: broker.url, FRESHET_CLIENT_SECRET: "wrong" } });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringMatching(/wrong secret \(provider_rejected\)\n$/) });
  expect(result.err).toContain("Client market is deleted again");
  expect(broker.requests.filter(({ method }) => method === "DELETE")).toHaveLength(1);
});

test("a client that cannot be deleted again is noted, and the first failure is the one that is told", async () => {
  await using broker = await startStubBroker({
    "GET /providers/market": market,
    "GET /clients": none,
    "POST /clients": client,
    "DELETE /clients/market": problem(409, "conflict", "It is in use."),
    "GET /connections/a": unknown,
    "GET /connections": none,
    "POST /connections": problem(503, "storage_unavailable", "Postgres is away."),
  });
  const line = ["connect", "a", "--provider", "market", "--client-id", "id-1"];
  const result = await run(line, { env: { FRESHET_URL: broker.url, FRESHET_CLIENT_SECRET: "s" } });
  expect(result).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/Postgres is away\. \(storage_unavailable\)\n$/),
  });
  expect(result.err).toContain("Client market stays: It is in use.");
});

test("a key that may not see definitions sends what it has, and connects with the client that it names", async () => {
  await using broker = await startStubBroker({
    "GET /providers/market": problem(403, "forbidden", "This key has no admin."),
    "POST /connections": made("a", { grant: "authorization_code" }),
  });
  const args = ["connections", "add", "a", "--provider", "market", "--client", "m"];
  expect(await run(args, { env: { FRESHET_URL: broker.url } })).toEqual({
    exitCode: 0,
    out: "Connection a is pending. Connect it with: freshet connect a\n",
    err: "Grant: authorization_code.\n",
  });
  expect(broker.sentTo("POST /connections")).toEqual([{ name: "a", provider: "market", client: "m" }]);
});

test("a key without admin that is to make a client is told to name one", async () => {
  await using broker = await startStubBroker({
    "GET /connections/a": unknown,
    "GET /connections": none,
    "GET /providers/market": problem(403, "forbidden", "This key has no admin."),
  });
  const result = await run(["connect", "a", "--provider", "market", "--client-id", "i"], {
    env: { FRESHET_URL: broker.url },
  });
  expect(result).toMatchObject({
    exitCode: 2,
    err: expect.stringMatching(/takes a key with admin; .* --client \(usage\)/),
  });
});

test("connections add uses the only client of a provider, and asks which of several", async () => {
  const clients = ["one", "two"].map((name) => ({ name, provider: "market", inputs: {} }));
  await using broker = await startStubBroker({
    "GET /providers/market": market,
    "GET /clients": [
      { body: { items: clients.slice(1), next_cursor: null } },
      { body: { items: clients, next_cursor: null } },
    ],
    "POST /connections": made("a", { grant: "import" }),
  });
  const add = async () =>
    await run(["connections", "add", "a", "--provider", "market", "--grant", "import"], {
      env: { FRESHET_URL: broker.url },
    });
  expect(await add()).toEqual({
    exitCode: 0,
    out: "Connection a is pending. Hand over its tokens with: freshet import a\n",
    err: "Using the client two, which is there.\n",
  });
  expect(await add()).toMatchObject({ exitCode: 2, err: expect.stringContaining("--client one|two") });
});

test("options that describe a new connection go with --provider alone", async () => {
  await using broker = await startStubBroker({});
  const result = await run(["connect", "a", "--client-id", "i"], { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 2, out: "", err: "freshet: --client-id goes with --provider (usage)\n" });
  expect(broker.requests).toEqual([]);
});

test.each([
  [["--scope", "a", "--label", "team=b"], {}, { scopes: ["a"], labels: { team: "b" } }],
  [["--no-labels"], {}, { labels: {} }],
  [["--input", "x=y"], {}, { inputs: { x: "y" } }],
  [["--username", "ann"], { FRESHET_PASSWORD: "pw" }, { credentials: { username: "ann", password: "pw" } }],
])("a connection is changed in what is given alone: %j", async (args, env, body) => {
  await using broker = await startStubBroker({
    "GET /providers/shop": shop,
    "GET /connections/a": { body: { name: "a", provider: "shop" } },
    "PATCH /connections/a": { body: { name: "a", status: "connected" } },
  });
  const result = await run(["connections", "update", "a", ...args], { env: { ...env, FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 0, out: "Connection a is changed.\n", err: "" });
  expect(broker.sentTo("PATCH /connections/a")).toEqual([body]);
});

test.each([
  ["disable", true, "disabled"],
  ["enable", false, "connected"],
])("connections %s", async (command, disabled, status) => {
  await using broker = await startStubBroker({ "PATCH /connections/a": { body: { name: "a", status } } });
  const result = await run(["connections", command, "a"], { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 0, out: `Connection a is ${status}.\n`, err: "" });
  expect(broker.sentTo("PATCH /connections/a")).toEqual([{ disabled }]);
});

test("connections events tells the newest events, as many as were asked for", async () => {
  const items = [{ id: 2, at: "2026-11-20T12:00:00Z", type: "refreshed", detail: { version: 2 } }];
  await using broker = await startStubBroker({ "GET /connections/a/events": { body: { items, next_cursor: "1" } } });
  const env = { FRESHET_URL: broker.url };
  const result = await run(["connections", "events", "a", "--limit", "1"], { env });
  expect(result).toEqual({
    exitCode: 0,
    out: "AT                    EVENT      DETAIL\n2026-11-20T12:00:00Z  refreshed  version=2\n",
    err: "",
  });
  expect(broker.requests[0]?.query).toEqual({ limit: "1" });
  const json = await run(["connections", "events", "a", "--json"], { env });
  expect(JSON.parse(json.out)).toEqual({ items, next_cursor: "1" });
});

test.each([
  ["stdin", ["--code-file", "-"], { stdin: "code-1\n" }],
  ["a prompt", [], { interactive: true, stdin: "code-1\r" }],
])("a copied code is handed in from %s, and never shown", async (_source, args, surroundings) => {
  await using broker = await startStubBroker({
    "POST /connections/a/code": { body: { name: "a", status: "connected" } },
  });
  const result = await run(["connections", "code", "a", ...args], {
    ...surroundings,
    env: { FRESHET_URL: broker.url },
  });
  expect(result).toMatchObject({ exitCode: 0, out: "Connection a is connected.\n" });
  expect(result.err).not.toContain("code-1");
  expect(broker.sentTo("POST /connections/a/code")).toEqual([{ code: "code-1" }]);
});

const names = (...all: string[]) => ({ body: { items: all.map((name) => ({ name })), next_cursor: null } });
const forbidden = problem(403, "forbidden", "This key may not list.");

test.each([
  [["token", "acme-bl"], "GET /tokens/acme-bl", unknown, "/connections", "connection_not_found"],
  [["connections", "show", "acme-bl"], "GET /connections/acme-bl", unknown, "/connections", "connection_not_found"],
  [["import", "acme-bl"], "POST /connections/acme-bl/import", unknown, "/connections", "connection_not_found"],
  [
    ["connections", "delete", "acme-bl"],
    "DELETE /connections/acme-bl",
    unknown,
    "/connections",
    "connection_not_found",
  ],
  [["clients", "show", "acme-bl"], "GET /clients/acme-bl", unknownClient, "/clients", "not_found"],
])(
  "a name that is nearly one that the key may list is told, and else nothing: %j",
  async (...[args, route, answer, list, code]) => {
    await using broker = await startStubBroker({
      [route]: answer,
      [`GET ${list}`]: [names("other", "acme-bol"), forbidden],
    });
    const env = { FRESHET_URL: broker.url, FRESHET_REFRESH_TOKEN: "rt" };
    const { detail } = answer.body as { detail: string };
    expect((await run(args, { env })).err).toBe(`freshet: ${detail} Did you mean "acme-bol"? (${code})\n`);
    expect((await run(args, { env })).err).toBe(`freshet: ${detail} (${code})\n`);
  },
);

test("a mistyped client of a new connection is told as well", async () => {
  await using broker = await startStubBroker({
    "GET /providers/market": market,
    "GET /clients": names("bol-app"),
    "GET /clients/bol-ap": unknownClient,
    "POST /connections": problem(400, "invalid_request", 'client: there is no client named "bol-ap".'),
  });
  const args = ["connections", "add", "a", "--provider", "market", "--client", "bol-ap"];
  expect((await run(args, { env: { FRESHET_URL: broker.url } })).err).toMatch(
    /Did you mean "bol-app"\? \(invalid_request\)\n$/,
  );
});

test("a key is revoked by its id, which is told to whoever gives its name", async () => {
  const keys = { body: { items: [{ id: "k7", name: "billing", revoked_at: null }], next_cursor: null } };
  await using broker = await startStubBroker({ "GET /keys": keys });
  const result = await run(["keys", "revoke", "billing"], { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({
    exitCode: 1,
    out: "",
    err: 'freshet: A key is named by its id: k7 for "billing" (not_found)\n',
  });
});

const keyedConnection = { name: "a", provider: "keyed", grant: "client_credentials", status: "connected" };

test.each([
  ["connect", ["connect", "a", "--provider", "keyed"], {}],
  ["connect, where the connection is there", ["connect", "a", "--provider", "keyed"], { body: keyedConnection }],
  ["connections add", ["connections", "add", "a", "--provider", "keyed"], {}],
  ["connections update", ["connections", "update", "a"], { body: keyedConnection }],
])("an input that is a secret is no argument, and is shown to nobody: %s", async (_command, args, there) => {
  await using broker = await startStubBroker({
    "GET /providers/keyed": keyed,
    "GET /connections/a": "body" in there ? there : unknown,
  });
  for (const json of [[], ["--json"]]) {
    const line = [...args, "--input", "region=eu", "--input", "api_secret=canary", ...json];
    expect(await run(line, { env: { FRESHET_URL: broker.url } })).toEqual({
      exitCode: 2,
      out: "",
      err: "freshet: The input api_secret is a secret: give --secret-input api_secret in its place, and set FRESHET_INPUT_API_SECRET or type it when asked (usage)\n",
    });
  }
  expect(broker.requests.filter(({ method }) => method !== "GET")).toEqual([]);
});

test.each<[string, Surroundings]>([
  ["the environment", { env: { FRESHET_INPUT_API_SECRET: "canary", FRESHET_INPUT_OTHER_SECRET: "canary-2" } }],
  ["a prompt", { interactive: true, stdin: "canary\rcanary-2\r" }],
])("an input that is a secret comes from %s, and the same line can be given again", async (_source, surroundings) => {
  await using broker = await startStubBroker({
    "GET /providers/keyed": keyed,
    "GET /connections/a": [unknown, { body: { ...keyedConnection, inputs: { region: "eu" } } }],
    "POST /connections": { status: 201, body: keyedConnection },
  });
  const secrets = ["--secret-input", "api_secret", "--secret-input", "other_secret"];
  const line = ["connect", "a", "--provider", "keyed", "--input", "region=eu", ...secrets];
  const env = { FRESHET_URL: broker.url };
  const first = await run(line, { ...surroundings, env: { ...surroundings.env, ...env } });
  expect(first).toMatchObject({ exitCode: 0, out: "Connection a is connected.\n" });
  expect(await run(line, { env })).toEqual({
    exitCode: 0,
    out: "Connection a is connected.\n",
    err: expect.stringMatching(/^a is there, and keeps its secrets\. /),
  });
  expect(first.err).not.toContain("canary");
  expect(broker.sentTo("POST /connections")).toEqual([
    { name: "a", provider: "keyed", inputs: { region: "eu", api_secret: "canary", other_secret: "canary-2" } },
  ]);
});

test("another value of an input is told without the values, by a key that does not see which inputs are secrets, too", async () => {
  await using broker = await startStubBroker({
    "GET /providers/keyed": forbidden,
    "GET /connections/a": { body: { ...keyedConnection, inputs: { region: "eu-canary" } } },
  });
  const connect = async (input: string) =>
    await run(["connect", "a", "--provider", "keyed", "--input", input], { env: { FRESHET_URL: broker.url } });
  const differs = await connect("region=us-canary");
  expect(differs).toMatchObject({ exitCode: 1, err: expect.stringContaining("another value of the input region:") });
  expect(differs.err).not.toContain("canary");
  // The broker shows no secret: this one cannot be compared.
  expect(await connect("api_secret=canary")).toEqual({
    exitCode: 0,
    out: "Connection a is connected.\n",
    err: "a is there, and its input api_secret is not shown to this key: it stays as it is\n",
  });
});

test("connections update sends a new value of an input that is a secret", async () => {
  await using broker = await startStubBroker({ "PATCH /connections/a": { body: keyedConnection } });
  const env = { FRESHET_URL: broker.url, FRESHET_INPUT_API_SECRET: "canary" };
  const update = ["connections", "update", "a", "--secret-input"];
  expect(await run([...update, "api_secret"], { env })).toEqual({
    exitCode: 0,
    out: "Connection a is changed.\n",
    err: "",
  });
  expect(broker.sentTo("PATCH /connections/a")).toEqual([{ inputs: { api_secret: "canary" } }]);
  expect(await run([...update, "other_secret"], { env })).toMatchObject({
    exitCode: 2,
    err: "freshet: Missing: FRESHET_INPUT_OTHER_SECRET (usage)\n",
  });
});
